#pragma once
// Weights in the order in which the kernels read them. A word is 32 bits:
//   plain    horizontal [pixel, 1 + taps]: the count of taps, then the weights    vertical [row, taps]
//   AVX2     two taps of 16 bits a word, four taps a chunk horizontally, two vertically
//            horizontal [pixel, chunk, digit, 2]                                  vertical [row, chunk, digit]
//   AVX-512  four taps of 8 bits a word, four taps a chunk
//            horizontal [group, chunk, digit, 4 pixels]                           vertical [row, chunk, digit]
//            wide horizontal, sixteen taps a chunk [pixel, chunk, digit, 4]
// Digit 0 is the lowest. All digits are signed.
#include <cstdint>
#include <vector>

#include "image/resize_kernels.hpp"
#include "image/resize_weights.hpp"

namespace oriel::image {

/// The horizontal pass of one picture width to another. A value that kernels look into.
class HorizontalPass {
 public:
  HorizontalPass(const AxisWeights& axis, Simd simd);
  [[nodiscard]] HorizontalWeights weights() const;
  /// Groups whose reads stay inside a row.
  [[nodiscard]] int64_t inner_groups() const { return inner_groups_; }
  /// First byte of a row that the other groups read, and how many bytes from there they read, some of them behind the
  /// end of the row.
  [[nodiscard]] int64_t tail_start() const { return tail_start_; }
  [[nodiscard]] int64_t tail_bytes() const { return tail_bytes_; }

 private:
  void pack_plain(const AxisWeights& axis);
  void pack_avx2(const AxisWeights& axis);
  void pack_avx512_narrow(const AxisWeights& axis);
  void pack_avx512_wide(const AxisWeights& axis);
  [[nodiscard]] int64_t read_end(int64_t group, Simd simd) const;
  void find_tail(int64_t row_bytes, Simd simd);

  HorizontalWeights shape_{};
  std::vector<int32_t> first_;
  std::vector<int32_t> words_;
  std::vector<uint8_t> indices_;
  int64_t inner_groups_ = 0;
  int64_t tail_start_ = 0;
  int64_t tail_bytes_ = 0;
};

/// The vertical pass of one picture height to another.
class VerticalPass {
 public:
  VerticalPass(const AxisWeights& axis, Simd simd);
  [[nodiscard]] VerticalWeights weights() const;
  [[nodiscard]] int64_t first(int64_t y) const { return first_[static_cast<size_t>(y)]; }
  [[nodiscard]] int64_t count(int64_t y) const { return count_[static_cast<size_t>(y)]; }
  /// Row pointers that the kernel takes; those behind count(y) may point at any row.
  [[nodiscard]] int64_t padded_taps() const { return padded_taps_; }
  /// The largest count.
  [[nodiscard]] int64_t taps() const { return taps_; }

 private:
  VerticalWeights shape_{};
  std::vector<int32_t> first_;
  std::vector<int32_t> count_;
  std::vector<int32_t> words_;
  int64_t taps_ = 0;
  int64_t padded_taps_ = 0;
};

}  // namespace oriel::image
