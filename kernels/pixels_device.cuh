#pragma once
// What pixels_first_pass.cu and pixels_second_pass.cu are made of: four adjacent pixels in one word (a quad), and
// dot products of quads with weights that are cut into digits of 8 bits.
#include <cstdint>

#include "element.cuh"
#include "pixels.h"

namespace oriel::kernels::pixels {

constexpr int threads = 256;
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

/// A row of bytes that begins anywhere, read in groups of N words. Fetching and finishing are two steps, so that many
/// groups can be under way at once. Bytes outside the row are not read.
template <int N>
class WordRow {
 public:
  struct Fetched {
    uint32_t word[N + 1];
    bool whole;
  };

  __device__ WordRow(const uint8_t* begin, int bytes) : begin_(begin), bytes_(bytes) {
    late_ = static_cast<int>(reinterpret_cast<uintptr_t>(begin) & 3U);
    // Group i is read as the aligned words from byte 4 N i - late on, one more if the row begins late.
    whole_begin_ = late_ != 0 ? 1 : 0;
    const int room = bytes - 4 * N + late_ - (late_ != 0 ? 4 : 0);
    whole_count_ = room < 0 ? 0 : max(room / (4 * N) + 1 - whole_begin_, 0);
  }

  __device__ Fetched fetch(int group) const {
    Fetched result;
    result.whole = static_cast<unsigned>(group - whole_begin_) < static_cast<unsigned>(whole_count_);
    const auto* words = reinterpret_cast<const uint32_t*>(begin_ - late_) + N * group;
#pragma unroll
    for (int i = 0; i < N; ++i) result.word[i] = result.whole ? __ldg(words + i) : 0;
    result.word[N] = result.whole && late_ != 0 ? __ldg(words + N) : 0;
    return result;
  }

  /// Bytes behind the row's end come out as zero or not at all.
  __device__ void finish(const Fetched& fetched, int group, uint32_t (&words)[N]) const {
#pragma unroll
    for (int i = 0; i < N; ++i) words[i] = __funnelshift_r(fetched.word[i], fetched.word[i + 1], 8 * late_);
    if (fetched.whole) return;
    const int left = bytes_ - 4 * N * group;
#pragma unroll 1
    for (int i = 0; i < min(4 * N, left); ++i) {
      const uint32_t byte = static_cast<uint32_t>(__ldg(begin_ + 4 * N * group + i)) << (8 * (i % 4));
#pragma unroll
      for (int word = 0; word < N; ++word)
        if (word == i / 4) words[word] |= byte;
    }
  }

 private:
  const uint8_t* begin_;
  int bytes_;
  int late_;  ///< bytes from a multiple of 4 to the row's begin
  int whole_begin_;
  int whole_count_;
};

/// A row of pixels in quads: quad i holds pixels 4 i to 4 i + 3, zero behind the row's end.
template <Layout layout>
class QuadRow;

template <>
class QuadRow<Layout::rgb> {
 public:
  using Fetched = WordRow<3>::Fetched;
  __device__ QuadRow(const PictureView& picture, const uint8_t* row) : row_(row, 3 * static_cast<int>(picture.width)) {}
  __device__ Fetched fetch(int i) const { return row_.fetch(i); }
  __device__ Quad finish(const Fetched& fetched, int i) const {
    uint32_t w[3];  // R0 G0 B0 R1, G1 B1 R2 G2, B2 R3 G3 B3
    row_.finish(fetched, i, w);
    return {{__byte_perm(__byte_perm(w[0], w[1], 0x0630), w[2], 0x5210),
             __byte_perm(__byte_perm(w[0], w[1], 0x0741), w[2], 0x6210),
             __byte_perm(__byte_perm(w[0], w[1], 0x0052), w[2], 0x7410)}};
  }

 private:
  WordRow<3> row_;
};

template <>
class QuadRow<Layout::rgbx> {
 public:
  struct Fetched {
    uint32_t pixel[quad];
  };
  __device__ QuadRow(const PictureView& picture, const uint8_t* row)
      : pixels_(reinterpret_cast<const uint32_t*>(row)), width_(static_cast<int>(picture.width)) {}
  __device__ Fetched fetch(int i) const {
    Fetched result;
#pragma unroll
    for (int x = 0; x < quad; ++x) result.pixel[x] = quad * i + x < width_ ? __ldg(pixels_ + quad * i + x) : 0;
    return result;
  }
  __device__ Quad finish(const Fetched& fetched, int) const {
    const uint32_t(&p)[quad] = fetched.pixel;
    const uint32_t low_red_green = __byte_perm(p[0], p[1], 0x5140);  // R0 R1 G0 G1
    const uint32_t high_red_green = __byte_perm(p[2], p[3], 0x5140);
    return {{__byte_perm(low_red_green, high_red_green, 0x5410), __byte_perm(low_red_green, high_red_green, 0x7632),
             __byte_perm(__byte_perm(p[0], p[1], 0x0062), __byte_perm(p[2], p[3], 0x0062), 0x5410)}};
  }

