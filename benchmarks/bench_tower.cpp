// bench_tower: patches to rows, and how long and in how much memory a checkpoint loads.
#include <optional>

#include "bench.hpp"

namespace {

struct Arguments {
  std::string model;
  std::string picture;
  std::string dump;
  int threads = 1;
  int loads = 1;
  int repeats = 3;
  bool serve = false;
};

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--model", arguments.model, "Hugging Face checkpoint directory")->required();
  app.add_option("--picture", arguments.picture, "JPEG, PNG, WebP, BMP or GIF file")->required();
  app.add_option("--threads", arguments.threads, "(default: 1)")->check(CLI::Range(1, 1024));
  app.add_option("--loads", arguments.loads, "how often to load the checkpoint (default: 1)")
      ->check(CLI::Range(1, 1000));
  app.add_option("--repeats", arguments.repeats, "timed runs (default: 3)")->check(CLI::Range(1, 1'000'000));
  app.add_flag("--serve", arguments.serve, "read counts of runs from stdin instead");
  app.add_option("--dump", arguments.dump, "write the rows to this file first, as tensor 'rows'");
}

void bench_tower(const Arguments& arguments) {
  oriel::set_compute_threads(arguments.threads);
  const int64_t start_kib = bench::status_kib("VmHWM");
  std::optional<oriel::VisionTower> tower;
  std::vector<double> load_ms;
  int64_t load_peak_kib = 0;
  for (int i = 0; i < arguments.loads; ++i) {
    tower.reset();
    auto [loaded, ms] = bench::timed([&] {
      return oriel::VisionTower::load(arguments.model, {.dtype = oriel::DType::float32, .threads = arguments.threads});
    });
    tower = std::move(loaded);
    load_ms.push_back(ms);
    if (i == 0) load_peak_kib = bench::status_kib("VmHWM");  // later loads find memory of earlier ones
  }
  const oriel::Image image = oriel::Image::open(arguments.picture);
  const oriel::Patches patches = tower->preprocess({&image, 1});
  const auto encode = [&] { return tower->encode(patches); };

  const auto [rows, first_ms] = bench::timed(encode);
  if (!arguments.dump.empty())
    oriel::save_safetensors(arguments.dump, std::vector{oriel::NamedTensor{"rows", rows[0]}});
  bench::JsonLine()
      .add("family", tower->family())
      .add("threads", int64_t{arguments.threads})
      .add("patches", patches.values.size(0))
      .add("rows", rows[0].size(0))
      .add("load_ms", load_ms)
      .add("first_ms", std::vector{first_ms})
      .add("start_kib", start_kib)
      .add("load_peak_kib", load_peak_kib)
      .add("resident_kib", bench::status_kib("VmRSS"))
      .print();
  bench::answer_rounds(arguments.serve, arguments.repeats, [&](int repeats) {
    std::vector<double> ms;
    for (int i = 0; i < repeats; ++i) ms.push_back(bench::timed(encode).second);
    bench::JsonLine().add("ms", ms).print();
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times loading a tower and encoding one picture's patches in float32 on the CPU.", "bench_tower"};
  Arguments arguments;
  add_options(app, arguments);
  return run_program(app, argc, argv, [&] { bench_tower(arguments); });
}
