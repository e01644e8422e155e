#include "gpu_state.hpp"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

namespace bench {
namespace {

// Of the driver's nvml.h, which toolkits don't always bring.
using Handle = void*;
constexpr int clock_sm = 1;
constexpr unsigned long long reason_power_cap = 0x4, reasons_thermal = 0x20 | 0x40, reasons_board = 0x8 | 0x80;

/// The entry points needed of libnvidia-ml.so.1, which stays loaded.
class Library {
 public:
  Library() : library_(dlopen("libnvidia-ml.so.1", RTLD_NOW)) {
    if (library_ == nullptr) throw std::runtime_error("libnvidia-ml.so.1 was not found");
    find("nvmlInit_v2", init);
    find("nvmlDeviceGetHandleByPciBusId_v2", handle_by_bus);
    find("nvmlDeviceGetClockInfo", clock);
    find("nvmlDeviceGetPowerUsage", power);
    find("nvmlDeviceGetEnforcedPowerLimit", power_limit);
    find("nvmlDeviceGetCurrentClocksThrottleReasons", reasons);
  }

  int (*init)() = nullptr;
  int (*handle_by_bus)(const char*, Handle*) = nullptr;
  int (*clock)(Handle, int, unsigned*) = nullptr;
  int (*power)(Handle, unsigned*) = nullptr;  // milliwatts
  int (*power_limit)(Handle, unsigned*) = nullptr;
  int (*reasons)(Handle, unsigned long long*) = nullptr;

 private:
  template <typename Function>
  void find(const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(dlsym(library_, name));
    if (function == nullptr) throw std::runtime_error(std::string("libnvidia-ml.so.1 has no ") + name);
  }
  void* library_;
};

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

struct Sample {
  double mhz = 0;
  double watts = 0;
  unsigned long long reasons = 0;
};

}  // namespace

struct GpuWatch::Sampler {
  Library library;
  Handle gpu = nullptr;
  std::vector<Sample> samples;  ///< of the thread, until it has ended
  std::jthread thread;

  explicit Sampler(int device) {
    std::array<char, 32> bus{};
    if (cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), device) != cudaSuccess)
      throw std::runtime_error("the CUDA device has no PCI address");
    if (library.init() != 0 || library.handle_by_bus(bus.data(), &gpu) != 0)
      throw std::runtime_error(std::string("the driver's management library does not know ") + bus.data());
    thread = std::jthread([this](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        read();
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    });
  }

  void read() {
    unsigned mhz = 0, milliwatts = 0;
    Sample sample;
    if (library.clock(gpu, clock_sm, &mhz) != 0 || library.power(gpu, &milliwatts) != 0) return;
    if (library.reasons(gpu, &sample.reasons) != 0) return;
    sample.mhz = mhz;
    sample.watts = milliwatts / 1000.0;
    samples.push_back(sample);
  }
};

GpuWatch::GpuWatch(int device) {
  try {
    sampler_ = std::make_unique<Sampler>(device);
  } catch (const std::runtime_error& error) {
    problem_ = error.what();
  }
}

GpuWatch::~GpuWatch() = default;

GpuState GpuWatch::finish() {
  if (!sampler_) return {};
  sampler_->thread.request_stop();
  sampler_->thread.join();
  const std::vector<Sample> late(sampler_->samples.begin() + static_cast<std::ptrdiff_t>(sampler_->samples.size() / 2),
                                 sampler_->samples.end());
  const auto of = [&](auto value) {
    std::vector<double> values;
    for (const Sample& sample : late) values.push_back(value(sample));
    return values;
  };
  const auto share = [&](unsigned long long bits) {
    const auto some = std::count_if(late.begin(), late.end(), [&](const Sample& s) { return (s.reasons & bits) != 0; });
    return late.empty() ? 0.0 : static_cast<double>(some) / static_cast<double>(late.size());
  };
  unsigned limit = 0;
  (void)sampler_->library.power_limit(sampler_->gpu, &limit);
  const GpuState state{.sm_mhz = median(of([](const Sample& s) { return s.mhz; })),
                       .watts = median(of([](const Sample& s) { return s.watts; })),
                       .most_watts = limit / 1000.0,
                       .power_capped = share(reason_power_cap),
                       .thermal_slowed = share(reasons_thermal),
                       .hardware_slowed = share(reasons_board),
                       .samples = static_cast<int64_t>(late.size())};
  sampler_.reset();
  return state;
}

}  // namespace bench