 private:
  const uint32_t* pixels_;
  int width_;
};

template <>
class QuadRow<Layout::planar> {
 public:
  struct Fetched {
    WordRow<1>::Fetched channel[3];
  };
  __device__ QuadRow(const PictureView& picture, const uint8_t* row)
      : channels_{{row, static_cast<int>(picture.width)},
                  {row + picture.channel_stride, static_cast<int>(picture.width)},
                  {row + 2 * picture.channel_stride, static_cast<int>(picture.width)}} {}
  __device__ Fetched fetch(int i) const {
    return {{channels_[0].fetch(i), channels_[1].fetch(i), channels_[2].fetch(i)}};
  }
  __device__ Quad finish(const Fetched& fetched, int i) const {
    Quad result;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      uint32_t w[1];
      channels_[c].finish(fetched.channel[c], i, w);
      result.channel[c] = w[0];
    }
    return result;
  }

 private:
  WordRow<1> channels_[3];
};

template <>
class QuadRow<Layout::any> {
 public:
  using Fetched = Quad;
  __device__ QuadRow(const PictureView& picture, const uint8_t* row) : picture_(picture), row_(row) {}
  __device__ Fetched fetch(int i) const {
    const int inside = static_cast<int>(picture_.width) - quad * i;
    Quad result{};
#pragma unroll
    for (int c = 0; c < 3; ++c) {
#pragma unroll
      for (int x = 0; x < quad; ++x) {
        const uint8_t* at = row_ + c * picture_.channel_stride + int64_t{quad * i + x} * picture_.column_stride;
        if (x < inside) result.channel[c] |= static_cast<uint32_t>(__ldg(at)) << (8 * x);
      }
    }
    return result;
  }
  __device__ Quad finish(const Fetched& fetched, int) const { return fetched; }

 private:
  const PictureView& picture_;
  const uint8_t* row_;
};

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

  /// Begins with half a unit, for rounding.
  __device__ explicit Sums(int shift) { sum[0] = 1U << (shift - 1); }
  __device__ void add(uint32_t pixels, const Weights<digits>& weights) {
#pragma unroll
    for (int d = 0; d + 1 < digits; ++d) sum[d] = __dp4a(pixels, weights.word[d], sum[d]);
    // The last digit is signed, the pixels are not: a combination that has no intrinsic.
    asm("dp4a.u32.s32 %0, %1, %2, %0;" : "+r"(sum[digits - 1]) : "r"(pixels), "r"(weights.word[digits - 1]));
  }
  __device__ uint32_t byte(int shift) const {
    uint32_t total = sum[0];
#pragma unroll
    for (int d = 1; d < digits; ++d) total += sum[d] << (8 * d);
    return static_cast<uint32_t>(__vimin_s32_relu(static_cast<int32_t>(total) >> shift, 255));
  }
};

/// Chunk k of row or column i; see AxisWeightsView for the two layouts.
template <int digits>
__device__ Weights<digits> row_weights(const AxisWeightsView& axis, int64_t i, int k) {
  const uint32_t* words = axis.words + (i * axis.chunks + k) * digits;
  Weights<digits> result;
  if constexpr (digits == 2) {
    const uint2 both = __ldg(reinterpret_cast<const uint2*>(words));
    result.word[0] = both.x;
    result.word[1] = both.y;
  } else {
#pragma unroll
    for (int d = 0; d < digits; ++d) result.word[d] = __ldg(words + d);
  }
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

__host__ __device__ inline int element_bytes(Element element) { return element == Element::float32 ? 4 : 2; }

/// What is used of the target: whole patches.
struct Grid {
  int64_t rows;
  int64_t columns;
};
inline Grid grid_of(const PatchesParams& params) {
  return {params.target_height / params.patch, params.target_width / params.patch};
}

/// The first of two passes, in pixels_first_pass.cu. `covered` is what the patches use of the target in the direction
/// of this pass.
cudaError_t launch_first_pass(const PatchesParams& params, const Intermediate& intermediate, int64_t covered,
                              cudaStream_t stream);
/// The second, or the only one: pixels_second_pass.cu.
cudaError_t launch_second_pass(const PatchesParams& params, const Intermediate& scratch, cudaStream_t stream);

}  // namespace oriel::kernels::pixels
