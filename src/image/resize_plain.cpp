// The inner loops in plain C++: the reference that the vector versions equal bit for bit, and the way out for
// processors without AVX2.
#include <algorithm>
#include <array>

#include "image/resize_kernels.hpp"

namespace oriel::image {
namespace {

uint8_t to_byte(int32_t sum, int32_t shift) { return static_cast<uint8_t>(std::clamp(sum >> shift, 0, 255)); }

void horizontal(const HorizontalWeights& weights, int64_t begin, int64_t end, const uint8_t* const* source,
                int64_t source_start, uint8_t* const* target) {
  const int32_t half = 1 << (weights.shift - 1);
  const int64_t last_pixel = std::min(end * pixels_at_once, weights.pixels);
  for (int64_t pixel = begin * pixels_at_once; pixel < last_pixel; ++pixel) {
    const int32_t* words = weights.words + pixel * (weights.chunks + 1);
    const int32_t count = words[0];
    const int32_t* taps = words + 1;
    for (int row = 0; row < rows_at_once; ++row) {
      const uint8_t* input = source[row] + (3 * int64_t{weights.first[pixel]} - source_start);
      std::array<int32_t, 3> sums = {half, half, half};
      for (int32_t tap = 0; tap < count; ++tap) {
        for (size_t channel = 0; channel < 3; ++channel) sums[channel] += taps[tap] * input[3 * tap + int64_t(channel)];
      }
      for (size_t channel = 0; channel < 3; ++channel) {
        target[row][3 * pixel + static_cast<int64_t>(channel)] = to_byte(sums[channel], weights.shift);
      }
    }
  }
}

void vertical(const VerticalWeights& weights, int64_t y, const uint8_t* const* rows, int64_t bytes, uint8_t* target) {
  // A stretch of the row at a time, so that the compiler keeps its sums in registers or at least in the nearest cache.
  constexpr int64_t stretch = 256;
  const int32_t* taps = weights.words + y * weights.chunks;
  for (int64_t begin = 0; begin < bytes; begin += stretch) {
    const int64_t length = std::min(stretch, bytes - begin);
    std::array<int32_t, stretch> sums;
    sums.fill(1 << (weights.shift - 1));
    for (int32_t tap = 0; tap < weights.chunks; ++tap) {
      const int32_t weight = taps[tap];
      const uint8_t* row = rows[tap] + begin;
      for (int64_t i = 0; i < length; ++i) sums[static_cast<size_t>(i)] += weight * row[i];
    }
    for (int64_t i = 0; i < length; ++i) target[begin + i] = to_byte(sums[static_cast<size_t>(i)], weights.shift);
  }
}

void split_channels(const uint8_t* rgb, int64_t pixels, uint8_t* const* planes) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (int channel = 0; channel < 3; ++channel) planes[channel][pixel] = rgb[3 * pixel + channel];
  }
}

void stream(const Stream& floats) { std::copy_n(floats.from, floats.count, floats.to); }

void finish_stream() {}

void emit_patch(const PatchLayout& layout, const uint8_t* planes, float* row, const Stream& behind) {
  stream(behind);
  const int64_t slot_stride = layout.patch * layout.patch;
  for (int channel = 0; channel < 3; ++channel) {
    const float* table = layout.channels[channel].table;
    const uint8_t* plane = planes + channel * layout.plane_stride;
    float* out = row + channel * layout.channel_stride;
    for (int64_t y = 0; y < layout.patch; ++y) {
      for (int64_t x = 0; x < layout.patch; ++x) {
        const float value = table[plane[y * layout.row_stride + x]];
        for (int64_t copy = 0; copy < layout.copies; ++copy) out[copy * slot_stride + y * layout.patch + x] = value;
      }
    }
  }
}

}  // namespace

const Kernels plain_kernels = {horizontal, vertical, split_channels, emit_patch, stream, finish_stream};

}  // namespace oriel::image
