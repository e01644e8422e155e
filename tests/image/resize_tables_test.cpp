#include "image/resize_tables.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "core/expect_error.hpp"
#include "image/pixel_recipes.hpp"

namespace oriel::image {
namespace {

constexpr std::array all_filters = {Filter::box, Filter::bilinear, Filter::hamming, Filter::bicubic, Filter::lanczos};
constexpr std::array all_arithmetics = {ResizeArithmetic::torchvision, ResizeArithmetic::pillow,
                                        ResizeArithmetic::pillow12};

bool exists(Filter filter, ResizeArithmetic arithmetic) {
  return arithmetic != ResizeArithmetic::torchvision || (filter != Filter::box && filter != Filter::hamming);
}

PixelSpec spec_with(Filter filter) {
  PixelSpec spec;
  spec.filter = filter;
  spec.std = {1.0, 1.0, 1.0};
  return spec;
}

/// The buffer of some tables, and one pass over a line of bytes as a device makes it: digit by digit, word by word.
class Buffer {
 public:
  explicit Buffer(const PixelTables& tables) : bytes_(static_cast<size_t>(tables.bytes()), uint8_t{0xA5}) {
    tables.write(bytes_);
  }

  [[nodiscard]] uint8_t pixel(const AxisTable& axis, bool is_rows, int64_t i, const std::vector<uint8_t>& line) const {
    const int32_t first = read<int32_t>(axis.first_offset, i);
    EXPECT_GE(first, 0);
    EXPECT_LE(4 * int64_t{first + axis.chunks - 1}, axis.in - 1) << "a word would begin behind the input";
    uint32_t sum = uint32_t{1} << (axis.shift - 1);
    for (int32_t chunk = 0; chunk < axis.chunks; ++chunk) {
      for (int32_t digit = 0; digit < axis.digits; ++digit) {
        const int64_t step = int64_t{chunk} * axis.digits + digit;
        const int64_t at = is_rows ? i * axis.chunks * axis.digits + step : step * axis.out + i;
        const uint32_t word = read<uint32_t>(axis.words_offset, at);
        for (int tap = 0; tap < 4; ++tap) {
          const int64_t from = 4 * int64_t{first + chunk} + tap;
          const uint32_t byte = word >> (8 * tap) & 0xFFU;
          const int32_t weight = digit + 1 == axis.digits ? static_cast<int8_t>(byte) : static_cast<int32_t>(byte);
          // Behind the end a device reads anything.
          const int32_t value = from < axis.in ? line[static_cast<size_t>(from)] : 255;
          if (from >= axis.in) {
            EXPECT_EQ(byte, 0U);
          }
          sum += static_cast<uint32_t>(weight * value) << (8 * digit);
        }
      }
    }
    return static_cast<uint8_t>(std::clamp(static_cast<int32_t>(sum) >> axis.shift, 0, 255));
  }

