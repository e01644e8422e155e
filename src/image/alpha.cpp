#include "image/alpha.hpp"

#include <algorithm>

namespace oriel::image {

void to_rgb(const uint8_t* pixels, int64_t count, int channels, const AlphaPolicy& policy, uint8_t* rgb) {
  if (channels == 3) {
    std::copy_n(pixels, count * 3, rgb);
    return;
  }
  const bool is_grey = channels <= 2;
  const bool composites = channels % 2 == 0 && policy.kind == AlphaPolicy::Kind::composite;
  for (int64_t i = 0; i < count; ++i, pixels += channels, rgb += 3) {
    for (size_t c = 0; c < 3; ++c) {
      const uint8_t value = pixels[is_grey ? 0 : c];
      rgb[c] = composites ? composite(value, pixels[channels - 1], policy.background[c]) : value;
    }
  }
}

Pixels flatten(Pixels pixels, const AlphaPolicy& policy) {
  if (pixels.channels == 3) return pixels;
  Pixels rgb = Pixels::allocate(pixels.size, 3);
  to_rgb(pixels.data.get(), pixels.size.width * pixels.size.height, pixels.channels, policy, rgb.data.get());
  return rgb;
}

}  // namespace oriel::image
