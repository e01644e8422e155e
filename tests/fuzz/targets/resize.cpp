// Resizing, differentially: every set of instructions that this processor has against plain C++, in one piece and in
// two, in either order, bit for bit. The input chooses sizes, filter, arithmetic and strides; the rest of it are
// pixels.
#include <cstring>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "image/resize.hpp"
#include "image/resize_plan.hpp"
#include "image/resize_weights.hpp"

namespace {

using namespace oriel;
using namespace oriel::image;
using fuzz::require;

constexpr uint8_t untouched = 0xA5;

struct Case {
  Filter filter;
  ResizeArithmetic arithmetic;
  Size from;
  Size to;
  int64_t padding;  ///< bytes behind a row of the source, and of the target
  bool upside_down;
  int64_t cut;        ///< the target's rows are made in two pieces, [0, cut) and the rest
  bool bottom_first;  ///< the second piece first

  [[nodiscard]] int64_t source_stride() const { return 3 * from.width + padding; }
  [[nodiscard]] int64_t target_stride() const { return 3 * to.width + padding; }
};

/// Small sides are the rule, so that many run; one picture in eight is wide and one tall, and then the other is short.
Size read_size(fuzz::Reader& input, uint8_t shape) {
  const int64_t first = input.in(1, shape == 1 || shape == 2 ? 600 : 24);
  const int64_t second = input.in(1, shape == 1 || shape == 2 ? 6 : 24);
  return shape == 2 ? Size{second, first} : Size{first, second};
}

Case read_case(fuzz::Reader& input) {
  Case made{};
  made.filter = static_cast<Filter>(input.u8() % 5);
  made.arithmetic = static_cast<ResizeArithmetic>(input.u8() % 3);
  const uint8_t flags = input.u8();
  made.from = read_size(input, flags % 8);
  made.to = read_size(input, flags % 8);
  if (flags % 8 == 3) made.to.width = made.from.width;
  if (flags % 8 == 4) made.to.height = made.from.height;
  made.padding = flags / 8 % 4;
  made.upside_down = flags / 32 % 2 == 1;
  made.bottom_first = flags / 64 % 2 == 1;
  made.cut = input.in(0, made.to.height);
  return made;
}

/// The bytes of a picture without anything behind its last pixel: from the input, and around again.
std::vector<uint8_t> make_pixels(const Case& made, fuzz::Bytes bytes) {
  std::vector<uint8_t> pixels(static_cast<size_t>(made.source_stride() * (made.from.height - 1) + 3 * made.from.width));
  uint32_t state = 1;
  for (size_t i = 0; i < pixels.size(); ++i) {
    state = state * 1664525U + 1013904223U;
    pixels[i] = bytes.size() < 8 ? static_cast<uint8_t>(state >> 24) : bytes[i % bytes.size()];
  }
  return pixels;
}

std::vector<uint8_t> resized(const Case& made, const std::vector<uint8_t>& source, Simd simd, int64_t cut) {
  const int64_t last_row = made.source_stride() * (made.from.height - 1);
  const RgbView view{source.data() + (made.upside_down ? last_row : 0), made.from,
                     made.upside_down ? -made.source_stride() : made.source_stride()};
  const int64_t stride = made.target_stride();
  std::vector<uint8_t> target(static_cast<size_t>(stride * (made.to.height - 1) + 3 * made.to.width), untouched);
  const ResizePlan plan(made.from, made.to, made.filter, made.arithmetic, simd);
  RowResizer rows(plan, view);
  const auto write = [&](int64_t begin, int64_t end) {
    if (begin < end) rows.write_rows(begin, end, target.data() + begin * stride, stride);
  };
  if (made.bottom_first) write(cut, made.to.height);
  write(0, cut);
  if (!made.bottom_first) write(cut, made.to.height);
  for (int64_t y = 0; y + 1 < made.to.height; ++y)
    for (int64_t i = 3 * made.to.width; i < stride; ++i)
      require(target[static_cast<size_t>(y * stride + i)] == untouched, "bytes between rows are left alone");
  return target;
}

void check_weights(int64_t from, int64_t to, const Case& made) {
  const AxisWeights axis = make_axis_weights(from, to, made.filter, made.arithmetic);
  int32_t previous = 0;
  for (size_t i = 0; i < static_cast<size_t>(to); ++i) {
    require(axis.first[i] >= previous, "the first tap never moves back");
    previous = axis.first[i];
    require(axis.count[i] >= 1 && axis.count[i] <= axis.taps, "every pixel has a tap");
    require(axis.first[i] + axis.count[i] <= from, "taps lie in the picture");
    int64_t sum = 0;
    int64_t size = 0;
    for (int32_t j = 0; j < axis.count[i]; ++j) {
      const int64_t weight = axis.weights[i * static_cast<size_t>(axis.taps) + static_cast<size_t>(j)];
      sum += weight;
      size += std::abs(weight);
    }
    require(std::abs(sum - (int64_t{1} << axis.shift)) <= axis.count[i], "weights add up to one, but for rounding");
    require(255 * size + (int64_t{1} << axis.shift) < (int64_t{1} << 31), "sums fit 32 bits");
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Reader input({data, size});
  const Case made = read_case(input);
  fuzz::succeeds([&] {
    check_weights(made.from.width, made.to.width, made);
    const std::vector<uint8_t> source = make_pixels(made, input.rest());
    const std::vector<uint8_t> expected = resized(made, source, Simd::plain, 0);
    if (made.cut > 0) require(resized(made, source, Simd::plain, made.cut) == expected, "two pieces make the whole");
    for (const Simd simd : {Simd::avx2, Simd::avx512})
      if (is_supported(simd))
        require(resized(made, source, simd, made.cut) == expected, "all instructions give the same bytes");
  });
  return 0;
}
