// Pictures on the GPU against pictures on the CPU: every bit of every value.
#include "pixels.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "image/pixel_recipes.hpp"
#include "kernels/pixels_on_device.hpp"

namespace oriel::kernels {
namespace {

using image::Filter;
using image::Picture;
using image::PixelSpec;
using image::ResizeArithmetic;

constexpr uint8_t poison = 0xFF;  // NaN as an element of any type

struct Case {
  Size source{64, 48};
  Size target{56, 56};
  PixelSpec spec;
  ResizeArithmetic arithmetic = ResizeArithmetic::torchvision;
  int64_t frames = 1;
  Element element = Element::float32;
  int64_t padding = 0;       ///< elements of zeros behind the values of a row
  int64_t gap = 0;           ///< elements behind those that belong to somebody else
  int64_t offset = 0;        ///< elements in front of the first row
  bool read_values = false;  ///< from the table, even where they can be computed
};

PixelSpec spec_of(int64_t patch, int64_t temporal, int64_t merge, Filter filter = Filter::bicubic) {
  PixelSpec spec;
  spec.filter = filter;
  spec.patch = patch;
  spec.temporal = temporal;
  spec.merge = merge;
  spec.mean = {0.48145466, 0.4578275, 0.40821073};
  spec.std = {0.26862954, 0.26130258, 0.27577711};
  return spec;
}

/// How the bytes of frames lie in memory.
struct Memory {
  std::string name;
  int64_t column_stride = 3;
  int64_t channel_stride = 1;
  int64_t row_padding = 0;  ///< bytes behind each row
  int64_t offset = 0;       ///< of the first byte in its allocation
  bool planar = false;      ///< the channels are planes, row_padding included
  bool bottom_up = false;
  bool backwards = false;  ///< channels in the order blue, green, red
};

struct PlacedPicture {
  DeviceBytes bytes;
  PictureView view;
};

PlacedPicture place(const std::vector<Picture>& frames, const Memory& memory) {
  const Size size = frames[0].size;
  const int64_t column = memory.planar ? 1 : memory.column_stride;
  const int64_t row = size.width * column + memory.row_padding;
  const int64_t channel = memory.planar ? row * size.height : memory.channel_stride;
  const int64_t frame = memory.planar ? 3 * channel : row * size.height;
  const auto count = static_cast<int64_t>(frames.size());
  // Nothing behind the last pixel: reading on is an error that a sanitizer sees.
  const int64_t pixel = memory.planar ? 2 * channel + 1 : std::max(2 * channel + 1, column);
  const int64_t used = frame * (count - 1) + row * (size.height - 1) + column * (size.width - 1) + pixel;
  std::vector<uint8_t> host(static_cast<size_t>(memory.offset + used), 0x5A);
  for (int64_t f = 0; f < count; ++f) {
    for (int64_t y = 0; y < size.height; ++y) {
      const int64_t line = memory.bottom_up ? size.height - 1 - y : y;
      for (int64_t x = 0; x < size.width; ++x) {
        for (int64_t c = 0; c < 3; ++c) {
          const int64_t at = f * frame + line * row + x * column + (memory.backwards ? 2 - c : c) * channel;
          host[static_cast<size_t>(memory.offset + at)] =
              frames[static_cast<size_t>(f)].rgb[static_cast<size_t>((y * size.width + x) * 3 + c)];
        }
      }
    }
  }
  PlacedPicture placed{DeviceBytes(host), {}};
  const int64_t top =
      memory.offset + (memory.bottom_up ? (size.height - 1) * row : 0) + (memory.backwards ? 2 * channel : 0);
  placed.view = {placed.bytes.data() + top,
                 size.height,
                 size.width,
                 memory.bottom_up ? -row : row,
                 column,
                 memory.backwards ? -channel : channel,
                 count,
                 frame};
  return placed;
}

/// The bits of a float as an element, rounded to nearest even.
uint32_t rounded(float value, Element element) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if (element == Element::float32) return bits;
  if (element == Element::bfloat16) return (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
  const uint32_t sign = bits >> 16 & 0x8000U;
  const double magnitude = std::fabs(static_cast<double>(value));
  if (magnitude >= 65520.0) return sign | 0x7C00U;
  const int exponent = std::max(magnitude == 0.0 ? -14 : std::ilogb(magnitude), -14);
  // Units of the last place; a carry moves on into the exponent.
  const auto units = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  return sign | (units + (static_cast<uint32_t>(exponent + 14) << 10));
}

std::vector<float> on_cpu(const Case& c, const std::vector<Picture>& frames) {
  std::vector<image::RgbView> views;
  for (const Picture& frame : frames) views.push_back(frame.view());
  const int64_t count = (c.target.height / c.spec.patch) * (c.target.width / c.spec.patch) * c.spec.patch_values();
  std::vector<float> rows(static_cast<size_t>(count));
  write_patches(views, c.target, c.spec, c.arithmetic, ThreadPool(1), rows, image::Simd::plain);
  return rows;
}

/// Runs the kernels on their own stream into poisoned memory and returns all of it, the gaps included.
std::vector<uint8_t> on_gpu(const Case& c, const PictureView& picture, int64_t patches) {
  const image::PixelTables tables(c.source, c.target, c.spec, c.arithmetic);
  const DeviceTables device_tables(tables);
  PatchesParams params = params_of(tables, device_tables.data(), c.spec, c.target);
  params.picture = picture;
  if (c.read_values) {
    for (ByteValues& channel : params.channels) channel.computable = false;
  }
  params.element = c.element;
  params.out_columns = c.spec.patch_values() + c.padding;
  params.out_stride = params.out_columns + c.gap;
  const int64_t size = c.element == Element::float32 ? 4 : 2;
  const DeviceBytes out(static_cast<size_t>((c.offset + patches * params.out_stride) * size));
  out.fill(poison);
  params.out = out.data() + c.offset * size;
  const DeviceBytes scratch(patches_scratch_bytes(params));
  if (scratch.size() > 0) scratch.fill(poison);
  params.scratch = scratch.data();
  check_cuda(cudaDeviceSynchronize(), "preparing");

  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  check_cuda(write_patches(params, stream), "write_patches");
  check_cuda(cudaStreamSynchronize(stream), "write_patches, running");
  check_cuda(cudaStreamDestroy(stream), "cudaStreamDestroy");
  return out.to_host();
}

testing::AssertionResult gpu_equals_cpu(const Case& c, const Memory& memory = {}) {
  std::vector<Picture> frames;
  for (int64_t f = 0; f < c.frames; ++f) {
    frames.push_back(image::noise(c.source, static_cast<uint64_t>(c.source.width * 131 + c.source.height + 7 * f)));
  }
  const std::vector<float> expected = on_cpu(c, frames);
  const int64_t row_values = c.spec.patch_values();
  const int64_t patches = static_cast<int64_t>(expected.size()) / row_values;
  const PlacedPicture placed = place(frames, memory);
  const std::vector<uint8_t> got = on_gpu(c, placed.view, patches);

  const int64_t size = c.element == Element::float32 ? 4 : 2;
  const int64_t stride = row_values + c.padding + c.gap;
  const uint32_t untouched = c.element == Element::float32 ? 0xFFFFFFFFU : 0xFFFFU;
  for (int64_t i = 0; i < static_cast<int64_t>(got.size()) / size; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, got.data() + i * size, static_cast<size_t>(size));
    uint32_t wanted = untouched;
    if (i >= c.offset) {
      const int64_t row = (i - c.offset) / stride;
      const int64_t column = (i - c.offset) % stride;
      if (column < row_values) {
        wanted = rounded(expected[static_cast<size_t>(row * row_values + column)], c.element);
      } else if (column < row_values + c.padding) {
        wanted = 0;
      }
    }
    if (bits != wanted) {
      return testing::AssertionFailure() << c.source.width << " x " << c.source.height << " to " << c.target.width
                                         << " x " << c.target.height << ", patch " << c.spec.patch << ", temporal "
                                         << c.spec.temporal << ", merge " << c.spec.merge << ", filter "
                                         << static_cast<int>(c.spec.filter) << ", arithmetic "
                                         << static_cast<int>(c.arithmetic) << ", frames " << c.frames << ", memory "
                                         << memory.name << ": row " << (i - c.offset) / stride << ", value "
                                         << (i - c.offset) % stride << ": bits " << std::hex << bits << " instead of "
                                         << wanted;
    }
  }
  return testing::AssertionSuccess();
}

class Pixels : public testing::Test {
 protected:
  void SetUp() override {
    if (!has_device()) GTEST_SKIP() << "no CUDA device";
  }
};

struct Resampler {
  Filter filter;
  ResizeArithmetic arithmetic;
};
std::vector<Resampler> all_resamplers() {
  std::vector<Resampler> result;
  for (const auto arithmetic : {ResizeArithmetic::torchvision, ResizeArithmetic::pillow, ResizeArithmetic::pillow12}) {
    for (const auto filter : {Filter::bilinear, Filter::bicubic, Filter::lanczos})
      result.push_back({filter, arithmetic});
  }
  for (const auto filter : {Filter::box, Filter::hamming}) result.push_back({filter, ResizeArithmetic::pillow});
  return result;
}

/// Layouts that the kernels know, each at its best and at its worst, and layouts that they do not know.
std::vector<Memory> all_memories() {
  return {{.name = "rgb"},
          {.name = "rgb, one byte late", .offset = 1},
          {.name = "rgb, two bytes late, odd rows", .row_padding = 5, .offset = 2},
          {.name = "rgb, three bytes late, bottom up", .row_padding = 1, .offset = 3, .bottom_up = true},
          {.name = "rgbx", .column_stride = 4},
          {.name = "rgbx, padded rows", .column_stride = 4, .row_padding = 12, .offset = 8},
          {.name = "rgbx, not in words", .column_stride = 4, .row_padding = 3, .offset = 1},
          {.name = "planes", .planar = true},
          {.name = "planes, odd", .row_padding = 3, .offset = 3, .planar = true},
          {.name = "planes in words, bottom up", .row_padding = 4, .offset = 4, .planar = true, .bottom_up = true},
          {.name = "bgr", .backwards = true},
          {.name = "planes, blue first", .planar = true, .backwards = true},
          {.name = "five bytes a pixel, two a channel", .column_stride = 6, .channel_stride = 2, .offset = 1}};
}

TEST_F(Pixels, EqualTheCpuForEveryFilterAndArithmetic) {
  // Targets are what is left after the remainder of a patch; sources shrink, grow, or both.
  const std::vector<std::array<Size, 2>> sizes = {
      {{{1, 1}, {8, 8}}},      {{{3, 200}, {24, 16}}},   {{{97, 61}, {67, 43}}}, {{{64, 64}, {130, 131}}},
      {{{300, 40}, {33, 80}}}, {{{40, 300}, {80, 33}}},  {{{211, 223}, {8, 9}}}, {{{50, 37}, {50, 67}}},
      {{{50, 33}, {90, 33}}},  {{{640, 480}, {57, 49}}}, {{{29, 31}, {34, 32}}}, {{{255, 9}, {259, 10}}},
      {{{5000, 3}, {10, 9}}},  {{{3, 5000}, {9, 10}}},   {{{1, 700}, {9, 304}}}, {{{700, 1}, {304, 9}}}};
  for (const Resampler& r : all_resamplers()) {
    for (const auto& [source, target] : sizes) {
      Case c{source, target, spec_of(4, 1, 2, r.filter), r.arithmetic};
      ASSERT_TRUE(gpu_equals_cpu(c));
    }
  }
}

TEST_F(Pixels, EqualTheCpuForRandomSizesPatchesAndOrders) {
  std::mt19937 random(20261125);
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random);
  };
  const std::vector<int64_t> patches = {1, 2, 3, 5, 7, 14, 16, 24, 32, 65, 129};
  const std::vector<Resampler> resamplers = all_resamplers();
  const std::vector<Memory> memories = all_memories();
  for (int i = 0; i < 250; ++i) {
    const Resampler r = resamplers[static_cast<size_t>(pick(0, static_cast<int64_t>(resamplers.size()) - 1))];
    const int64_t patch = patches[static_cast<size_t>(pick(0, static_cast<int64_t>(patches.size()) - 1))];
    const int64_t merge = pick(1, patch > 32 ? 1 : 3);
    const int64_t block = patch * merge;
    const int64_t most = std::max<int64_t>(1, 260 / block);
    Case c;
    c.spec = spec_of(patch, pick(1, 3), merge, r.filter);
    c.arithmetic = r.arithmetic;
    // The remainder is smaller than a patch, so that the grid stays whole.
    c.target = {block * pick(1, most) + pick(0, patch - 1), block * pick(1, most) + pick(0, patch - 1)};
    c.source = {pick(1, 400), pick(1, 400)};
    if (pick(0, 5) == 0) c.source.width = c.target.width;
    if (pick(0, 5) == 0) c.source.height = c.target.height;
    c.frames = pick(0, 1) == 0 ? 1 : c.spec.temporal;
    c.element = static_cast<Element>(pick(0, 2));
    c.padding = pick(0, 1) * pick(0, 9);
    c.gap = pick(0, 1) * pick(0, 9);
    c.offset = pick(0, 1) * pick(0, 9);
    c.read_values = pick(0, 3) == 0;
    ASSERT_TRUE(gpu_equals_cpu(c, memories[static_cast<size_t>(pick(0, static_cast<int64_t>(memories.size()) - 1))]));
  }
}

