#pragma once
// The inner loops of preprocessing, once for each set of instructions. This header holds plain data only: the files
// that are compiled for AVX must not instantiate code that another file might share.
//
// The idea of the vector versions. A weight is cut into digits that the processor's dot products take: with AVX2 one or
// two of 16 bits (pmaddwd: pairs of taps), with AVX-512 two or three of 8 bits (vpdpbusd: four taps at once, the pixels
// stay bytes). Every digit has its own 32-bit sum; the sums are put together at the end, modulo 2^32, so the result is
// the plain one's, bit for bit, for torchvision's and for Pillow's weights alike.
#include <cstdint>

namespace oriel::image {

/// Rows that the horizontal pass works on at once, to share what it loads for the weights.
inline constexpr int rows_at_once = 4;
/// Output pixels in a group of the horizontal pass.
inline constexpr int pixels_at_once = 4;
/// Bytes that split_channels and emit_patch may read or write behind the end of a plane's row.
inline constexpr int plane_padding = 64;

/// Weights of the horizontal pass. Pixels behind the last one, which fill its group, have zero weights.
struct HorizontalWeights {
  int64_t pixels;          ///< output pixels of a row
  int64_t groups;          ///< of pixels_at_once output pixels
  const int32_t* first;    ///< [groups * pixels_at_once] input pixel under the first tap
  const int32_t* words;    ///< packed weights, see resize_packing.hpp
  const uint8_t* indices;  ///< AVX-512, narrow: [groups, 64], where each byte of the work register comes from
  int32_t chunks;          ///< steps over the taps of a pixel
  int32_t digits;          ///< of a weight
  int32_t shift;
  int64_t ahead;  ///< bytes from each row to the one that will come next, to be fetched early; 0: none
  bool wide;      ///< AVX-512: a group's pixels lie too far apart for one register, each pixel walks its taps alone
};

/// Weights of the vertical pass.
struct VerticalWeights {
  const int32_t* words;  ///< packed weights, see resize_packing.hpp
  int32_t chunks;
  int32_t digits;
  int32_t shift;
};

/// How the bytes of one channel become floats.
struct ByteToFloat {
  const float* table;  ///< [256] the values
  /// Whether this gives the table's bits for every byte u (it is tested when the struct is made):
  /// x = fma(u, scale_high, u * scale_low) - mean; q = x * reciprocal; value = fma(fma(-q, divisor, x), reciprocal, q).
  /// The last step makes the quotient the correctly rounded one (Markstein).
  bool computable;
  float scale_high;
  float scale_low;
  float mean;
  float divisor;
  float reciprocal;
};

/// Where the values of a patch come from and go to.
struct PatchLayout {
  int64_t patch;           ///< side in pixels
  int64_t plane_stride;    ///< bytes from a channel to the next, in the planes
  int64_t row_stride;      ///< bytes from a row to the next, in the planes
  int64_t channel_stride;  ///< floats from a channel to the next, in the patch row
  int64_t copies;          ///< how many temporal slots get these pixels, patch * patch floats apart
  ByteToFloat channels[3];
};

/// Finished floats on their way past the caches, for results that do not fit into them.
struct Stream {
  const float* from = nullptr;
  float* to = nullptr;
  int64_t count = 0;
};

struct Kernels {
  /// Resizes `rows_at_once` rows of RGB to groups [begin, end). source[r] points at byte `source_start` of row r.
  /// The vector versions read whole registers, HorizontalPass knows how far; the pixels are written exactly.
  void (*horizontal)(const HorizontalWeights& weights, int64_t begin, int64_t end, const uint8_t* const* source,
                     int64_t source_start, uint8_t* const* target);
  /// Writes `bytes` bytes of output row y. rows[j] is the input row under tap j, for all taps of all chunks.
  void (*vertical)(const VerticalWeights& weights, int64_t y, const uint8_t* const* rows, int64_t bytes,
                   uint8_t* target);
  /// Takes interleaved RGB apart; may write up to plane_padding bytes behind each plane's pixels, but reads exactly.
  void (*split_channels)(const uint8_t* rgb, int64_t pixels, uint8_t* const* planes);
  /// Writes one patch: floats in order channel, slot, y, x. `planes` points at its top left pixel in the first plane.
  /// In between it moves all of `behind`, an earlier patch, so that memory takes its lines while this one is computed.
  void (*emit_patch)(const PatchLayout& layout, const uint8_t* planes, float* row, const Stream& behind);
  /// Moves all of it. Call finish_stream before others may read.
  void (*stream)(const Stream& floats);
  void (*finish_stream)();
};

extern const Kernels plain_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
#endif

}  // namespace oriel::image
