#include "image/resize_packing.hpp"

#include <algorithm>
#include <array>
#include <bit>

namespace oriel::image {
namespace {

/// A weight of up to 24 bits in balanced digits: w = d[0] + d[1] * base + d[2] * base^2, -base/2 <= d < base/2.
template <int Bits>
std::array<int32_t, 3> balanced_digits(int32_t weight) {
  constexpr int32_t base = 1 << Bits;
  std::array<int32_t, 3> digits{};
  for (int32_t& digit : digits) {
    digit = ((weight + base / 2) & (base - 1)) - base / 2;
    weight = (weight - digit) >> Bits;
  }
  return digits;
}

/// Digits that every weight of the table can do with.
template <int Bits>
int32_t digits_needed(const std::vector<int32_t>& weights) {
  int32_t needed = 1;
  for (const int32_t weight : weights) {
    const std::array<int32_t, 3> digits = balanced_digits<Bits>(weight);
    if (digits[2] != 0) return 3;
    if (digits[1] != 0) needed = 2;
  }
  return needed;
}

// AVX2: a weight of 16 bits is one digit; longer ones are cut after the lowest 12 bits.
constexpr int avx2_bits = 12;
bool fits_int16(const std::vector<int32_t>& weights) {
  return std::all_of(weights.begin(), weights.end(), [](int32_t w) { return w >= -32768 && w <= 32767; });
}
int32_t avx2_digit(int32_t weight, int32_t digit, int32_t digits) {
  if (digits == 1) return weight;
  const int32_t low = balanced_digits<avx2_bits>(weight)[0];
  return digit == 0 ? low : (weight - low) >> avx2_bits;
}

// AVX-512: at least two digits, because the kernel has no version with one.
constexpr int avx512_bits = 8;
int32_t avx512_digits(const AxisWeights& axis) { return std::max(2, digits_needed<avx512_bits>(axis.weights)); }

int32_t divide_up(int32_t a, int32_t b) { return (a + b - 1) / b; }

/// One pixel's weights, zero behind the last tap.
class Taps {
 public:
  Taps(const AxisWeights& axis, int64_t pixel)
      : weights_(pixel < axis.out ? axis.weights.data() + pixel * axis.taps : nullptr), taps_(axis.taps) {}

  [[nodiscard]] int32_t weight(int32_t tap) const { return weights_ != nullptr && tap < taps_ ? weights_[tap] : 0; }
  /// Two taps as 16-bit digits.
  [[nodiscard]] int32_t pair(int32_t tap, int32_t digit, int32_t digits) const {
    uint32_t word = 0;
    for (int32_t i = 0; i < 2; ++i) {
      const int32_t value = avx2_digit(weight(tap + i), digit, digits);
      word |= (static_cast<uint32_t>(value) & 0xFFFFU) << (16 * i);
    }
    return static_cast<int32_t>(word);
  }
  /// Four taps as 8-bit digits, a word for each digit.
  [[nodiscard]] std::array<int32_t, 3> quads(int32_t tap) const {
    std::array<uint32_t, 3> words{};
    for (int32_t i = 0; i < 4; ++i) {
      const std::array<int32_t, 3> digits = balanced_digits<avx512_bits>(weight(tap + i));
      for (size_t d = 0; d < 3; ++d) words[d] |= (static_cast<uint32_t>(digits[d]) & 0xFFU) << (8 * i);
    }
    return std::bit_cast<std::array<int32_t, 3>>(words);
  }

