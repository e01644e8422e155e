// The inner loops for AVX-512 with VNNI and VBMI: four taps at once by vpdpbusd, bytes brought into place by vpermb.
// Compiled with -mavx512*: nothing in here may instantiate code that other files share.
//
// A work register of the horizontal pass holds [channel][pixel of the group][tap of the chunk] bytes, the fourth
// channel being idle, so that one 16-byte load, broadcast to all channels, brings the weights. Where a group's pixels
// lie too far apart for one register (wide), it holds [channel][quarter][tap] of one pixel's sixteen taps, and the
// quarters' sums are added at the end.
#include "image/resize_kernels.hpp"

#if defined(__x86_64__)
// g++ 12 takes the undefined operands inside its own intrinsics for uninitialised variables of ours.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

#define ORIEL_VBMI __attribute__((target("avx512vbmi")))

namespace oriel::image {
namespace {

inline __m512i broadcast_words(const int32_t* words) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
}

/// sums[0] + sums[1] * 2^8 + sums[2] * 2^16.
template <int Digits>
inline __m512i join_digits(const __m512i* sums) {
  __m512i joined = sums[Digits - 1];
  for (int digit = Digits - 2; digit >= 0; --digit) {
    joined = _mm512_add_epi32(_mm512_slli_epi32(joined, 8), sums[digit]);
  }
  return joined;
}

/// Takes [channel][pixel] sums of four rows to bytes and writes `pixels` pixels of each row.
ORIEL_VBMI inline void store_group(const __m512i* rows, __m128i shift, int64_t pixels, int64_t byte,
                                   uint8_t* const* target) {
  // From [channel][row][pixel] to [row][pixel][channel], twelve bytes in each quarter.
  const __m512i interleave = _mm512_set_epi8(0, 0, 0, 0, 47, 31, 15, 46, 30, 14, 45, 29, 13, 44, 28, 12,  //
                                             0, 0, 0, 0, 43, 27, 11, 42, 26, 10, 41, 25, 9, 40, 24, 8,    //
                                             0, 0, 0, 0, 39, 23, 7, 38, 22, 6, 37, 21, 5, 36, 20, 4,      //
                                             0, 0, 0, 0, 35, 19, 3, 34, 18, 2, 33, 17, 1, 32, 16, 0);
  const __m512i words01 = _mm512_packs_epi32(_mm512_sra_epi32(rows[0], shift), _mm512_sra_epi32(rows[1], shift));
  const __m512i words23 = _mm512_packs_epi32(_mm512_sra_epi32(rows[2], shift), _mm512_sra_epi32(rows[3], shift));
  const __m512i bytes = _mm512_permutexvar_epi8(interleave, _mm512_packus_epi16(words01, words23));
  const auto mask = static_cast<__mmask16>(pixels >= pixels_at_once ? 0xFFF : (1 << (3 * pixels)) - 1);
  _mm_mask_storeu_epi8(target[0] + byte, mask, _mm512_castsi512_si128(bytes));
  _mm_mask_storeu_epi8(target[1] + byte, mask, _mm512_extracti32x4_epi32(bytes, 1));
  _mm_mask_storeu_epi8(target[2] + byte, mask, _mm512_extracti32x4_epi32(bytes, 2));
  _mm_mask_storeu_epi8(target[3] + byte, mask, _mm512_extracti32x4_epi32(bytes, 3));
}

/// A source of many megabytes comes from memory, in rows too long for the processor to see where they go on.
inline void fetch(const uint8_t* row, int64_t ahead) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(row) + static_cast<uintptr_t>(ahead)),
               _MM_HINT_T1);
}

