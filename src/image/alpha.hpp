#pragma once
#include "image/pixels.hpp"
#include "oriel/image.hpp"

namespace oriel::image {

/// One channel of a pixel with `alpha` over an opaque background: (value * alpha + background * (255 - alpha)) / 255,
/// rounded to nearest, which is what Pillow's alpha_composite gives over an opaque picture.
[[nodiscard]] constexpr uint8_t composite(uint32_t value, uint32_t alpha, uint32_t background) {
  // Division by 255 that is exact for all sums that occur, 0 to 65,025 + 128.
  const uint32_t sum = value * alpha + background * (255 - alpha) + 128;
  return static_cast<uint8_t>((sum + (sum >> 8)) >> 8);
}

/// `count` pixels of 1 to 4 channels (grey, grey and alpha, RGB, RGBA) to RGB.
void to_rgb(const uint8_t* pixels, int64_t count, int channels, const AlphaPolicy& policy, uint8_t* rgb);

/// RGBA to RGB; RGB is returned as it is.
[[nodiscard]] Pixels flatten(Pixels pixels, const AlphaPolicy& policy);

}  // namespace oriel::image
