#pragma once
// Seeded inputs, and comparisons with double-precision loops, for the tests of ops and nn.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace oriel {

/// Values of both signs. Equal seeds give equal values; tests print theirs with SCOPED_TRACE.
class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}

  /// Normally distributed, float32.
  at::Tensor normal(const std::vector<int64_t>& shape, double scale = 1.0, double mean = 0.0) {
    at::Tensor result = at::empty(shape, at::kFloat);
    auto* values = result.mutable_data_ptr<float>();
    std::normal_distribution<double> distribution(mean, scale);
    for (int64_t i = 0; i < result.numel(); ++i) values[i] = static_cast<float>(distribution(engine_));
    return result;
  }

  /// Multiples of 1/4 in [-limit, limit]: their squares and short sums of them are exact in float32, in any order.
  at::Tensor quarters(const std::vector<int64_t>& shape, int limit) {
    at::Tensor result = at::empty(shape, at::kFloat);
    auto* values = result.mutable_data_ptr<float>();
    std::uniform_int_distribution<int> distribution(-4 * limit, 4 * limit);
    for (int64_t i = 0; i < result.numel(); ++i) values[i] = static_cast<float>(distribution(engine_)) / 4;
    return result;
  }

 private:
  std::mt19937_64 engine_;
};

inline std::vector<double> doubles(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kDouble).contiguous();
  const auto* values = wide.const_data_ptr<double>();
  return {values, values + wide.numel()};
}

inline std::vector<float> floats(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  const auto* values = wide.const_data_ptr<float>();
  return {values, values + wide.numel()};
}

/// `x` rounded to bfloat16, to nearest, ties to even.
inline float rounded(float x) { return static_cast<float>(c10::BFloat16(x)); }

/// The most that one rounding of `x` to bfloat16 can err: half a step of 8 significant bits.
inline double half_step(double x) {
  int exponent = 0;
  (void)std::frexp(x, &exponent);
  return std::ldexp(1.0, exponent - 9);
}

/// The largest error, in units of the largest magnitude of `expected`. Infinite for NaN and for different lengths.
inline double relative_error(const std::vector<double>& got, const std::vector<double>& expected) {
  if (got.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double scale = 0;
  double error = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got[i] - expected[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    error = std::max(error, difference);
    scale = std::max(scale, std::abs(expected[i]));
  }
  return scale > 0 ? error / scale : std::numeric_limits<double>::infinity();
}

/// Bit for bit the same float32 values, but for the sign of zero.
inline void expect_equal_values(const at::Tensor& got, const std::vector<float>& expected, const std::string& what) {
  const std::vector<float> values = floats(got);
  ASSERT_EQ(values.size(), expected.size()) << what;
  for (size_t i = 0; i < values.size(); ++i)
    ASSERT_EQ(values[i], expected[i]) << what << ": element " << i << " of " << values.size();
}

}  // namespace oriel
