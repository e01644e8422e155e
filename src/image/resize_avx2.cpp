// The inner loops for AVX2 and FMA: pairs of taps by pmaddwd, two rows in the two halves of a register.
// Compiled with -mavx2: nothing in here may instantiate code that other files share.
#include "image/resize_kernels.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

#define ORIEL_FMA __attribute__((target("avx2,fma")))

namespace oriel::image {
namespace {

constexpr char z = -1;  // pshufb writes zero

/// Bytes `count` (at most 16) of a register to memory, exactly.
inline void store_bytes(uint8_t* target, __m128i bytes, int count) {
  alignas(16) uint8_t buffer[16];
  _mm_store_si128(reinterpret_cast<__m128i*>(buffer), bytes);
  for (int i = 0; i < count; ++i) target[i] = buffer[i];
}

/// Twelve bytes, the common case of the above.
inline void store_12(uint8_t* target, __m128i bytes) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(target), bytes);
  _mm_storeu_si32(target + 8, _mm_srli_si128(bytes, 8));
}

inline __m256i load_two(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(low))),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(high)), 1);
}

/// Sums of one output pixel in two rows: [R G B -] of each. The digits are put together and rounded down to bytes
/// later.
struct PixelSums {
  __m256i rows01;
  __m256i rows23;
};

template <int Digits>
inline PixelSums sum_taps(const int32_t* words, int32_t chunks, const uint8_t* const* source, int64_t byte,
                          __m256i half) {
  // Words [r0 r1 g0 g1 b0 b1 0 0] of the first two and the last two pixels of a chunk.
  const __m256i front = _mm256_setr_epi8(0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z,  //
                                         0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z);
  const __m256i back = _mm256_setr_epi8(6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z,  //
                                        6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z);
  __m256i sums[Digits][2];
  for (int digit = 0; digit < Digits; ++digit) {
    sums[digit][0] = digit == 0 ? half : _mm256_setzero_si256();
    sums[digit][1] = sums[digit][0];
  }
  for (int32_t chunk = 0; chunk < chunks; ++chunk, byte += 12, words += 2 * Digits) {
    for (int pair = 0; pair < 2; ++pair) {
      const __m256i pixels = load_two(source[2 * pair] + byte, source[2 * pair + 1] + byte);
      const __m256i first = _mm256_shuffle_epi8(pixels, front);
      const __m256i second = _mm256_shuffle_epi8(pixels, back);
      for (int digit = 0; digit < Digits; ++digit) {
        const __m256i a = _mm256_madd_epi16(first, _mm256_set1_epi32(words[2 * digit]));
        const __m256i b = _mm256_madd_epi16(second, _mm256_set1_epi32(words[2 * digit + 1]));
        sums[digit][pair] = _mm256_add_epi32(sums[digit][pair], _mm256_add_epi32(a, b));
      }
    }
  }
  if constexpr (Digits == 2) {
    for (int pair = 0; pair < 2; ++pair) {
      sums[0][pair] = _mm256_add_epi32(sums[0][pair], _mm256_slli_epi32(sums[1][pair], 12));
    }
  }
  return {sums[0][0], sums[0][1]};
}

/// Four pixels of two rows to bytes, [RGB RGB RGB RGB ----] of each row.
inline __m256i to_bytes(__m256i p0, __m256i p1, __m256i p2, __m256i p3, __m128i shift) {
  const __m256i words01 = _mm256_packs_epi32(_mm256_sra_epi32(p0, shift), _mm256_sra_epi32(p1, shift));
  const __m256i words23 = _mm256_packs_epi32(_mm256_sra_epi32(p2, shift), _mm256_sra_epi32(p3, shift));
  const __m256i close_up = _mm256_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, z, z, z, z,  //
                                            0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, z, z, z, z);
  return _mm256_shuffle_epi8(_mm256_packus_epi16(words01, words23), close_up);
}

/// A source of many megabytes comes from memory, in rows too long for the processor to see where they go on.
inline void fetch(const uint8_t* row, int64_t ahead) {
  _mm_prefetch(reinterpret_cast<const char*>(reinterpret_cast<uintptr_t>(row) + static_cast<uintptr_t>(ahead)),
               _MM_HINT_T1);
}

