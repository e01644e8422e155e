// Times pictures in device memory to rows of patches: pixels_bench [--cpu] [NUMBER OF A CASE]
//
// Prints one line a case: microseconds of one call, of one call among many in a row, and of the time that reading the
// picture and writing the rows once would take at the speed of a device-to-device copy measured in the same run. Calls
// go round several pictures and outputs, together larger than the L2 cache. --cpu adds the CPU path on all threads.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string_view>
#include <vector>

#include "kernels/pixels_on_device.hpp"

namespace oriel::kernels {
namespace {

using image::Filter;
using image::ResizeArithmetic;

struct Case {
  const char* name;
  Size source;
  Size target;
  int64_t patch;
  int64_t temporal;
  int64_t merge;
  Filter filter;
  ResizeArithmetic arithmetic = ResizeArithmetic::torchvision;
  Element element = Element::bfloat16;
};

class Event {
 public:
  Event() { check_cuda(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  /// Microseconds from `begin` to this one.
  [[nodiscard]] double since(const Event& begin) const {
    check_cuda(cudaEventSynchronize(event_), "running");
    float milliseconds = 0;
    check_cuda(cudaEventElapsedTime(&milliseconds, begin.event_, event_), "cudaEventElapsedTime");
    return 1e3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

/// Median microseconds of a call among `calls` in a row.
template <typename Call>
double median_time(int calls, Call&& call) {
  constexpr int repetitions = 21;
  std::vector<double> times;
  for (int repetition = 0; repetition < repetitions + 2; ++repetition) {
    Event begin;
    Event end;
    begin.record(nullptr);
    for (int i = 0; i < calls; ++i) call();
    end.record(nullptr);
    if (repetition >= 2) times.push_back(end.since(begin) / calls);
  }
  std::nth_element(times.begin(), times.begin() + repetitions / 2, times.end());
  return times[repetitions / 2];
}

/// Bytes per microsecond of a large copy, counting those read and those written.
double copy_speed() {
  constexpr size_t size = size_t{1} << 30;
  const DeviceBytes from(size);
  const DeviceBytes to(size);
  from.fill(0x3C);
  const double time = median_time(3, [&] {
    check_cuda(cudaMemcpyAsync(to.data(), from.data(), size, cudaMemcpyDeviceToDevice, nullptr), "copying");
  });
  return 2.0 * static_cast<double>(size) / time;
}

std::vector<uint8_t> noise(int64_t bytes) {
  std::mt19937_64 random(7);
  std::vector<uint8_t> result(static_cast<size_t>(bytes));
  for (uint8_t& byte : result) byte = static_cast<uint8_t>(random());
  return result;
}

double cpu_time(const Case& c, const image::PixelSpec& spec, const std::vector<uint8_t>& pixels) {
  const ThreadPool pool;
  const int64_t patches = (c.target.height / c.patch) * (c.target.width / c.patch);
  std::vector<float> rows(static_cast<size_t>(patches * spec.patch_values()));
  const image::RgbView view{pixels.data(), c.source, 3 * c.source.width};
  double best = 1e30;
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    image::write_patches({&view, 1}, c.target, spec, c.arithmetic, pool, rows);
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - begin;
    best = std::min(best, time.count());
  }
  return best;
}

void time_case(const Case& c, double speed, bool with_cpu) {
  image::PixelSpec spec;
  spec.filter = c.filter;
  spec.patch = c.patch;
  spec.temporal = c.temporal;
  spec.merge = c.merge;
  spec.mean = {0.48145466, 0.4578275, 0.40821073};
  spec.std = {0.26862954, 0.26130258, 0.27577711};
  const auto begin = std::chrono::steady_clock::now();
  const image::PixelTables tables(c.source, c.target, spec, c.arithmetic);
  const DeviceTables device_tables(tables);
  const std::chrono::duration<double, std::micro> table_time = std::chrono::steady_clock::now() - begin;

  const std::vector<uint8_t> pixels = noise(3 * c.source.width * c.source.height);
  const int64_t patches = (c.target.height / c.patch) * (c.target.width / c.patch);
  PatchesParams params = params_of(tables, device_tables.data(), spec, c.target);
  params.element = c.element;
  const int64_t size = c.element == Element::float32 ? 4 : 2;
  params.out_columns = params.out_stride = (spec.patch_values() + 7) / 8 * 8;
  const int64_t out_bytes = patches * params.out_stride * size;
  params.picture.height = c.source.height;
  params.picture.width = c.source.width;
  params.picture.row_stride = 3 * c.source.width;

  // Sets whose bytes together are more than twice the L2 cache.
  const int64_t moved = static_cast<int64_t>(pixels.size()) + out_bytes;
  const auto sets = static_cast<size_t>(std::clamp<int64_t>((int64_t{120} << 20) / moved + 1, 2, 40));
  std::vector<DeviceBytes> pictures;
  std::vector<DeviceBytes> outs;
  for (size_t i = 0; i < sets; ++i) {
    pictures.emplace_back(pixels);
    outs.emplace_back(static_cast<size_t>(out_bytes));
  }
  const DeviceBytes scratch(patches_scratch_bytes(params));
  params.scratch = scratch.data();
  size_t next = 0;
  const auto call = [&] {
    params.picture.pixels = pictures[next].data();
    params.out = outs[next].data();
    next = (next + 1) % sets;
    check_cuda(write_patches(params, nullptr), "write_patches");
  };
  const double alone = median_time(1, call);
  const double in_a_row = median_time(20, call);
  const double floor = static_cast<double>(moved) / speed;
  std::printf("%-44s %9.1f %9.1f %9.1f %7.2f %10.0f", c.name, alone, in_a_row, floor, in_a_row / floor,
              table_time.count());
  if (with_cpu) std::printf(" %10.0f", cpu_time(c, spec, pixels));
  std::printf("\n");
  std::fflush(stdout);
}

int run(bool with_cpu, int only) {
  constexpr Size hd{1920, 1080};
  constexpr Size camera{4000, 3000};
  constexpr Size square{896, 896};
  const std::vector<Case> cases = {
      {"2048x1536 to 1024x768, patch 16", {2048, 1536}, {1024, 768}, 16, 1, 1, Filter::bicubic},
      {"1920x1080 to Qwen, 1.0 Mpx", hd, {1344, 756}, 14, 2, 2, Filter::bicubic},
      {"1920x1080 to Qwen, 12.8 Mpx", hd, {4760, 2688}, 14, 2, 2, Filter::bicubic},
      {"1920x1080 to Gemma, 896x896", hd, square, 14, 1, 1, Filter::bilinear},
      {"4000x3000 to Qwen, 1.0 Mpx", camera, {1148, 868}, 14, 2, 2, Filter::bicubic},
      {"4000x3000 to Qwen, 12.8 Mpx", camera, {4116, 3108}, 14, 2, 2, Filter::bicubic},
      {"4000x3000 to Gemma, 896x896", camera, square, 14, 1, 1, Filter::bilinear},
      {"448x336 to Qwen, same size", {448, 336}, {448, 336}, 14, 2, 2, Filter::bicubic},
      {"3000x4000 to Gemma, Pillow 13", {3000, 4000}, square, 14, 1, 1, Filter::bilinear, ResizeArithmetic::pillow},
      {"1920x1080 to Qwen, 1.0 Mpx, Pillow 13", hd, {1344, 756}, 14, 2, 2, Filter::bicubic, ResizeArithmetic::pillow},
      {"1920x1080 to Qwen, 1.0 Mpx, float32",
       hd,
       {1344, 756},
       14,
       2,
       2,
       Filter::bicubic,
       ResizeArithmetic::torchvision,
       Element::float32},
  };
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  const double speed = copy_speed();
  std::printf("%s, copy %.2f TB/s; microseconds\n", properties.name, speed * 1e-6);
  std::printf("%-44s %9s %9s %9s %7s %10s%s\n", "bfloat16 unless said otherwise", "alone", "in a row", "floor", "ratio",
              "tables", with_cpu ? "        cpu" : "");
  for (size_t i = 0; i < cases.size(); ++i) {
    if (only < 0 || static_cast<size_t>(only) == i) time_case(cases[i], speed, with_cpu);
  }
  return 0;
}

}  // namespace
}  // namespace oriel::kernels

int main(int argc, char** argv) {
  try {
    bool with_cpu = false;
    int only = -1;
    for (int i = 1; i < argc; ++i) {
      if (std::string_view(argv[i]) == "--cpu") {
        with_cpu = true;
      } else {
        only = std::atoi(argv[i]);
      }
    }
    return oriel::kernels::run(with_cpu, only);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "pixels_bench: %s\n", error.what());
    return 1;
  }
}