TEST_F(Pixels, EqualTheCpuWhereverTheBytesLie) {
  for (const Memory& memory : all_memories()) {
    for (const Size source : {Size{101, 67}, Size{102, 64}, Size{103, 400}, Size{104, 63}, Size{2, 3}, Size{3000, 5}}) {
      for (const auto arithmetic : {ResizeArithmetic::torchvision, ResizeArithmetic::pillow}) {
        ASSERT_TRUE(gpu_equals_cpu({source, {57, 56}, spec_of(14, 2, 2), arithmetic}, memory));
      }
    }
    Case same{{57, 56}, {57, 56}, spec_of(14, 2, 2)};
    ASSERT_TRUE(gpu_equals_cpu(same, memory));
    same.spec.do_resize = false;
    same.frames = 2;
    ASSERT_TRUE(gpu_equals_cpu(same, memory));
  }
}

TEST_F(Pixels, AreRoundedToTheElementsOfTheTower) {
  for (const Element element : {Element::float32, Element::bfloat16, Element::float16}) {
    for (const int64_t patch : {14, 16}) {
      Case c{{301, 203}, {224, 224}, spec_of(patch, 1, 1)};
      c.element = element;
      c.padding = patch == 14 ? 4 : 0;  // 588 values in rows of 592
      ASSERT_TRUE(gpu_equals_cpu(c));
      c.spec.mean = {0.5, 0.5, 0.5};
      c.spec.std = {0.5, 0.5, 0.5};
      ASSERT_TRUE(gpu_equals_cpu(c));
      c.spec.do_normalize = false;
      ASSERT_TRUE(gpu_equals_cpu(c));
      c.spec.do_rescale = false;
      ASSERT_TRUE(gpu_equals_cpu(c));
      c.spec.rescale_factor = 1.0E-7;  // subnormal float16
      c.spec.do_rescale = true;
      ASSERT_TRUE(gpu_equals_cpu(c));
      c.arithmetic = ResizeArithmetic::pillow;
      c.spec.rescale_factor = 1.0 / 3.0;
      c.spec.do_normalize = true;
      ASSERT_TRUE(gpu_equals_cpu(c));
      c.read_values = true;
      ASSERT_TRUE(gpu_equals_cpu(c));
    }
  }
}