template <int Digits>
ORIEL_VBMI void horizontal_narrow(const HorizontalWeights& weights, int64_t begin, int64_t end,
                                  const uint8_t* const* source, int64_t source_start, uint8_t* const* target) {
  const __m512i half = _mm512_set1_epi32(1 << (weights.shift - 1));
  const __m128i shift = _mm_cvtsi32_si128(weights.shift);
  const int32_t* words = weights.words + begin * weights.chunks * Digits * 4;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t pixel = group * pixels_at_once;
    const __m512i index = _mm512_loadu_si512(weights.indices + group * 64);
    int64_t byte = 3 * int64_t{weights.first[pixel]} - source_start;
    if (weights.ahead != 0) {
      for (int row = 0; row < rows_at_once; ++row) fetch(source[row] + byte, weights.ahead);
    }
    __m512i sums[rows_at_once][Digits];
    for (auto& row : sums) {
      for (int digit = 0; digit < Digits; ++digit) row[digit] = digit == 0 ? half : _mm512_setzero_si512();
    }
    for (int32_t chunk = 0; chunk < weights.chunks; ++chunk, byte += 12) {
      __m512i taps[Digits];
      for (__m512i& tap : taps) {
        tap = broadcast_words(words);
        words += 4;
      }
      for (int row = 0; row < rows_at_once; ++row) {
        const __m512i bytes = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(source[row] + byte));
        for (int digit = 0; digit < Digits; ++digit) {
          sums[row][digit] = _mm512_dpbusd_epi32(sums[row][digit], bytes, taps[digit]);
        }
      }
    }
    __m512i joined[rows_at_once];
    for (int row = 0; row < rows_at_once; ++row) joined[row] = join_digits<Digits>(sums[row]);
    store_group(joined, shift, weights.pixels - pixel, 3 * pixel, target);
  }
}

/// Adds the four words of each quarter of a, b, c and d: [a b c d] of every quarter.
inline __m512i add_quarters(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

template <int Digits>
ORIEL_VBMI void horizontal_wide(const HorizontalWeights& weights, int64_t begin, int64_t end,
                                const uint8_t* const* source, int64_t source_start, uint8_t* const* target) {
  // Channel c of taps 4 q to 4 q + 3 into word q of quarter c.
  const __m512i index = _mm512_set_epi8(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 47, 44, 41, 38, 35, 32, 29, 26,
                                        23, 20, 17, 14, 11, 8, 5, 2,  //
                                        46, 43, 40, 37, 34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 45, 42, 39, 36, 33,
                                        30, 27, 24, 21, 18, 15, 12, 9, 6, 3, 0);
  const __m512i half = _mm512_set1_epi32(1 << (weights.shift - 1));
  const __m128i shift = _mm_cvtsi32_si128(weights.shift);
  const int64_t words_per_pixel = int64_t{weights.chunks} * Digits * 4;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t pixel = group * pixels_at_once;
    __m512i sums[pixels_at_once][rows_at_once];
    for (int p = 0; p < pixels_at_once; ++p) {
      const int32_t* words = weights.words + (pixel + p) * words_per_pixel;
      int64_t byte = 3 * int64_t{weights.first[pixel + p]} - source_start;
      if (weights.ahead != 0) {
        for (int row = 0; row < rows_at_once; ++row) fetch(source[row] + byte, weights.ahead);
      }
      __m512i digits[rows_at_once][Digits];
      for (auto& row : digits) {
        for (__m512i& sum : row) sum = _mm512_setzero_si512();
      }
      for (int32_t chunk = 0; chunk < weights.chunks; ++chunk, byte += 48, words += 4 * Digits) {
        for (int row = 0; row < rows_at_once; ++row) {
          const __m512i bytes = _mm512_permutexvar_epi8(index, _mm512_loadu_si512(source[row] + byte));
          for (int digit = 0; digit < Digits; ++digit) {
            digits[row][digit] = _mm512_dpbusd_epi32(digits[row][digit], bytes, broadcast_words(words + 4 * digit));
          }
        }
      }
      for (int row = 0; row < rows_at_once; ++row) sums[p][row] = join_digits<Digits>(digits[row]);
    }
    __m512i joined[rows_at_once];
    for (int row = 0; row < rows_at_once; ++row) {
      joined[row] = _mm512_add_epi32(half, add_quarters(sums[0][row], sums[1][row], sums[2][row], sums[3][row]));
    }
    store_group(joined, shift, weights.pixels - pixel, 3 * pixel, target);
  }
}

void horizontal(const HorizontalWeights& weights, int64_t begin, int64_t end, const uint8_t* const* source,
                int64_t source_start, uint8_t* const* target) {
  const auto narrow = weights.digits == 2 ? horizontal_narrow<2> : horizontal_narrow<3>;
  const auto wide = weights.digits == 2 ? horizontal_wide<2> : horizontal_wide<3>;
  (weights.wide ? wide : narrow)(weights, begin, end, source, source_start, target);
}

