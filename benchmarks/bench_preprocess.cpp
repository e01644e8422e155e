// bench_preprocess: a decoded picture to patch rows, timed beside a plain store of as many bytes.
#include <cstring>
#include <map>
#include <memory>
#include <thread>

#include "bench.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace {

struct Arguments {
  std::string model;
  std::string picture;
  std::string resize = "torchvision";
  std::string dump;
  int threads = 1;
  int repeats = 10;
  bool serve = false;
  bool keep_memory = false;
};

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--model", arguments.model, "checkpoint directory; its weights are not read")->required();
  app.add_option("--picture", arguments.picture, "JPEG, PNG, WebP, BMP or GIF file")->required();
  app.add_option("--resize", arguments.resize, "whose pixels: torchvision (default), pillow")
      ->check(CLI::IsMember({"torchvision", "pillow"}));
  app.add_option("--threads", arguments.threads, "(default: 1)")->check(CLI::Range(1, 1024));
  app.add_option("--repeats", arguments.repeats, "timed runs (default: 10)")->check(CLI::Range(1, 1'000'000));
  app.add_flag("--serve", arguments.serve, "read counts of runs from stdin instead");
  app.add_flag("--keep-memory", arguments.keep_memory,
               "keep freed memory in the process: results land in pages that were touched before");
  app.add_option("--dump", arguments.dump, "write the rows to this file first, as tensor 'pixels'");
}

/// Makes malloc neither map nor return memory by itself, so that page faults happen in the first run only.
void keep_freed_memory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
#else
  throw std::runtime_error("--keep-memory: expected glibc, whose malloc can be told to");
#endif
}

/// New memory, every byte of it written once by memset.
std::unique_ptr<std::byte[]> store(size_t bytes, int threads) {
  std::unique_ptr<std::byte[]> memory(new std::byte[bytes]);
  const auto fill = [&](size_t part) {
    const auto parts = static_cast<size_t>(threads);
    const size_t begin = bytes / parts * part;
    const size_t end = part + 1 == parts ? bytes : bytes / parts * (part + 1);
    std::memset(memory.get() + begin, 0x5a, end - begin);
  };
  std::vector<std::jthread> workers;
  for (int part = 1; part < threads; ++part) workers.emplace_back(fill, static_cast<size_t>(part));
  fill(0);
  workers.clear();
  // The compiler must not drop a store to memory that nobody reads.
  asm volatile("" : : "r"(memory.get()) : "memory");
  return memory;
}

void bench_preprocess(const Arguments& arguments) {
  if (arguments.keep_memory) keep_freed_memory();
  oriel::set_compute_threads(arguments.threads);
  const oriel::VisionTower tower =
      oriel::VisionTower::load(arguments.model, {.threads = arguments.threads, .weights = false});
  const oriel::Image image = oriel::Image::open(arguments.picture);
  const oriel::PreprocessOptions options{.resize = arguments.resize == "pillow" ? oriel::ResizeBackend::pillow
                                                                                : oriel::ResizeBackend::torchvision};
  const auto preprocess = [&] { return tower.preprocess({&image, 1}, options); };

  size_t bytes = 0;
  {
    const oriel::Patches patches = preprocess();
    bytes = patches.values.size_in_bytes();
    if (!arguments.dump.empty())
      oriel::save_safetensors(arguments.dump, std::vector{oriel::NamedTensor{"pixels", patches.values}});
    bench::JsonLine()
        .add("family", tower.family())
        .add("instructions", bench::pixel_instructions())
        .add("threads", int64_t{arguments.threads})
        .add("rows", patches.values.size(0))
        .add("bytes", static_cast<int64_t>(bytes))
        .add("resized", to_text(patches.images[0].resized))
        .print();
  }
  if (arguments.keep_memory)
    bench::settle_memory([&] {
      (void)preprocess();
      (void)store(bytes, arguments.threads);
    });
  bench::answer_rounds(arguments.serve, arguments.repeats, [&](int repeats) {
    std::vector<double> ms;
    std::vector<double> store_ms;
    for (int i = 0; i < repeats; ++i) {
      ms.push_back(bench::timed(preprocess).second);
      store_ms.push_back(bench::timed([&] { return store(bytes, arguments.threads); }).second);
    }
    bench::JsonLine().add("ms", ms).add("store_ms", store_ms).print();
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times resize, normalise and patchify of one decoded picture.", "bench_preprocess"};
  Arguments arguments;
  add_options(app, arguments);
  return run_program(app, argc, argv, [&] { bench_preprocess(arguments); });
}
