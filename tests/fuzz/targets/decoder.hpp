#pragma once
// The body of the targets that hold one decoder each. The input is the file.
#include <array>
#include <cstring>
#include <new>

#include "fuzz/fuzz.hpp"
#include "image/decode.hpp"
#include "image/decode_formats.hpp"

namespace oriel::fuzz {

/// What fresh memory is filled with. Pixels come from operator new, which is replaced below: a byte that no decoder
/// wrote differs between two runs with different fillings.
inline uint8_t filling = 0;

/// Small, so that many inputs run in a second; limits of this kind are tested before anything is decoded.
inline constexpr ImageLimits decoder_limits{.max_side = 4096, .max_pixels = 1 << 12};

using Decode = image::Pixels (*)(const image::Encoded& file, const ImageInfo& info, bool keep_alpha);

inline size_t size_of(const image::Pixels& pixels) {
  return static_cast<size_t>(pixels.row_bytes()) * static_cast<size_t>(pixels.size.height);
}

inline image::Pixels decode_with(uint8_t fill, Decode decode, const image::Encoded& file, const ImageInfo& info,
                                 bool keep_alpha) {
  filling = fill;
  image::Pixels pixels = decode(file, info, keep_alpha);
  require(pixels.size == info.stored, "the pixels have the size of the header");
  require(pixels.channels == (keep_alpha ? 4 : 3), "RGBA where alpha is kept, else RGB");
  return pixels;
}

/// Decodes twice, with different bytes in fresh memory.
inline image::Pixels decode_twice(Decode decode, const image::Encoded& file, const ImageInfo& info, bool keep_alpha) {
  const image::Pixels first = decode_with(0x00, decode, file, info, keep_alpha);
  image::Pixels second = decode_with(0xFF, decode, file, info, keep_alpha);
  filling = 0;
  require(std::memcmp(first.data.get(), second.data.get(), size_of(first)) == 0, "every byte of the pixels is written");
  return second;
}

inline void run_decoder(Bytes input, ImageInfo (*read_header)(const image::Encoded&), Decode decode) {
  filling = 0;
  const image::Encoded file(input, "picture");
  succeeds([&] {
    const ImageInfo info = read_header(file);
    require(info.stored.width > 0 && info.stored.height > 0, "sides are positive");
    require(info.orientation >= 1 && info.orientation <= 8, "orientations are 1 to 8");
    image::check_limits(info.stored, decoder_limits, file.label());
    const image::Pixels rgb = decode_twice(decode, file, info, false);
    if (!info.has_alpha) return;
    const image::Pixels rgba = decode_twice(decode, file, info, true);
    const int64_t count = rgb.size.width * rgb.size.height;
    for (int64_t i = 0; i < count; ++i)
      require(std::memcmp(rgb.data.get() + 3 * i, rgba.data.get() + 4 * i, 3) == 0,
              "colours do not depend on whether alpha is kept");
  });
}

}  // namespace oriel::fuzz

void* operator new(size_t size) {
  void* memory = std::malloc(size > 0 ? size : 1);
  if (memory == nullptr) throw std::bad_alloc();
  return std::memset(memory, oriel::fuzz::filling, size);
}
void* operator new(size_t size, const std::nothrow_t&) noexcept { return std::malloc(size > 0 ? size : 1); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
