#pragma once
// What both passes of pixels.cu and pixels_first_pass.cu are made of: four adjacent pixels in one word (a quad), and
// dot products of quads with weights that are cut into digits of 8 bits.
#include <cstdint>

#include "element.cuh"
#include "pixels.h"

namespace oriel::kernels::pixels {

constexpr int tile_columns = 128;  // image::span_pixels
constexpr int tile_rows = 2;
constexpr int threads = tile_columns * tile_rows;
constexpr int quad = 4;

/// What the first pass leaves in scratch. Horizontal pass first: uint32 [frames, 3, planes_rows, pitch], word (r, x)
/// holds rows 4r to 4r + 3 of column x. Vertical pass first: the same shape, word (y, w) holds columns 4w to 4w + 3 of
/// row y. Either way the second pass reads words that are packed in the direction in which it sums.
struct Intermediate {
  uint32_t* words;
  int64_t rows;   ///< of words in a plane
  int64_t pitch;  ///< words from one row to the next

  __host__ __device__ uint32_t* row(int64_t frame, int64_t channel, int64_t y) const {
    return words + ((frame * 3 + channel) * rows + y) * pitch;
  }
};

/// How a picture is read.
enum class Layout { rgb, rgbx, planar, any };

struct Quad {
  uint32_t channel[3];
};

/// N words from any address on. Bytes outside [begin, end) are not read and come out as zero or not at all.
template <int N>
__device__ void read_words(const uint8_t* begin, const uint8_t* end, const uint8_t* at, uint32_t (&words)[N]) {
  const unsigned misaligned = static_cast<unsigned>(reinterpret_cast<uintptr_t>(at) & 3U);
  const uint8_t* from = at - misaligned;
  if (from >= begin && from + 4 * (N + (misaligned != 0)) <= end) {
    const auto* aligned = reinterpret_cast<const uint32_t*>(from);
    uint32_t loaded[N + 1];
#pragma unroll
    for (int i = 0; i < N; ++i) loaded[i] = __ldg(aligned + i);
    loaded[N] = misaligned != 0 ? __ldg(aligned + N) : 0;
#pragma unroll
    for (int i = 0; i < N; ++i) words[i] = __funnelshift_r(loaded[i], loaded[i + 1], 8 * misaligned);
    return;
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    words[i] = 0;
#pragma unroll
    for (int byte = 0; byte < 4; ++byte) {
      const uint8_t* from_byte = at + 4 * i + byte;
      if (from_byte < end) words[i] |= static_cast<uint32_t>(__ldg(from_byte)) << (8 * byte);
    }
  }
}

/// Pixels 4 * word to 4 * word + 3 of the row that begins at `row`, zero behind its end.
template <Layout layout>
__device__ Quad load_quad(const PictureView& picture, const uint8_t* row, int word) {
  const int width = static_cast<int>(picture.width);
  const int x = quad * word;
  Quad result{};
  if (x >= width) return result;
  if constexpr (layout == Layout::rgb) {
    uint32_t w[3];
    read_words(row, row + 3 * width, row + 3 * x, w);  // R0 G0 B0 R1, G1 B1 R2 G2, B2 R3 G3 B3
    result.channel[0] = __byte_perm(__byte_perm(w[0], w[1], 0x0630), w[2], 0x5210);
    result.channel[1] = __byte_perm(__byte_perm(w[0], w[1], 0x0741), w[2], 0x6210);
    result.channel[2] = __byte_perm(__byte_perm(w[0], w[1], 0x0052), w[2], 0x7410);
  } else if constexpr (layout == Layout::rgbx) {
    const auto* pixels = reinterpret_cast<const uint32_t*>(row) + x;
    uint32_t p[quad];
#pragma unroll
    for (int i = 0; i < quad; ++i) p[i] = x + i < width ? __ldg(pixels + i) : 0;
    const uint32_t low_red_green = __byte_perm(p[0], p[1], 0x5140);  // R0 R1 G0 G1
    const uint32_t high_red_green = __byte_perm(p[2], p[3], 0x5140);
    result.channel[0] = __byte_perm(low_red_green, high_red_green, 0x5410);
    result.channel[1] = __byte_perm(low_red_green, high_red_green, 0x7632);
    result.channel[2] = __byte_perm(__byte_perm(p[0], p[1], 0x0062), __byte_perm(p[2], p[3], 0x0062), 0x5410);
  } else if constexpr (layout == Layout::planar) {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const uint8_t* begin = row + c * picture.channel_stride;
      uint32_t w[1];
      read_words(begin, begin + width, begin + x, w);
      result.channel[c] = w[0];
    }
  } else {
    for (int c = 0; c < 3; ++c) {
      for (int i = 0; i < quad && x + i < width; ++i) {
        const uint8_t byte = __ldg(row + c * picture.channel_stride + (x + i) * picture.column_stride);
        result.channel[c] |= static_cast<uint32_t>(byte) << (8 * i);
      }
    }
  }
  return result;
}

__device__ inline const uint8_t* row_of(const PictureView& picture, int64_t frame, int64_t y) {
  return picture.pixels + frame * picture.frame_stride + y * picture.row_stride;
}

/// The words of one chunk of weights.
template <int digits>
struct Weights {
  uint32_t word[digits];
};

/// Sums of one pixel, one for each digit. Everything is modulo 2^32.
template <int digits>
struct Sums {
  uint32_t sum[digits] = {};

  __device__ void add(uint32_t pixels, const Weights<digits>& weights) {
#pragma unroll
    for (int d = 0; d + 1 < digits; ++d) sum[d] = __dp4a(pixels, weights.word[d], sum[d]);
    // The last digit is signed, the pixels are not: a combination that has no intrinsic.
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum[digits - 1]) : "r"(pixels), "r"(weights.word[digits - 1]));
  }
  __device__ uint32_t byte(int shift) const {
    uint32_t total = 1U << (shift - 1);
#pragma unroll
    for (int d = 0; d < digits; ++d) total += sum[d] << (8 * d);
    return static_cast<uint32_t>(min(max(static_cast<int32_t>(total) >> shift, 0), 255));
  }
};

/// Chunk k of row or column i; see AxisWeightsView for the two layouts.
template <int digits>
__device__ Weights<digits> row_weights(const AxisWeightsView& axis, int64_t i, int k) {
  Weights<digits> result;
#pragma unroll
  for (int d = 0; d < digits; ++d) result.word[d] = __ldg(axis.words + (i * axis.chunks + k) * digits + d);
  return result;
}
template <int digits>
__device__ Weights<digits> column_weights(const AxisWeightsView& axis, int64_t i, int k) {
  Weights<digits> result;
#pragma unroll
  for (int d = 0; d < digits; ++d) {
    result.word[d] = __ldg(axis.words + (static_cast<int64_t>(k) * digits + d) * axis.out + i);
  }
  return result;
}

/// The first of two passes, in pixels_first_pass.cu. `covered` is what the patches use of the target in the direction
/// of this pass.
cudaError_t launch_first_pass(const PatchesParams& params, const Intermediate& intermediate, int64_t covered,
                              cudaStream_t stream);

}  // namespace oriel::kernels::pixels