TEST_F(Pixels, LeaveMemoryBetweenAndBeforeRowsAlone) {
  for (const Element element : {Element::float32, Element::bfloat16}) {
    for (const int64_t gap : {0, 1, 2, 4, 8, 13}) {
      for (const int64_t offset : {0, 1, 2, 4, 8}) {
        Case c{{50, 70}, {56, 84}, spec_of(14, 1, 2)};
        c.element = element;
        c.gap = gap;
        c.offset = offset;
        ASSERT_TRUE(gpu_equals_cpu(c));
      }
    }
  }
}

TEST_F(Pixels, FillAPatchWithOneFrameOrWithItsFrames) {
  for (const auto arithmetic : {ResizeArithmetic::torchvision, ResizeArithmetic::pillow}) {
    for (const int64_t temporal : {1, 2, 3}) {
      for (const Size source : {Size{200, 120}, Size{90, 500}, Size{112, 84}}) {
        Case c{source, {112, 84}, spec_of(14, temporal, 2), arithmetic};
        ASSERT_TRUE(gpu_equals_cpu(c, {.name = "one frame"}));
        c.frames = temporal;
        ASSERT_TRUE(gpu_equals_cpu(c, {.name = "its frames"}));
      }
    }
  }
}

TEST_F(Pixels, TakePatchesThatDoNotFitIntoSharedMemory) {
  for (const int64_t patch : {63, 64, 65, 100, 200}) {
    for (const auto arithmetic : {ResizeArithmetic::torchvision, ResizeArithmetic::pillow}) {
      Case c{{150, 900}, {2 * patch, 2 * patch}, spec_of(patch, 2, 2), arithmetic};
      c.padding = 3;
      ASSERT_TRUE(gpu_equals_cpu(c));
      c.source = c.target;
      ASSERT_TRUE(gpu_equals_cpu(c));
    }
  }
}

