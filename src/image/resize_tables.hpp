#pragma once
// What preprocessing on a GPU needs beside the pixels, packed into one buffer that is copied to the device once: the
// weights of both axes and the float of every byte.
//
// A weight is cut into digits of 8 bits for dot products of four bytes (dp4a): w = d[0] + 256 d[1] (+ 65536 d[2]), the
// last digit signed, the others unsigned. A word holds one digit of four adjacent taps, the first in its lowest byte,
// and the taps of a pixel begin at a multiple of four input pixels, so that the pixels too are read by words. The sums
// of the digits, shifted and added modulo 2^32, are the plain sum: the bytes are the CPU's, bit for bit.
#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "image/patches.hpp"
#include "image/patches_values.hpp"
#include "image/resize_weights.hpp"

namespace oriel::image {

/// `span` counts the words under this many adjacent output pixels.
inline constexpr int64_t span_pixels = 128;

/// One axis. Output pixel i is clamp((2^(shift-1) + sum over k < chunks and the four taps of each word) >> shift),
/// where word k multiplies the input pixels from 4 * (first[i] + k) on. Words never begin outside the input; taps
/// behind its end have weight 0. An axis that keeps its size has weights that change nothing.
struct AxisTable {
  int64_t in = 0;
  int64_t out = 0;
  int32_t chunks = 0;        ///< words of four taps, the same number for all pixels
  int32_t digits = 0;        ///< 2 or 3
  int32_t shift = 0;         ///< bits after the binary point
  int32_t span = 0;          ///< most words under pixels [i, i + span_pixels), i a multiple of span_pixels
  int64_t first_offset = 0;  ///< bytes from the buffer's begin to int32 first[out], which never falls
  int64_t words_offset = 0;  ///< and to uint32 words: rows [out, chunks, digits], columns [chunks, digits, out]
};

/// Everything about a picture of one size that the device has to be told. Independent of pixels: keep it for pictures
/// that have the same sizes.
class PixelTables {
 public:
  /// Throws as make_axis_weights and make_value_table; limit_exceeded for tables beyond 1 GiB; without spec.do_resize,
  /// invalid_argument unless the sizes are equal.
  PixelTables(Size source, Size target, const PixelSpec& spec, ResizeArithmetic arithmetic);

  /// Whether any side changes. If not, the axes have no tables.
  [[nodiscard]] bool resizes() const { return resizes_; }
  /// Whether the vertical pass comes first: Pillow 13, spec/resize.md 3.
  [[nodiscard]] bool rows_first() const { return rows_first_; }
  [[nodiscard]] const AxisTable& rows() const { return rows_; }
  [[nodiscard]] const AxisTable& columns() const { return columns_; }
  /// Where float [3, 256], the values of make_value_table, lie in the buffer.
  [[nodiscard]] int64_t values_offset() const { return values_offset_; }
  /// The arithmetic that may replace the values. `table` in it points into this object.
  [[nodiscard]] const std::array<ByteToFloat, 3>& arithmetic() const { return arithmetic_; }

  /// Size of the buffer, a multiple of 16.
  [[nodiscard]] int64_t bytes() const { return bytes_; }
  /// Fills `buffer`, which must have exactly bytes() bytes, aligned to 4; on the device to 16.
  void write(std::span<uint8_t> buffer) const;

  PixelTables(const PixelTables&) = delete;
  PixelTables& operator=(const PixelTables&) = delete;

 private:
  AxisTable reserve(const AxisWeights& axis);

  bool resizes_ = false;
  bool rows_first_ = false;
  AxisWeights row_weights_;
  AxisWeights column_weights_;
  AxisTable rows_;
  AxisTable columns_;
  ValueTable values_;
  std::array<ByteToFloat, 3> arithmetic_;
  int64_t values_offset_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace oriel::image
