#pragma once
// What the example programs share: one clear line for every error, and progress where somebody watches.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <map>
#include <optional>
#include <oriel/oriel.hpp>
#include <string>

/// Parses the arguments and runs `body`. Returns 0, or 1 after one line on stderr.
template <typename Body>
int run_program(CLI::App& app, int argc, char** argv, const Body& body) {
  try {
    app.parse(argc, argv);
    body();
    return 0;
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", app.get_name().c_str(), error.what());
    return 1;
  }
}

/// Accepts one of the names and stores its value.
template <typename Value>
CLI::Option* add_choice(CLI::App& app, const std::string& name, Value& value, const std::string& description,
                        const std::map<std::string, Value>& choices) {
  std::string names;
  for (const auto& [choice, unused] : choices) names += (names.empty() ? "" : "|") + choice;
  return app
      .add_option_function<std::string>(
          name,
          [&value, choices, name, names](const std::string& text) {
            const auto place = choices.find(text);
            if (place == choices.end()) throw CLI::ValidationError(name, "expected " + names + ", got " + text);
            value = place->second;
          },
          description)
      ->type_name(names);
}

/// Where models run, and in what.
struct ComputeArguments {
  std::string device = "cpu";
  std::optional<oriel::DType> dtype;
  int threads = 0;

  void add_to(CLI::App& app) {
    app.add_option("--device", device, "where the model runs (default: cpu)")->type_name("cpu|cuda[:N]");
    add_choice<std::optional<oriel::DType>>(
        app, "--dtype", dtype, "of the model (default: float32 on the CPU, bfloat16 on a GPU)",
        {{"float32", oriel::DType::float32}, {"bfloat16", oriel::DType::bfloat16}, {"float16", oriel::DType::float16}});
    app.add_option("--threads", threads, "threads for pixels and model (default: all)")->type_name("N");
  }
  /// To be called before anything is computed.
  void apply() const {
    if (threads < 0) throw std::invalid_argument("--threads: expected a positive number");
    if (threads > 0) oriel::set_compute_threads(threads);
  }
  [[nodiscard]] oriel::VisionTower load_tower(const std::string& directory) const;
};

/// Shows a percentage on stderr while something long runs; silent where stderr is not a terminal.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what) : what_(std::move(what)), visible_(isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() {
    if (visible_ && last_ >= 0) std::fprintf(stderr, "\r\033[K");
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void operator()(const oriel::Progress& progress) { show(progress.done, progress.total); }
  void show(int64_t done, int64_t total) {
    const int percent = total > 0 ? static_cast<int>(100 * done / total) : 100;
    if (!visible_ || percent == last_) return;
    last_ = percent;
    std::fprintf(stderr, "\r%s %3d %%", what_.c_str(), percent);
    std::fflush(stderr);
  }

 private:
  std::string what_;
  bool visible_;
  int last_ = -1;
};

inline oriel::VisionTower ComputeArguments::load_tower(const std::string& directory) const {
  ProgressLine progress("loading " + directory);
  return oriel::VisionTower::load(
      directory,
      {.device = oriel::Device::parse(device), .dtype = dtype, .threads = threads, .progress = std::ref(progress)});
}

inline std::string to_text(oriel::Size size) {
  return std::to_string(size.width) + " x " + std::to_string(size.height);
}

/// Bytes with a unit that suits their size.
inline std::string bytes_to_text(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= 1024 && unit < 4) value /= 1024, ++unit;
  char text[32];
  std::snprintf(text, sizeof text, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
  return text;
}