TEST_F(Pixels, EqualTheCpuOnPhotographSizes) {
  ASSERT_TRUE(gpu_equals_cpu({{1920, 1080}, {1316, 728}, spec_of(14, 2, 2)}));
  ASSERT_TRUE(gpu_equals_cpu({{2048, 1536}, {896, 896}, spec_of(14, 1, 1, Filter::bilinear)}));
  ASSERT_TRUE(gpu_equals_cpu({{1536, 2048}, {896, 896}, spec_of(16, 1, 1), ResizeArithmetic::pillow}));
  ASSERT_TRUE(gpu_equals_cpu({{1031, 769}, {2044, 1540}, spec_of(14, 2, 2, Filter::lanczos)}));
}

// --- what needs no device: refusals come before any work ---

struct Valid {
  image::PixelTables tables{{64, 48}, {56, 28}, spec_of(14, 2, 2), ResizeArithmetic::torchvision};
  std::vector<uint8_t> buffer = std::vector<uint8_t>(static_cast<size_t>(tables.bytes()));
  alignas(16) std::array<uint8_t, 64> memory{};
  PatchesParams params = params_of(tables, buffer.data(), spec_of(14, 2, 2), {56, 28});

  Valid() {
    params.picture = {memory.data(), 48, 64, 3 * 64, 3, 1, 1, 0};
    params.out = memory.data();
    params.out_columns = params.out_stride = 1176;
    params.scratch = memory.data();
  }
};