/// The 64 columns of an output row that `mask` leaves.
template <int Digits>
inline __m512i sum_rows(const int32_t* words, int32_t chunks, const uint8_t* const* rows, int64_t column,
                        __mmask64 mask, __m512i half, __m128i shift) {
  __m512i sums[4][Digits];
  for (auto& quarter : sums) {
    for (int digit = 0; digit < Digits; ++digit) quarter[digit] = digit == 0 ? half : _mm512_setzero_si512();
  }
  for (int32_t chunk = 0; chunk < chunks; ++chunk, rows += 4, words += Digits) {
    const __m512i a = _mm512_maskz_loadu_epi8(mask, rows[0] + column);
    const __m512i b = _mm512_maskz_loadu_epi8(mask, rows[1] + column);
    const __m512i c = _mm512_maskz_loadu_epi8(mask, rows[2] + column);
    const __m512i d = _mm512_maskz_loadu_epi8(mask, rows[3] + column);
    const __m512i ab_low = _mm512_unpacklo_epi8(a, b);
    const __m512i ab_high = _mm512_unpackhi_epi8(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi8(c, d);
    const __m512i cd_high = _mm512_unpackhi_epi8(c, d);
    const __m512i quads[4] = {_mm512_unpacklo_epi16(ab_low, cd_low), _mm512_unpackhi_epi16(ab_low, cd_low),
                              _mm512_unpacklo_epi16(ab_high, cd_high), _mm512_unpackhi_epi16(ab_high, cd_high)};
    for (int digit = 0; digit < Digits; ++digit) {
      const __m512i weight = _mm512_set1_epi32(words[digit]);
      for (int i = 0; i < 4; ++i) sums[i][digit] = _mm512_dpbusd_epi32(sums[i][digit], quads[i], weight);
    }
  }
  __m512i joined[4];
  for (int i = 0; i < 4; ++i) joined[i] = _mm512_sra_epi32(join_digits<Digits>(sums[i]), shift);
  return _mm512_packus_epi16(_mm512_packs_epi32(joined[0], joined[1]), _mm512_packs_epi32(joined[2], joined[3]));
}

template <int Digits>
void vertical_with(const VerticalWeights& weights, int64_t y, const uint8_t* const* rows, int64_t bytes,
                   uint8_t* target) {
  const int32_t* words = weights.words + y * weights.chunks * Digits;
  const __m512i half = _mm512_set1_epi32(1 << (weights.shift - 1));
  const __m128i shift = _mm_cvtsi32_si128(weights.shift);
  for (int64_t column = 0; column < bytes; column += 64) {
    const int64_t left = bytes - column;
    const __mmask64 mask = left >= 64 ? ~uint64_t{0} : (uint64_t{1} << left) - 1;
    const __m512i result = sum_rows<Digits>(words, weights.chunks, rows, column, mask, half, shift);
    _mm512_mask_storeu_epi8(target + column, mask, result);
  }
}

void vertical(const VerticalWeights& weights, int64_t y, const uint8_t* const* rows, int64_t bytes, uint8_t* target) {
  (weights.digits == 2 ? vertical_with<2> : vertical_with<3>)(weights, y, rows, bytes, target);
}

ORIEL_VBMI void split_channels(const uint8_t* rgb, int64_t pixels, uint8_t* const* planes) {
  const __m512i by_channel = _mm512_set_epi8(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 47, 44, 41, 38, 35, 32, 29,
                                             26, 23, 20, 17, 14, 11, 8, 5, 2,  //
                                             46, 43, 40, 37, 34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 45, 42, 39,
                                             36, 33, 30, 27, 24, 21, 18, 15, 12, 9, 6, 3, 0);
  for (int64_t pixel = 0; pixel < pixels; pixel += 16) {
    const int64_t bytes = 3 * (pixels - pixel);
    const __mmask64 mask = (uint64_t{1} << (bytes < 48 ? bytes : 48)) - 1;
    const __m512i sorted = _mm512_permutexvar_epi8(by_channel, _mm512_maskz_loadu_epi8(mask, rgb + 3 * pixel));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[0] + pixel), _mm512_castsi512_si128(sorted));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[1] + pixel), _mm512_extracti32x4_epi32(sorted, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[2] + pixel), _mm512_extracti32x4_epi32(sorted, 2));
  }
}

