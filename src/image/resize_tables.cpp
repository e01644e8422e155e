#include "image/resize_tables.hpp"

#include <algorithm>
#include <cstring>

#include "core/error.hpp"

namespace oriel::image {
namespace {

constexpr int64_t max_bytes = int64_t{1} << 30;
constexpr int64_t alignment = 16;
constexpr int64_t taps_per_word = 4;

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
int64_t words_of(int64_t pixels) { return (pixels + taps_per_word - 1) / taps_per_word; }

/// The rule of resize_plan.cpp: Pillow 13 goes vertically first where that shrinks the picture more.
bool goes_rows_first(Size source, Size target, ResizeArithmetic arithmetic) {
  const int64_t fewer_rows = source.height - target.height;
  const int64_t fewer_columns = source.width - target.width;
  return arithmetic == ResizeArithmetic::pillow && fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
}

/// Weights that leave an axis as it is: a single one, at any number of bits after the point.
AxisWeights identity(int64_t size) {
  constexpr int32_t shift = 7;
  AxisWeights axis{size, size, 1, shift, {}, {}, {}};
  axis.first.resize(static_cast<size_t>(size));
  for (size_t i = 0; i < axis.first.size(); ++i) axis.first[i] = static_cast<int32_t>(i);
  axis.count.assign(static_cast<size_t>(size), 1);
  axis.weights.assign(static_cast<size_t>(size), 1 << shift);
  return axis;
}

int32_t digits_needed(const std::vector<int32_t>& weights) {
  const auto [lowest, highest] = std::minmax_element(weights.begin(), weights.end());
  if (*lowest >= -(1 << 15) && *highest < 1 << 15) return 2;
  if (*lowest >= -(1 << 23) && *highest < 1 << 23) return 3;
  throw_error(ErrorCode::internal, "resize: expected weights of at most 24 bits, got {} and {}", *lowest, *highest);
}

/// The word in which a pixel's taps begin. Never so late that the last of `chunks` words would lie behind the input.
int32_t first_word(const AxisWeights& axis, int64_t pixel, int32_t chunks) {
  const int64_t word = axis.first[static_cast<size_t>(pixel)] / taps_per_word;
  return static_cast<int32_t>(std::min(word, words_of(axis.in) - chunks));
}

int32_t chunks_needed(const AxisWeights& axis) {
  int64_t most = 1;
  for (size_t i = 0; i < axis.first.size(); ++i) {
    const int64_t last = axis.first[i] + axis.count[i] - 1;
    most = std::max(most, last / taps_per_word - axis.first[i] / taps_per_word + 1);
  }
  return static_cast<int32_t>(most);
}

int32_t span_of(const AxisWeights& axis, int32_t chunks) {
  int32_t most = 0;
  for (int64_t begin = 0; begin < axis.out; begin += span_pixels) {
    const int64_t last = std::min(begin + span_pixels, axis.out) - 1;
    most = std::max(most, first_word(axis, last, chunks) - first_word(axis, begin, chunks) + chunks);
  }
  return most;
}

/// Writes an axis into a buffer of zeros; word k of digit d of pixel i goes to i * pixel_stride + (k * digits + d) *
/// word_stride. Byte by byte, the lowest first: hosts of GPUs are little-endian.
void write_axis(const AxisWeights& axis, const AxisTable& table, int64_t pixel_stride, int64_t word_stride,
                uint8_t* buffer) {
  constexpr int64_t word_bytes = sizeof(uint32_t);
  auto* first = reinterpret_cast<int32_t*>(buffer + table.first_offset);
  const int64_t digit_step = word_stride * word_bytes;
  for (int64_t i = 0; i < axis.out; ++i) {
    const auto pixel = static_cast<size_t>(i);
    first[i] = first_word(axis, i, table.chunks);
    const int64_t before = axis.first[pixel] - taps_per_word * first[i];
    const int32_t* weights = axis.weights.data() + i * axis.taps;
    uint8_t* words = buffer + table.words_offset + i * pixel_stride * word_bytes;
    for (int64_t place = before; place < before + axis.count[pixel]; ++place) {
      const auto weight = static_cast<uint32_t>(*weights++);
      uint8_t* to = words + place / taps_per_word * table.digits * digit_step + place % taps_per_word;
      to[0] = static_cast<uint8_t>(weight);
      to[digit_step] = static_cast<uint8_t>(weight >> 8);
      if (table.digits == 3) to[2 * digit_step] = static_cast<uint8_t>(weight >> 16);
    }
  }
}

}  // namespace

PixelTables::PixelTables(Size source, Size target, const PixelSpec& spec, ResizeArithmetic arithmetic)
    : values_(make_value_table(spec, arithmetic)), arithmetic_(find_arithmetic(values_, spec, arithmetic)) {
  if (!spec.do_resize && source != target) {
    throw_error(ErrorCode::invalid_argument, "patches: without a resize, expected a frame of {} x {}, got {} x {}",
                target.width, target.height, source.width, source.height);
  }
  values_offset_ = 0;
  bytes_ = static_cast<int64_t>(sizeof(ValueTable));
  if (!spec.do_resize) return;
  // Both tables are made even where a side stays: a filter that does not exist is an error for every size.
  column_weights_ = make_axis_weights(source.width, target.width, spec.filter, arithmetic);
  row_weights_ = make_axis_weights(source.height, target.height, spec.filter, arithmetic);
  if (source == target) return;
  resizes_ = true;
  rows_first_ = goes_rows_first(source, target, arithmetic);
  if (source.width == target.width) column_weights_ = identity(source.width);
  if (source.height == target.height) row_weights_ = identity(source.height);
  rows_ = reserve(row_weights_);
  columns_ = reserve(column_weights_);
}

AxisTable PixelTables::reserve(const AxisWeights& axis) {
  AxisTable table{axis.in, axis.out, chunks_needed(axis), digits_needed(axis.weights), axis.shift, 0, 0, 0};
  table.span = span_of(axis, table.chunks);
  table.first_offset = bytes_;
  table.words_offset = bytes_ + round_up(axis.out * int64_t{sizeof(int32_t)}, alignment);
  const int64_t words = checked_multiply(axis.out, int64_t{table.chunks} * table.digits, "resize");
  const int64_t words_bytes = checked_multiply(words, sizeof(uint32_t), "resize");
  bytes_ = checked_add(table.words_offset, round_up(words_bytes, alignment), "resize");
  if (bytes_ > max_bytes) {
    throw_error(ErrorCode::limit_exceeded, "resize: {} to {} pixels would need {} bytes of tables, the limit is {}",
                axis.in, axis.out, bytes_, max_bytes);
  }
  return table;
}

void PixelTables::write(std::span<uint8_t> buffer) const {
  if (static_cast<int64_t>(buffer.size()) != bytes_) {
    throw_error(ErrorCode::invalid_argument, "pixel tables: expected room for {} bytes, got {}", bytes_, buffer.size());
  }
  std::memset(buffer.data(), 0, buffer.size());
  std::memcpy(buffer.data() + values_offset_, values_.data(), sizeof(values_));
  if (!resizes_) return;
  write_axis(row_weights_, rows_, int64_t{rows_.chunks} * rows_.digits, 1, buffer.data());
  write_axis(column_weights_, columns_, 1, columns_.out, buffer.data());
}

}  // namespace oriel::image
