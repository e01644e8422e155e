#include "image/resize_weights.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

#include "core/error.hpp"

namespace oriel::image {
namespace {

constexpr int32_t pillow_shift = 22;

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double bilinear(double x) {
  x = std::fabs(x);
  return x < 1.0 ? 1.0 - x : 0.0;
}

double hamming(double x) {
  x = std::fabs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x *= std::numbers::pi;
  // Pillow's constants are single precision; doubles would move weights by a unit.
  return std::sin(x) / x * (static_cast<double>(0.54F) + static_cast<double>(0.46F) * std::cos(x));
}

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

double lanczos(double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

struct FilterShape {
  std::string_view name;
  double (*weight)(double x);
  double support;  ///< the filter is zero beyond this distance
};

FilterShape shape_of(Filter filter) {
  switch (filter) {
    case Filter::box:
      return {"box", box, 0.5};
    case Filter::bilinear:
      return {"bilinear", bilinear, 1.0};
    case Filter::hamming:
      return {"hamming", hamming, 1.0};
    case Filter::bicubic:
      return {"bicubic", bicubic, 2.0};
    case Filter::lanczos:
      return {"lanczos", lanczos, 3.0};
  }
  throw_error(ErrorCode::internal, "resize: no filter has the number {}", static_cast<int>(filter));
}

/// The weights before they become integers. Everything is computed in double and in the order of spec/resize.md 2.
struct RealWeights {
  int64_t taps = 0;
  std::vector<int32_t> first;
  std::vector<int32_t> count;
  std::vector<double> weights;  // [out, taps]
};

RealWeights real_weights(int64_t in, int64_t out, const FilterShape& filter) {
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  const double stretch = std::max(scale, 1.0);
  const double support = filter.support * stretch;
  const double squeeze = 1.0 / stretch;

  RealWeights result;
  result.taps = 2 * static_cast<int64_t>(std::ceil(support)) + 1;
  result.first.resize(static_cast<size_t>(out));
  result.count.resize(static_cast<size_t>(out));
  result.weights.resize(static_cast<size_t>(out * result.taps));
  for (int64_t i = 0; i < out; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const int64_t low = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const int64_t high = std::min<int64_t>(in, static_cast<int64_t>(center + support + 0.5));
    double* row = result.weights.data() + i * result.taps;
    double sum = 0.0;
    for (int64_t j = 0; j < high - low; ++j) {
      row[j] = filter.weight((static_cast<double>(j + low) - center + 0.5) * squeeze);
      sum += row[j];
    }
    if (sum != 0.0) {
      for (int64_t j = 0; j < high - low; ++j) row[j] /= sum;
    }
    result.first[static_cast<size_t>(i)] = static_cast<int32_t>(low);
    result.count[static_cast<size_t>(i)] = static_cast<int32_t>(high - low);
  }
  return result;
}

/// torchvision keeps weights in 16 bits, with as many bits after the point as the largest of the axis allows.
int32_t torchvision_shift(const std::vector<double>& weights) {
  const double largest = std::max(0.0, *std::max_element(weights.begin(), weights.end()));
  int32_t shift = 0;
  while (shift < pillow_shift && std::trunc(0.5 + largest * std::ldexp(1.0, shift + 1)) < 32768.0) ++shift;
  return shift;
}

int32_t round_half_away(double value) { return static_cast<int32_t>(value < 0.0 ? value - 0.5 : value + 0.5); }

/// How many taps remain when integer zeros at the end are dropped. Zeros at the start stay, so that `first` never falls
/// from one pixel to the next.
int32_t count_without_zeros(const int32_t* taps, int32_t count) {
  while (count > 1 && taps[count - 1] == 0) --count;
  return count;
}

}  // namespace

AxisWeights make_axis_weights(int64_t in, int64_t out, Filter filter, ResizeArithmetic arithmetic) {
  const FilterShape shape = shape_of(filter);
  const bool torchvision = arithmetic == ResizeArithmetic::torchvision;
  if (torchvision && (filter == Filter::box || filter == Filter::hamming)) {
    throw_error(ErrorCode::unsupported_model,
                "resample: expected bilinear, bicubic or lanczos, got {}, which torchvision does not have for pictures "
                "of bytes; Pillow's arithmetic has it",
                shape.name);
  }
  for (const int64_t side : {in, out}) {
    if (side < 1) throw_error(ErrorCode::invalid_argument, "resize: expected sides of 1 or more pixels, got {}", side);
    if (side > max_resize_side) {
      throw_error(ErrorCode::limit_exceeded, "resize: expected sides of at most {} pixels, got {}", max_resize_side,
                  side);
    }
  }

  RealWeights real = real_weights(in, out, shape);
  AxisWeights result;
  result.in = in;
  result.out = out;
  result.shift = torchvision ? torchvision_shift(real.weights) : pillow_shift;
  result.first = std::move(real.first);
  result.count = std::move(real.count);

  std::vector<int32_t> rounded(real.weights.size());
  const double one = std::ldexp(1.0, result.shift);
  for (size_t i = 0; i < rounded.size(); ++i) rounded[i] = round_half_away(real.weights[i] * one);
  for (int64_t i = 0; i < out; ++i) {
    const auto pixel = static_cast<size_t>(i);
    result.count[pixel] = count_without_zeros(rounded.data() + i * real.taps, result.count[pixel]);
    result.taps = std::max(result.taps, result.count[pixel]);
  }
  result.weights.resize(static_cast<size_t>(out) * static_cast<size_t>(result.taps));
  for (int64_t i = 0; i < out; ++i) {
    std::copy_n(rounded.data() + i * real.taps, result.count[static_cast<size_t>(i)],
                result.weights.data() + i * result.taps);
  }
  return result;
}

}  // namespace oriel::image
