#pragma once
// The filter weights of one axis as integers: spec/resize.md 2 to 4.
#include <cstdint>
#include <vector>

#include "image/resize.hpp"

namespace oriel::image {

/// Longer sides are refused, so that the tables stay below some hundred megabytes.
inline constexpr int64_t max_resize_side = int64_t{1} << 20;

/// Output pixel i is clamp((2^(shift-1) + sum over j < count[i] of weights[i * taps + j] * input[first[i] + j]) >>
/// shift). Weights that round to zero at the end of a filter are left out; every pixel keeps at least one tap. `first`
/// does not fall from one pixel to the next.
struct AxisWeights {
  int64_t in = 0;
  int64_t out = 0;
  int32_t taps = 0;              ///< the largest count
  int32_t shift = 0;             ///< bits after the binary point
  std::vector<int32_t> first;    ///< [out]
  std::vector<int32_t> count;    ///< [out]
  std::vector<int32_t> weights;  ///< [out, taps], zero behind count
};

/// The table of an axis that shrinks or grows from `in` to `out` pixels. Throws limit_exceeded above max_resize_side
/// and unsupported_model for a filter that the arithmetic does not have.
[[nodiscard]] AxisWeights make_axis_weights(int64_t in, int64_t out, Filter filter, ResizeArithmetic arithmetic);

}  // namespace oriel::image