/// Sixteen bytes to their values; see ByteToFloat for the formula. Without `Scaled`, the factor is one.
template <bool Scaled>
inline __m512 to_floats(const uint8_t* bytes, const ByteToFloat& channel) {
  const __m512i integers = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  if (!channel.computable) return _mm512_i32gather_ps(integers, channel.table, 4);
  __m512 u = _mm512_cvtepi32_ps(integers);
  if (Scaled) {
    const __m512 low = _mm512_mul_ps(u, _mm512_set1_ps(channel.scale_low));
    u = _mm512_fmadd_ps(u, _mm512_set1_ps(channel.scale_high), low);
  }
  const __m512 x = _mm512_sub_ps(u, _mm512_set1_ps(channel.mean));
  const __m512 reciprocal = _mm512_set1_ps(channel.reciprocal);
  const __m512 quotient = _mm512_mul_ps(x, reciprocal);
  const __m512 rest = _mm512_fnmadd_ps(quotient, _mm512_set1_ps(channel.divisor), x);
  return _mm512_fmadd_ps(rest, reciprocal, quotient);
}

/// Moves floats in whole cache lines, some at a time. Lines that are shared with what lies before and behind go through
/// the cache.
class LineMover {
 public:
  explicit LineMover(const Stream& floats) : left_(floats) {
    if (left_.count == 0) return;
    const auto into_line = static_cast<int64_t>((reinterpret_cast<uintptr_t>(left_.to) & 63) / sizeof(float));
    const int64_t head = into_line == 0 ? 0 : 16 - into_line;
    move_part(head < left_.count ? head : left_.count);
  }
  [[nodiscard]] int64_t lines() const { return left_.count / 16; }
  void move_lines(int64_t lines) {
    for (; lines > 0 && left_.count >= 16; --lines, skip(16)) _mm512_stream_ps(left_.to, _mm512_loadu_ps(left_.from));
  }
  void finish() {
    move_lines(lines());
    move_part(left_.count);
  }

 private:
  void move_part(int64_t count) {
    if (count == 0) return;  // a store to no address costs a trap inside the processor even if its mask is empty
    const auto mask = static_cast<__mmask16>((1 << count) - 1);
    _mm512_mask_storeu_ps(left_.to, mask, _mm512_maskz_loadu_ps(mask, left_.from));
    skip(count);
  }
  void skip(int64_t count) {
    left_.from += count;
    left_.to += count;
    left_.count -= count;
  }
  Stream left_;
};

template <bool Scaled>
void emit_patch_as(const PatchLayout& layout, const uint8_t* planes, float* row, const Stream& behind) {
  LineMover mover(behind);
  const int64_t lines_at_once = mover.lines() / (3 * layout.patch) + 1;
  const int64_t slot_stride = layout.patch * layout.patch;
  for (int channel = 0; channel < 3; ++channel) {
    const ByteToFloat arithmetic = layout.channels[channel];
    for (int64_t y = 0; y < layout.patch; ++y) {
      const uint8_t* bytes = planes + channel * layout.plane_stride + y * layout.row_stride;
      float* out = row + channel * layout.channel_stride + y * layout.patch;
      for (int64_t x = 0; x < layout.patch; x += 16) {
        const int64_t left = layout.patch - x;
        const auto mask = static_cast<__mmask16>(left >= 16 ? 0xFFFF : (1 << left) - 1);
        const __m512 values = to_floats<Scaled>(bytes + x, arithmetic);
        for (int64_t copy = 0; copy < layout.copies; ++copy) {
          _mm512_mask_storeu_ps(out + copy * slot_stride + x, mask, values);
        }
      }
      mover.move_lines(lines_at_once);
    }
  }
  mover.finish();
}

void emit_patch(const PatchLayout& layout, const uint8_t* planes, float* row, const Stream& behind) {
  bool scaled = false;
  for (const ByteToFloat& channel : layout.channels) {
    scaled = scaled || channel.scale_high != 1.0F || channel.scale_low != 0.0F;
  }
  (scaled ? emit_patch_as<true> : emit_patch_as<false>)(layout, planes, row, behind);
}

void stream(const Stream& floats) { LineMover(floats).finish(); }

void finish_stream() { _mm_sfence(); }

}  // namespace

const Kernels avx512_kernels = {horizontal, vertical, split_channels, emit_patch, stream, finish_stream};

}  // namespace oriel::image
#endif