template <int Digits>
void horizontal_with(const HorizontalWeights& weights, int64_t begin, int64_t end, const uint8_t* const* source,
                     int64_t source_start, uint8_t* const* target) {
  const __m256i half = _mm256_set1_epi32(1 << (weights.shift - 1));
  const __m128i shift = _mm_cvtsi32_si128(weights.shift);
  const int64_t words_per_pixel = int64_t{weights.chunks} * Digits * 2;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t pixel = group * pixels_at_once;
    if (weights.ahead != 0) {
      const int64_t byte = 3 * int64_t{weights.first[pixel]} - source_start;
      for (int row = 0; row < rows_at_once; ++row) fetch(source[row] + byte, weights.ahead);
    }
    PixelSums sums[pixels_at_once];
    for (int p = 0; p < pixels_at_once; ++p) {
      sums[p] = sum_taps<Digits>(weights.words + (pixel + p) * words_per_pixel, weights.chunks, source,
                                 3 * int64_t{weights.first[pixel + p]} - source_start, half);
    }
    const __m256i rows01 = to_bytes(sums[0].rows01, sums[1].rows01, sums[2].rows01, sums[3].rows01, shift);
    const __m256i rows23 = to_bytes(sums[0].rows23, sums[1].rows23, sums[2].rows23, sums[3].rows23, shift);
    const __m128i rows[rows_at_once] = {_mm256_castsi256_si128(rows01), _mm256_extracti128_si256(rows01, 1),
                                        _mm256_castsi256_si128(rows23), _mm256_extracti128_si256(rows23, 1)};
    const int64_t left = weights.pixels - pixel;
    for (int row = 0; row < rows_at_once; ++row) {
      if (left >= pixels_at_once) {
        store_12(target[row] + 3 * pixel, rows[row]);
      } else {
        store_bytes(target[row] + 3 * pixel, rows[row], static_cast<int>(3 * left));
      }
    }
  }
}

void horizontal(const HorizontalWeights& weights, int64_t begin, int64_t end, const uint8_t* const* source,
                int64_t source_start, uint8_t* const* target) {
  const auto pass = weights.digits == 1 ? horizontal_with<1> : horizontal_with<2>;
  pass(weights, begin, end, source, source_start, target);
}

/// 32 columns of an output row.
template <int Digits>
inline __m256i sum_rows(const int32_t* words, int32_t chunks, const uint8_t* const* rows, int64_t column, __m256i half,
                        __m128i shift) {
  const __m256i zero = _mm256_setzero_si256();
  __m256i sums[Digits][4];
  for (int digit = 0; digit < Digits; ++digit) {
    for (__m256i& sum : sums[digit]) sum = digit == 0 ? half : zero;
  }
  for (int32_t chunk = 0; chunk < chunks; ++chunk, words += Digits) {
    const __m256i upper = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[2 * chunk] + column));
    const __m256i lower = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[2 * chunk + 1] + column));
    const __m256i left = _mm256_unpacklo_epi8(upper, lower);
    const __m256i right = _mm256_unpackhi_epi8(upper, lower);
    const __m256i pairs[4] = {_mm256_unpacklo_epi8(left, zero), _mm256_unpackhi_epi8(left, zero),
                              _mm256_unpacklo_epi8(right, zero), _mm256_unpackhi_epi8(right, zero)};
    for (int digit = 0; digit < Digits; ++digit) {
      const __m256i weight = _mm256_set1_epi32(words[digit]);
      for (int i = 0; i < 4; ++i) {
        sums[digit][i] = _mm256_add_epi32(sums[digit][i], _mm256_madd_epi16(pairs[i], weight));
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    if constexpr (Digits == 2) sums[0][i] = _mm256_add_epi32(sums[0][i], _mm256_slli_epi32(sums[1][i], 12));
    sums[0][i] = _mm256_sra_epi32(sums[0][i], shift);
  }
  return _mm256_packus_epi16(_mm256_packs_epi32(sums[0][0], sums[0][1]), _mm256_packs_epi32(sums[0][2], sums[0][3]));
}

template <int Digits>
void vertical_with(const VerticalWeights& weights, int64_t y, const uint8_t* const* rows, int64_t bytes,
                   uint8_t* target) {
  constexpr int64_t step = 32;
  const int32_t* words = weights.words + y * weights.chunks * Digits;
  const __m256i half = _mm256_set1_epi32(1 << (weights.shift - 1));
  const __m128i shift = _mm_cvtsi32_si128(weights.shift);
  for (int64_t column = 0; column < bytes; column += step) {
    // The last step is moved back inside the row: some columns are computed twice.
    if (column + step > bytes) column = bytes - step;
    const __m256i result = sum_rows<Digits>(words, weights.chunks, rows, column, half, shift);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target + column), result);
  }
}

void vertical(const VerticalWeights& weights, int64_t y, const uint8_t* const* rows, int64_t bytes, uint8_t* target) {
  if (bytes >= 32) {
    const auto pass = weights.digits == 1 ? vertical_with<1> : vertical_with<2>;
    return pass(weights, y, rows, bytes, target);
  }
  // Too narrow for a register: one column at a time, from the same words.
  const int32_t* words = weights.words + y * weights.chunks * weights.digits;
  for (int64_t column = 0; column < bytes; ++column) {
    int32_t sum = 1 << (weights.shift - 1);
    for (int32_t chunk = 0; chunk < weights.chunks; ++chunk) {
      for (int32_t digit = 0; digit < weights.digits; ++digit) {
        const int32_t word = words[chunk * weights.digits + digit];
        const int32_t upper = rows[2 * chunk][column] * static_cast<int16_t>(word & 0xFFFF);
        const int32_t lower = rows[2 * chunk + 1][column] * (word >> 16);
        sum += (upper + lower) * (digit == 0 ? 1 : 1 << 12);
      }
    }
    const int32_t value = sum >> weights.shift;
    target[column] = static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
  }
}