  template <typename T>
  [[nodiscard]] T read(int64_t offset, int64_t index) const {
    T value;
    std::memcpy(&value, bytes_.data() + offset + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
    return value;
  }

 private:
  std::vector<uint8_t> bytes_;
};

TEST(PixelTables, MakeTheBytesOfResizeOnBothAxes) {
  const std::vector<std::array<int64_t, 2>> sides = {{1, 1},   {1, 9},    {2, 1},     {7, 5},    {64, 63}, {31, 97},
                                                     {200, 2}, {640, 56}, {1031, 28}, {3000, 1}, {5, 640}, {129, 258}};
  for (const ResizeArithmetic arithmetic : all_arithmetics) {
    for (const Filter filter : all_filters) {
      if (!exists(filter, arithmetic)) continue;
      for (const auto& [in, out] : sides) {
        // A picture of one line, once lying and once standing.
        for (const bool standing : {false, true}) {
          const Size source = standing ? Size{2, in} : Size{in, 2};
          const Size target = standing ? Size{2, out} : Size{out, 2};
          const Picture picture = noise(source, static_cast<uint64_t>(in * 31 + out));
          Picture expected = blank(target);
          resize(picture.view(), expected.mutable_view(), filter, arithmetic, ThreadPool(1), Simd::plain);
          const PixelTables tables(source, target, spec_with(filter), arithmetic);
          ASSERT_EQ(tables.resizes(), in != out);
          if (in == out) continue;
          const Buffer buffer(tables);
          const AxisTable& axis = standing ? tables.rows() : tables.columns();
          const AxisTable& other = standing ? tables.columns() : tables.rows();
          std::vector<uint8_t> line(static_cast<size_t>(in));
          const int64_t step = standing ? 6 : 3;
          for (int64_t i = 0; i < in; ++i) line[static_cast<size_t>(i)] = picture.rgb[static_cast<size_t>(i * step)];
          for (int64_t i = 0; i < out; ++i) {
            ASSERT_EQ(buffer.pixel(axis, standing, i, line), expected.rgb[static_cast<size_t>(i * step)])
                << in << " to " << out << ", pixel " << i << ", filter " << static_cast<int>(filter);
          }
          // The axis that stays changes nothing.
          EXPECT_EQ(buffer.pixel(other, !standing, 0, {3, 250}), 3);
          EXPECT_EQ(buffer.pixel(other, !standing, 1, {3, 250}), 250);
        }
      }
    }
  }
}

TEST(PixelTables, SpanCoversTheWordsOfEveryTile) {
  for (const auto& [in, out] : std::vector<std::array<int64_t, 2>>{{4000, 1155}, {100, 1000}, {5000, 129}, {130, 1}}) {
    const PixelTables tables({in, 8}, {out, 8}, spec_with(Filter::lanczos), ResizeArithmetic::torchvision);
    const Buffer buffer(tables);
    const AxisTable& axis = tables.columns();
    int32_t most = 0;
    int32_t previous = 0;
    for (int64_t i = 0; i < out; ++i) {
      const int32_t first = buffer.read<int32_t>(axis.first_offset, i);
      EXPECT_GE(first, previous);
      previous = first;
      const int32_t tile = buffer.read<int32_t>(axis.first_offset, i / span_pixels * span_pixels);
      most = std::max(most, first - tile + axis.chunks);
    }
    EXPECT_EQ(axis.span, most);
  }
}

TEST(PixelTables, PutRowsFirstWherePillow13Does) {
  const PixelSpec spec = spec_with(Filter::bicubic);
  const Size tall{100, 900};
  EXPECT_TRUE(PixelTables(tall, {96, 96}, spec, ResizeArithmetic::pillow).rows_first());
  EXPECT_FALSE(PixelTables(tall, {96, 96}, spec, ResizeArithmetic::pillow12).rows_first());
  EXPECT_FALSE(PixelTables(tall, {96, 96}, spec, ResizeArithmetic::torchvision).rows_first());
  EXPECT_FALSE(PixelTables({900, 100}, {96, 96}, spec, ResizeArithmetic::pillow).rows_first());
}

TEST(PixelTables, HoldTheValuesOfEveryByte) {
  PixelSpec spec = spec_with(Filter::bicubic);
  spec.mean = {0.48145466, 0.4578275, 0.40821073};
  spec.std = {0.26862954, 0.26130258, 0.27577711};
  const PixelTables tables({30, 40}, {28, 28}, spec, ResizeArithmetic::torchvision);
  EXPECT_EQ(tables.bytes() % 16, 0);
  const Buffer buffer(tables);
  const ValueTable expected = make_value_table(spec, ResizeArithmetic::torchvision);
  for (int64_t i = 0; i < 3 * 256; ++i) {
    EXPECT_EQ(buffer.read<float>(tables.values_offset(), i),
              expected[static_cast<size_t>(i / 256)][static_cast<size_t>(i % 256)]);
    EXPECT_EQ(tables.arithmetic()[static_cast<size_t>(i / 256)].table[i % 256],
              expected[static_cast<size_t>(i / 256)][static_cast<size_t>(i % 256)]);
  }
}

TEST(PixelTables, RefuseWhatResizeRefuses) {
  PixelSpec spec = spec_with(Filter::box);
  expect_error(ErrorCode::unsupported_model,
               "resample: expected bilinear, bicubic or lanczos, got box, which torchvision does not have for pictures "
               "of bytes; Pillow's arithmetic has it",
               [&] {
                 PixelTables({30, 40}, {28, 28}, spec, ResizeArithmetic::torchvision);
               });
  spec.do_resize = false;
  expect_error(ErrorCode::invalid_argument, "patches: without a resize, expected a frame of 28 x 28, got 30 x 40", [&] {
    PixelTables({30, 40}, {28, 28}, spec, ResizeArithmetic::torchvision);
  });
  const PixelTables tables({28, 28}, {28, 28}, spec, ResizeArithmetic::torchvision);
  EXPECT_FALSE(tables.resizes());
  std::vector<uint8_t> small(static_cast<size_t>(tables.bytes()) - 1);
  expect_error(ErrorCode::invalid_argument, "pixel tables: expected room for 3072 bytes, got 3071",
               [&] { tables.write(small); });
}

}  // namespace
}  // namespace oriel::image
