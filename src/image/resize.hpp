#pragma once
// Resizing 8-bit RGB pictures exactly as torchvision and Pillow do: spec/resize.md 2 to 4.
#include <cstdint>

#include "core/thread_pool.hpp"
#include "oriel/types.hpp"

namespace oriel::image {

enum class Filter { box, bilinear, hamming, bicubic, lanczos };

/// Whose integers: torchvision's uint8 path (int16 weights, horizontal pass first), Pillow 13's (22-bit weights, its
/// choice of pass order), or Pillow's up to 12.3 (horizontal first). Box and hamming exist in Pillow only.
enum class ResizeArithmetic { torchvision, pillow, pillow12 };

/// Which instructions to use: avx2 means AVX2 and FMA, avx512 means F, BW, VL, DQ, VBMI and VNNI. `best` asks the
/// processor once; asking for one that it lacks is an error (unavailable). All give the same bytes.
enum class Simd { best, plain, avx2, avx512 };
[[nodiscard]] bool is_supported(Simd simd);

/// RGB pixels in memory that somebody else owns: [height, width, 3] with rows `stride` bytes apart.
struct RgbView {
  const uint8_t* data;
  Size size;
  int64_t stride;
};
struct MutableRgbView {
  uint8_t* data;
  Size size;
  int64_t stride;
};

/// Resizes `source` to the size of `target`; equal sizes copy. The two must not overlap. Rows run in parallel on
/// `pool`. A stride may be negative. Throws invalid_argument for empty sides, null pointers and rows that overlap;
/// unsupported_model for a filter that the arithmetic lacks; limit_exceeded for sides above 2^20 and where a thread's
/// intermediate rows would take more than 1 GiB; unavailable for instructions that the processor lacks.
void resize(const RgbView& source, const MutableRgbView& target, Filter filter, ResizeArithmetic arithmetic,
            const ThreadPool& pool, Simd simd = Simd::best);

}  // namespace oriel::image