TEST(PixelParams, AreRefusedWhereTheyDoNotFit) {
  const std::vector<std::function<void(PatchesParams&)>> breaks = {
      [](PatchesParams& p) { p.picture.pixels = nullptr; },
      [](PatchesParams& p) { p.picture.width = 0; },
      [](PatchesParams& p) { p.picture.height = (int64_t{1} << 20) + 1; },
      [](PatchesParams& p) { p.picture.width = 65; },
      [](PatchesParams& p) { p.picture.frames = 3; },
      [](PatchesParams& p) { p.target_width = 55; },
      [](PatchesParams& p) { p.target_height = 13; },
      [](PatchesParams& p) { p.target_height = 42; },
      [](PatchesParams& p) { p.patch = 0; },
      [](PatchesParams& p) { p.merge = -1; },
      [](PatchesParams& p) { p.temporal = 4097; },
      [](PatchesParams& p) { p.out = nullptr; },
      [](PatchesParams& p) { p.out = static_cast<uint8_t*>(p.out) + 1; },
      [](PatchesParams& p) { p.out_columns = 1175; },
      [](PatchesParams& p) { p.out_stride = 1175; },
      [](PatchesParams& p) { p.scratch = nullptr; },
      [](PatchesParams& p) { p.values = nullptr; },
      [](PatchesParams& p) { p.rows.words = nullptr; },
      [](PatchesParams& p) { p.rows.digits = 4; },
      [](PatchesParams& p) { p.columns.chunks = 0; },
      [](PatchesParams& p) { p.columns.span = 17; },
      [](PatchesParams& p) { p.columns.shift = 0; },
      [](PatchesParams& p) { p.resize = false; }};
  for (size_t i = 0; i < breaks.size(); ++i) {
    Valid valid;
    breaks[i](valid.params);
    EXPECT_EQ(write_patches(valid.params, nullptr), cudaErrorInvalidValue) << "break " << i;
  }
}

TEST(PixelParams, NeedScratchForTheFirstPassAlone) {
  Valid valid;
  EXPECT_EQ(patches_scratch_bytes(valid.params), size_t{3} * 12 * 56 * 4);
  valid.params.rows_first = true;
  EXPECT_EQ(patches_scratch_bytes(valid.params), size_t{3} * 28 * 16 * 4);
  valid.params.resize = false;
  EXPECT_EQ(patches_scratch_bytes(valid.params), 0U);
}

}  // namespace
}  // namespace oriel::kernels
