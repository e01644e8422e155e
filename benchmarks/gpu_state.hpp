#pragma once
// Clock, power and what holds the clock back, read through the driver's management library while something runs.
#include <cstdint>
#include <memory>
#include <string>

namespace bench {

/// Medians over the second half of a watch: power is a running mean of about a second on these cards.
struct GpuState {
  double sm_mhz = 0;
  double watts = 0;
  double most_watts = 0;       ///< the limit in force
  double power_capped = 0;     ///< share of the samples in which the power limit held the clock back
  double thermal_slowed = 0;   ///< or the temperature, in software or hardware
  double hardware_slowed = 0;  ///< or the board: brake and slowdown signals
  int64_t samples = 0;
};

/// Reads, and never sets, the state of a CUDA device about fifty times a second until finish().
class GpuWatch {
 public:
  explicit GpuWatch(int device);
  ~GpuWatch();
  GpuWatch(const GpuWatch&) = delete;
  GpuWatch& operator=(const GpuWatch&) = delete;

  [[nodiscard]] GpuState finish();
  /// Why there is no state, or empty.
  [[nodiscard]] const std::string& problem() const { return problem_; }

 private:
  struct Sampler;
  std::string problem_;
  std::unique_ptr<Sampler> sampler_;
};

}  // namespace bench