 private:
  const int32_t* weights_;
  int32_t taps_;
};

constexpr int64_t register_bytes = 64;
constexpr int32_t wide_taps = 16;

/// Whether four taps of each pixel of every group lie within one register.
bool groups_are_narrow(const std::vector<int32_t>& first) {
  for (size_t group = 0; group < first.size(); group += pixels_at_once) {
    if (3 * (first[group + pixels_at_once - 1] - first[group]) + 12 > register_bytes) return false;
  }
  return true;
}

}  // namespace

HorizontalPass::HorizontalPass(const AxisWeights& axis, Simd simd) : first_(axis.first) {
  shape_.pixels = axis.out;
  shape_.groups = (axis.out + pixels_at_once - 1) / pixels_at_once;
  shape_.shift = axis.shift;
  first_.resize(static_cast<size_t>(shape_.groups * pixels_at_once), axis.first.back());
  switch (simd) {
    case Simd::avx2:
      pack_avx2(axis);
      break;
    case Simd::avx512:
      shape_.wide = !groups_are_narrow(first_);
      shape_.wide ? pack_avx512_wide(axis) : pack_avx512_narrow(axis);
      break;
    case Simd::best:
    case Simd::plain:
      pack_plain(axis);
      break;
  }
  find_tail(3 * axis.in, simd);
}

HorizontalWeights HorizontalPass::weights() const {
  HorizontalWeights result = shape_;
  result.first = first_.data();
  result.words = words_.data();
  result.indices = indices_.data();
  return result;
}

void HorizontalPass::pack_plain(const AxisWeights& axis) {
  shape_.chunks = axis.taps;
  shape_.digits = 1;
  for (int64_t pixel = 0; pixel < axis.out; ++pixel) {
    words_.push_back(axis.count[static_cast<size_t>(pixel)]);
    const int32_t* row = axis.weights.data() + pixel * axis.taps;
    words_.insert(words_.end(), row, row + axis.taps);
  }
}

void HorizontalPass::pack_avx2(const AxisWeights& axis) {
  shape_.chunks = divide_up(axis.taps, 4);
  shape_.digits = fits_int16(axis.weights) ? 1 : 2;
  for (int64_t pixel = 0; pixel < shape_.groups * pixels_at_once; ++pixel) {
    const Taps taps(axis, pixel);
    for (int32_t chunk = 0; chunk < shape_.chunks; ++chunk) {
      for (int32_t digit = 0; digit < shape_.digits; ++digit) {
        words_.push_back(taps.pair(4 * chunk, digit, shape_.digits));
        words_.push_back(taps.pair(4 * chunk + 2, digit, shape_.digits));
      }
    }
  }
}

void HorizontalPass::pack_avx512_narrow(const AxisWeights& axis) {
  shape_.chunks = divide_up(axis.taps, 4);
  shape_.digits = avx512_digits(axis);
  indices_.assign(static_cast<size_t>(shape_.groups * register_bytes), 0);
  words_.assign(static_cast<size_t>(shape_.groups * shape_.chunks * shape_.digits * pixels_at_once), 0);
  for (int64_t group = 0; group < shape_.groups; ++group) {
    const int64_t pixel = group * pixels_at_once;
    const int32_t* first = first_.data() + pixel;
    uint8_t* index = indices_.data() + group * register_bytes;
    for (int channel = 0; channel < 3; ++channel) {
      for (int p = 0; p < pixels_at_once; ++p) {
        for (int tap = 0; tap < 4; ++tap) {
          index[16 * channel + 4 * p + tap] = static_cast<uint8_t>(3 * (first[p] - first[0] + tap) + channel);
        }
      }
    }
    for (int p = 0; p < pixels_at_once; ++p) {
      const Taps taps(axis, pixel + p);
      for (int32_t chunk = 0; chunk < shape_.chunks; ++chunk) {
        const std::array<int32_t, 3> quads = taps.quads(4 * chunk);
        int32_t* words = words_.data() + ((group * shape_.chunks + chunk) * shape_.digits) * pixels_at_once + p;
        for (int32_t digit = 0; digit < shape_.digits; ++digit) {
          words[digit * pixels_at_once] = quads[static_cast<size_t>(digit)];
        }
      }
    }
  }
}

void HorizontalPass::pack_avx512_wide(const AxisWeights& axis) {
  shape_.chunks = divide_up(axis.taps, wide_taps);
  shape_.digits = avx512_digits(axis);
  words_.assign(static_cast<size_t>(shape_.groups * pixels_at_once * shape_.chunks * shape_.digits * 4), 0);
  for (int64_t pixel = 0; pixel < shape_.groups * pixels_at_once; ++pixel) {
    const Taps taps(axis, pixel);
    for (int32_t chunk = 0; chunk < shape_.chunks; ++chunk) {
      for (int32_t quarter = 0; quarter < 4; ++quarter) {
        const std::array<int32_t, 3> quads = taps.quads(wide_taps * chunk + 4 * quarter);
        int32_t* words = words_.data() + ((pixel * shape_.chunks + chunk) * shape_.digits) * 4 + quarter;
        for (int32_t digit = 0; digit < shape_.digits; ++digit) words[digit * 4] = quads[static_cast<size_t>(digit)];
      }
    }
  }
}

/// One past the last byte that a group reads.
int64_t HorizontalPass::read_end(int64_t group, Simd simd) const {
  const int64_t first_pixel = first_[static_cast<size_t>(group * pixels_at_once)];
  const int64_t last_pixel = first_[static_cast<size_t>(group * pixels_at_once + pixels_at_once - 1)];
  const int64_t last_chunk = shape_.chunks - 1;
  if (simd == Simd::avx2) return 3 * (last_pixel + 4 * last_chunk) + 16;
  if (simd == Simd::avx512 && shape_.wide) return 3 * (last_pixel + wide_taps * last_chunk) + register_bytes;
  if (simd == Simd::avx512) return 3 * (first_pixel + 4 * last_chunk) + register_bytes;
  return 0;
}

void HorizontalPass::find_tail(int64_t row_bytes, Simd simd) {
  // Filters start further right from pixel to pixel, so reads end further right from group to group.
  inner_groups_ = shape_.groups;
  while (inner_groups_ > 0 && read_end(inner_groups_ - 1, simd) > row_bytes) --inner_groups_;
  if (inner_groups_ == shape_.groups) return;
  tail_start_ = 3 * int64_t{first_[static_cast<size_t>(inner_groups_ * pixels_at_once)]};
  tail_bytes_ = read_end(shape_.groups - 1, simd) - tail_start_;
}

VerticalPass::VerticalPass(const AxisWeights& axis, Simd simd)
    : first_(axis.first), count_(axis.count), taps_(axis.taps) {
  shape_.shift = axis.shift;
  shape_.digits = 1;
  int32_t taps_per_chunk = 1;
  if (simd == Simd::avx2) {
    taps_per_chunk = 2;
    shape_.digits = fits_int16(axis.weights) ? 1 : 2;
  } else if (simd == Simd::avx512) {
    taps_per_chunk = 4;
    shape_.digits = avx512_digits(axis);
  }
  shape_.chunks = divide_up(axis.taps, taps_per_chunk);
  padded_taps_ = shape_.chunks * taps_per_chunk;
  for (int64_t y = 0; y < axis.out; ++y) {
    const Taps taps(axis, y);
    for (int32_t chunk = 0; chunk < shape_.chunks; ++chunk) {
      const int32_t tap = chunk * taps_per_chunk;
      const std::array<int32_t, 3> quads = taps_per_chunk == 4 ? taps.quads(tap) : std::array<int32_t, 3>{};
      for (int32_t digit = 0; digit < shape_.digits; ++digit) {
        words_.push_back(taps_per_chunk == 4   ? quads[static_cast<size_t>(digit)]
                         : taps_per_chunk == 2 ? taps.pair(tap, digit, shape_.digits)
                                               : taps.weight(tap));
      }
    }
  }
}

VerticalWeights VerticalPass::weights() const {
  VerticalWeights result = shape_;
  result.words = words_.data();
  return result;
}

}  // namespace oriel::image
