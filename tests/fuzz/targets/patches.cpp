// From pixels to patches, differentially: every set of instructions against plain C++, and the plain result against
// resized pixels that are looked up one by one. The input chooses sizes and arithmetic; the rest of it are pixels.
#include <cstring>
#include <vector>

#include "fuzz/fuzz.hpp"
#include "image/patches.hpp"

namespace {

using namespace oriel;
using namespace oriel::image;
using fuzz::require;

struct Case {
  PixelSpec spec;
  ResizeArithmetic arithmetic;
  Size from;
  Size to;
  int64_t frames;
};

double fraction(fuzz::Reader& input, double scale) { return (input.u8() + 1) / 256.0 * scale; }

Case read_case(fuzz::Reader& input) {
  Case made{};
  made.spec.patch = input.in(1, 9);
  made.spec.temporal = input.in(1, 3);
  made.spec.merge = input.in(1, 2);
  const uint8_t flags = input.u8();
  made.spec.do_resize = flags % 8 != 0;
  made.spec.do_rescale = flags / 8 % 4 != 0;
  made.spec.do_normalize = flags / 32 % 4 != 0;
  made.spec.filter = static_cast<Filter>(1 + input.u8() % 4);
  made.spec.rescale_factor = flags >= 128 ? 1.0 / 255.0 : fraction(input, 2.0);
  for (size_t channel = 0; channel < 3; ++channel) {
    made.spec.mean[channel] = fraction(input, 2.0) - 1.0;
    made.spec.std[channel] = fraction(input, input.u8() % 2 == 0 ? 1.0 : 1e-3);
  }
  made.arithmetic = static_cast<ResizeArithmetic>(input.u8() % 3);
  // Sides of the target need not be whole patches: what is left over is left out.
  const int64_t block = made.spec.patch * made.spec.merge;
  made.to = {block * input.in(1, 3), block * input.in(1, 3)};
  if (made.spec.merge == 1) made.to = {made.to.width + input.in(0, block - 1), made.to.height + input.in(0, block - 1)};
  made.from = made.spec.do_resize ? Size{input.in(1, 30), input.in(1, 30)} : made.to;
  made.frames = input.u8() % 2 == 0 ? 1 : made.spec.temporal;
  return made;
}

using Frames = std::vector<std::vector<uint8_t>>;

Frames make_frames(const Case& made, fuzz::Bytes bytes) {
  Frames frames;
  uint32_t state = 7;
  for (int64_t frame = 0; frame < made.frames; ++frame) {
    std::vector<uint8_t> pixels(static_cast<size_t>(3 * made.from.width * made.from.height));
    for (size_t i = 0; i < pixels.size(); ++i) {
      state = state * 1664525U + 1013904223U;
      pixels[i] = bytes.size() < 8 || frame > 0 ? static_cast<uint8_t>(state >> 24) : bytes[i % bytes.size()];
    }
    frames.push_back(std::move(pixels));
  }
  return frames;
}

const ThreadPool& one_thread() {
  static const ThreadPool pool(1);
  return pool;
}

std::vector<float> patches_of(const Case& made, const Frames& frames, Simd simd) {
  std::vector<RgbView> views;
  for (const auto& frame : frames) views.push_back({frame.data(), made.from, 3 * made.from.width});
  const int64_t patches = (made.to.width / made.spec.patch) * (made.to.height / made.spec.patch);
  std::vector<float> rows(static_cast<size_t>(patches * made.spec.patch_values()), -12345.0F);
  write_patches(views, made.to, made.spec, made.arithmetic, one_thread(), rows, simd);
  return rows;
}

/// The same by the definition: resize, look every value up, put it in its place.
std::vector<float> expected_patches(const Case& made, const Frames& frames) {
  const ValueTable table = make_value_table(made.spec, made.arithmetic);
  const PixelSpec& spec = made.spec;
  std::vector<float> rows;
  std::vector<std::vector<uint8_t>> resized;
  for (const auto& frame : frames) {
    std::vector<uint8_t> pixels(static_cast<size_t>(3 * made.to.width * made.to.height));
    resize({frame.data(), made.from, 3 * made.from.width}, {pixels.data(), made.to, 3 * made.to.width}, spec.filter,
           made.arithmetic, one_thread(), Simd::plain);
    resized.push_back(std::move(pixels));
  }
  const auto emit = [&](int64_t row, int64_t column) {
    for (size_t channel = 0; channel < 3; ++channel)
      for (int64_t slot = 0; slot < spec.temporal; ++slot)
        for (int64_t y = 0; y < spec.patch; ++y)
          for (int64_t x = 0; x < spec.patch; ++x) {
            const auto& frame = resized[frames.size() == 1 ? 0 : static_cast<size_t>(slot)];
            const int64_t pixel = (row * spec.patch + y) * made.to.width + column * spec.patch + x;
            rows.push_back(table[channel][frame[static_cast<size_t>(3 * pixel) + channel]]);
          }
  };
  const int64_t grid_rows = made.to.height / spec.patch;
  const int64_t grid_columns = made.to.width / spec.patch;
  for (int64_t row = 0; row < grid_rows; row += spec.merge)
    for (int64_t column = 0; column < grid_columns; column += spec.merge)
      for (int64_t dy = 0; dy < spec.merge; ++dy)
        for (int64_t dx = 0; dx < spec.merge; ++dx) emit(row + dy, column + dx);
  return rows;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fuzz::Reader input({data, size});
  const Case made = read_case(input);
  fuzz::succeeds([&] {
    const Frames frames = make_frames(made, input.rest());
    const std::vector<float> expected = expected_patches(made, frames);
    for (const Simd simd : {Simd::plain, Simd::avx2, Simd::avx512})
      if (is_supported(simd))
        require(same_bits(patches_of(made, frames, simd), expected), "patches are the resized pixels' values");
  });
  return 0;
}
