// bench_profile_gpu: what bounds a call. Runs it in a loop at the loop's real clocks, first untouched, watching clock
// and power, then with every kernel recorded, and prints the kernels of one call in their order.
#include <algorithm>
#include <map>

#include "gpu_state.hpp"
#include "kernel_trace.hpp"
#include "tower_call_gpu.hpp"

namespace {

using bench::TracedWork;
using Clock = std::chrono::steady_clock;

struct Arguments {
  std::string model;
  std::vector<std::string> calls;
  std::string tuning_file;
  double seconds = 2;
  double traced_seconds = 0.4;
};

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--model", arguments.model, "Hugging Face checkpoint directory")->required();
  app.add_option("--call", arguments.calls,
                 "pictures of one call, such as 1024x768,640x480 (width x height); repeatable")
      ->required();
  app.add_option("--tuning-file", arguments.tuning_file, "as LoadOptions::tuning_file (default: none)");
  app.add_option("--seconds", arguments.seconds, "of the loop that is watched (default: 2)")
      ->check(CLI::Range(0.1, 60.0));
  app.add_option("--traced-seconds", arguments.traced_seconds, "of the loop that is recorded (default: 0.4)")
      ->check(CLI::Range(0.01, 10.0));
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// Milliseconds of each call in a loop of so many seconds, each waited for.
template <typename Encode>
std::vector<double> loop(const Encode& encode, double seconds, size_t least_calls) {
  std::vector<double> ms;
  const auto begin = Clock::now();
  while (ms.size() < least_calls || std::chrono::duration<double>(Clock::now() - begin).count() < seconds)
    ms.push_back(bench::timed(encode).second);
  return ms;
}

/// Per call, in microseconds.
struct Sums {
  double busy = 0;          ///< something ran
  double overlapped = 0;    ///< a second thing ran beside it, or was there already and waited
  double gaps_inside = 0;   ///< nothing ran, between the first and the last of a call
  double gaps_between = 0;  ///< nothing ran, from the last of a call to the first of the next
};

/// Sets each work's `start` to the end of what was there before it: kernels may be launched ahead and wait on the GPU
/// for the ones that they depend on, which is no time of theirs.
Sums sum(std::vector<TracedWork>& works, size_t calls) {
  Sums sums;
  const size_t per_call = works.size() / calls;
  uint64_t until = works.front().start;
  for (size_t i = 0; i < works.size(); ++i) {
    TracedWork& work = works[i];
    if (work.start > until)
      (i % per_call == 0 ? sums.gaps_between : sums.gaps_inside) += static_cast<double>(work.start - until);
    const uint64_t fresh = std::max(work.start, until);
    const uint64_t end = std::max(work.end, fresh);
    sums.busy += static_cast<double>(end - fresh);
    sums.overlapped += static_cast<double>((work.end - work.start) - (end - fresh));
    until = std::max(until, work.end);
    work.start = fresh;
    work.end = end;
  }
  for (double* value : {&sums.busy, &sums.overlapped, &sums.gaps_inside, &sums.gaps_between})
    *value /= 1000.0 * static_cast<double>(calls);
  return sums;
}

/// Adds one call's kernels in their order, with the mean of all calls; or, where calls differ in what they launch, says
/// so and adds sums by name.
void add_kernels(bench::JsonLine& line, const std::vector<TracedWork>& works, size_t calls) {
  const bool same = works.size() % calls == 0;
  const size_t count = same ? works.size() / calls : 0;
  std::vector<std::string> names;
  std::vector<double> us;
  for (size_t place = 0; place < count; ++place) {
    names.push_back(works[place].name);
    us.push_back(0);
    for (size_t i = place; i < works.size(); i += count)
      us.back() += static_cast<double>(works[i].end - works[i].start) / 1000.0 / static_cast<double>(calls);
  }
  if (!same) {
    std::map<std::string, double> by_name;
    for (const TracedWork& work : works)
      by_name[work.name] += static_cast<double>(work.end - work.start) / 1000.0 / static_cast<double>(calls);
    for (const auto& [name, all] : by_name) names.push_back(name), us.push_back(all);
  }
  line.add("in_order", int64_t{same}).add("names", names).add("us", us);
}

template <typename Encode>
void add_trace(bench::JsonLine& line, const Encode& encode, double seconds) {
  try {
    bench::start_trace();
    (void)loop(encode, seconds / 2, 3);
    (void)bench::take_trace();
    const std::vector<double> ms = loop(encode, seconds, 3);
    std::vector<TracedWork> works = bench::take_trace();
    bench::stop_trace();
    if (works.empty()) throw std::runtime_error("CUPTI recorded nothing");
    const Sums sums = sum(works, ms.size());
    line.add("traced_calls", static_cast<int64_t>(ms.size()))
        .add("traced_ms", std::vector{median(ms)})
        .add("busy_us", std::vector{sums.busy})
        .add("overlapped_us", std::vector{sums.overlapped})
        .add("gaps_inside_us", std::vector{sums.gaps_inside})
        .add("gaps_between_us", std::vector{sums.gaps_between});
    add_kernels(line, works, ms.size());
  } catch (const std::runtime_error& error) {
    line.add("trace_problem", error.what());
  }
}

void profile(const oriel::VisionTower& tower, const Arguments& arguments, const std::string& call) {
  const oriel::Patches patches = bench::random_patches(tower, bench::sizes_of(call));
  const auto encode = [&] {
    auto rows = tower.encode(patches, {.embeddings_cpu = false});
    bench::check(cudaDeviceSynchronize());
    return rows;
  };
  (void)loop(encode, 0.3, 4);  // times products, captures
  bench::GpuWatch watch(0);
  std::vector<double> ms = loop(encode, arguments.seconds, 8);
  const bench::GpuState state = watch.finish();
  ms.erase(ms.begin(), ms.begin() + static_cast<std::ptrdiff_t>(ms.size() / 2));  // until the clock has settled
  bench::JsonLine line;
  line.add("family", tower.family())
      .add("call", call)
      .add("patches", patches.values.shape().front())
      .add("ms", std::vector{median(ms)})
      .add("calls", static_cast<int64_t>(ms.size()))
      .add("sm_mhz", std::vector{state.sm_mhz})
      .add("watts", std::vector{state.watts})
      .add("most_watts", std::vector{state.most_watts})
      .add("power_capped", std::vector{state.power_capped})
      .add("thermal_slowed", std::vector{state.thermal_slowed})
      .add("hardware_slowed", std::vector{state.hardware_slowed})
      .add("samples", state.samples)
      .add("state_problem", watch.problem());
  add_trace(line, encode, arguments.traced_seconds);
  line.print();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Shows what a call of a tower on a GPU consists of while it runs in a loop, one JSON line each.",
               "bench_profile_gpu"};
  Arguments arguments;
  add_options(app, arguments);
  return run_program(app, argc, argv, [&] {
    oriel::LoadOptions options{.device = oriel::Device::cuda()};
    if (!arguments.tuning_file.empty()) options.tuning_file = arguments.tuning_file;
    const auto tower = oriel::VisionTower::load(arguments.model, options);
    for (const std::string& call : arguments.calls) profile(tower, arguments, call);
  });
}
