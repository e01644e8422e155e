#pragma once
// What the example programs share: one clear line for every error, and progress where somebody watches.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
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

/// Shows a percentage on stderr while something long runs; silent where stderr is not a terminal.
class ProgressLine {
 public:
  explicit ProgressLine(std::string what) : what_(std::move(what)), visible_(isatty(STDERR_FILENO) == 1) {}
  ~ProgressLine() {
    if (visible_ && last_ >= 0) std::fprintf(stderr, "\r\033[K");
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void operator()(const oriel::Progress& progress) {
    const int percent = progress.total > 0 ? static_cast<int>(100 * progress.done / progress.total) : 100;
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