/// Bytes 3 i + channel of 48 bytes.
inline __m128i pick_channel(const __m128i* rgb, const __m128i* masks) {
  return _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(rgb[0], masks[0]), _mm_shuffle_epi8(rgb[1], masks[1])),
                      _mm_shuffle_epi8(rgb[2], masks[2]));
}

void split_channels(const uint8_t* rgb, int64_t pixels, uint8_t* const* planes) {
  const __m128i red[3] = {_mm_setr_epi8(0, 3, 6, 9, 12, 15, z, z, z, z, z, z, z, z, z, z),
                          _mm_setr_epi8(z, z, z, z, z, z, 2, 5, 8, 11, 14, z, z, z, z, z),
                          _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, z, 1, 4, 7, 10, 13)};
  const __m128i green[3] = {_mm_setr_epi8(1, 4, 7, 10, 13, z, z, z, z, z, z, z, z, z, z, z),
                            _mm_setr_epi8(z, z, z, z, z, 0, 3, 6, 9, 12, 15, z, z, z, z, z),
                            _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, z, 2, 5, 8, 11, 14)};
  const __m128i blue[3] = {_mm_setr_epi8(2, 5, 8, 11, 14, z, z, z, z, z, z, z, z, z, z, z),
                           _mm_setr_epi8(z, z, z, z, z, 1, 4, 7, 10, 13, z, z, z, z, z, z),
                           _mm_setr_epi8(z, z, z, z, z, z, z, z, z, z, 0, 3, 6, 9, 12, 15)};
  const __m128i* const masks[3] = {red, green, blue};
  int64_t pixel = 0;
  for (; pixel + 16 <= pixels; pixel += 16) {
    const auto* from = reinterpret_cast<const __m128i*>(rgb + 3 * pixel);
    const __m128i bytes[3] = {_mm_loadu_si128(from), _mm_loadu_si128(from + 1), _mm_loadu_si128(from + 2)};
    for (int channel = 0; channel < 3; ++channel) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(planes[channel] + pixel), pick_channel(bytes, masks[channel]));
    }
  }
  for (; pixel < pixels; ++pixel) {
    for (int channel = 0; channel < 3; ++channel) planes[channel][pixel] = rgb[3 * pixel + channel];
  }
}

/// Eight bytes to their values; see ByteToFloat for the formula.
ORIEL_FMA inline __m256 to_floats(const uint8_t* bytes, const ByteToFloat& channel) {
  const __m256i integers = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  if (!channel.computable) return _mm256_i32gather_ps(channel.table, integers, 4);
  const __m256 u = _mm256_cvtepi32_ps(integers);
  const __m256 low = _mm256_mul_ps(u, _mm256_set1_ps(channel.scale_low));
  const __m256 scaled = _mm256_fmadd_ps(u, _mm256_set1_ps(channel.scale_high), low);
  const __m256 x = _mm256_sub_ps(scaled, _mm256_set1_ps(channel.mean));
  const __m256 reciprocal = _mm256_set1_ps(channel.reciprocal);
  const __m256 quotient = _mm256_mul_ps(x, reciprocal);
  const __m256 rest = _mm256_fnmadd_ps(quotient, _mm256_set1_ps(channel.divisor), x);
  return _mm256_fmadd_ps(rest, reciprocal, quotient);
}

void stream(const Stream& floats) {
  const float* from = floats.from;
  float* to = floats.to;
  const int64_t count = floats.count;
  // Lines that are shared with what lies before and behind go through the cache.
  int64_t i = 0;
  for (; i < count && (reinterpret_cast<uintptr_t>(to + i) & 63) != 0; ++i) to[i] = from[i];
  for (; i + 16 <= count; i += 16) {
    _mm256_stream_ps(to + i, _mm256_loadu_ps(from + i));
    _mm256_stream_ps(to + i + 8, _mm256_loadu_ps(from + i + 8));
  }
  for (; i < count; ++i) to[i] = from[i];
}

ORIEL_FMA void emit_patch(const PatchLayout& layout, const uint8_t* planes, float* row, const Stream& behind) {
  stream(behind);
  if (layout.patch < 8) return plain_kernels.emit_patch(layout, planes, row, {});
  const int64_t slot_stride = layout.patch * layout.patch;
  for (int channel = 0; channel < 3; ++channel) {
    const ByteToFloat arithmetic = layout.channels[channel];
    for (int64_t y = 0; y < layout.patch; ++y) {
      const uint8_t* bytes = planes + channel * layout.plane_stride + y * layout.row_stride;
      float* out = row + channel * layout.channel_stride + y * layout.patch;
      for (int64_t x = 0; x < layout.patch; x += 8) {
        // The last step is moved back inside the patch.
        if (x + 8 > layout.patch) x = layout.patch - 8;
        const __m256 values = to_floats(bytes + x, arithmetic);
        for (int64_t copy = 0; copy < layout.copies; ++copy) _mm256_storeu_ps(out + copy * slot_stride + x, values);
      }
    }
  }
}

void finish_stream() { _mm_sfence(); }

}  // namespace

const Kernels avx2_kernels = {horizontal, vertical, split_channels, emit_patch, stream, finish_stream};

}  // namespace oriel::image
#endif
