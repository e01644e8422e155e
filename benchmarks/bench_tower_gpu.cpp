// bench_tower_gpu: patches in device memory to rows in device memory, for packed calls of any sizes.
#include <c10/cuda/CUDACachingAllocator.h>

#include "tower_call_gpu.hpp"

namespace {

struct Arguments {
  std::string model;
  std::string dtype = "bfloat16";
  std::vector<std::string> calls;
  std::string tuning_file;
  int warm_up = 4;
  int repeats = 20;
};

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--model", arguments.model, "Hugging Face checkpoint directory")->required();
  app.add_option("--dtype", arguments.dtype, "bfloat16, float16 or float32 (default: bfloat16)")
      ->check(CLI::IsMember({"bfloat16", "float16", "float32"}));
  app.add_option("--call", arguments.calls,
                 "pictures of one call, such as 1024x768,640x480 (width x height); repeatable")
      ->required();
  app.add_option("--tuning-file", arguments.tuning_file, "as LoadOptions::tuning_file (default: none)");
  app.add_option("--warm-up", arguments.warm_up, "untimed runs of each call (default: 4)")->check(CLI::Range(1, 1000));
  app.add_option("--repeats", arguments.repeats, "timed runs of each call (default: 20)")
      ->check(CLI::Range(1, 1'000'000));
}

oriel::DType dtype_of(const std::string& name) {
  if (name == "float32") return oriel::DType::float32;
  return name == "float16" ? oriel::DType::float16 : oriel::DType::bfloat16;
}

void bench_call(const oriel::VisionTower& tower, const Arguments& arguments, const std::string& call) {
  const std::vector<oriel::Size> sizes = bench::sizes_of(call);
  const oriel::Patches patches = bench::random_patches(tower, sizes);
  const oriel::ImagePlan plan = tower.plan(sizes.front());
  const int64_t planned = sizes.size() == 1 ? plan.working_bytes + plan.embedding_bytes : 0;
  const auto encode = [&] {
    auto rows = tower.encode(patches, {.embeddings_cpu = false});
    bench::check(cudaDeviceSynchronize());
    return rows;
  };
  namespace allocator = c10::cuda::CUDACachingAllocator;
  const auto allocated = [] {
    return allocator::getDeviceStats(0)
        .allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
  };
  // Of the first calls of a size, as planned: where a graph is replayed, later ones use what these have left.
  allocator::resetPeakStats(0);
  const int64_t before = allocated().current;
  const double first_ms = bench::timed(encode).second;
  for (int i = 1; i < arguments.warm_up; ++i) encode();
  const int64_t working_bytes = allocated().peak - before;
  std::vector<double> ms;
  for (int i = 0; i < arguments.repeats; ++i) ms.push_back(bench::timed(encode).second);
  bench::JsonLine()
      .add("family", tower.family())
      .add("call", call)
      .add("dtype", arguments.dtype)
      .add("patches", patches.values.size(0))
      .add("working_bytes", working_bytes)
      .add("planned_bytes", planned)  // of one picture; 0 for several
      .add("first_ms", std::vector{first_ms})
      .add("ms", ms)
      .print();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times encoding packed pictures on a GPU, patches to rows, each call waited for.", "bench_tower_gpu"};
  Arguments arguments;
  add_options(app, arguments);
  return run_program(app, argc, argv, [&] {
    oriel::LoadOptions options{.device = oriel::Device::cuda(), .dtype = dtype_of(arguments.dtype)};
    if (!arguments.tuning_file.empty()) options.tuning_file = arguments.tuning_file;
    const auto tower = oriel::VisionTower::load(arguments.model, options);
    for (const std::string& call : arguments.calls) bench_call(tower, arguments, call);
  });
}
