#pragma once
#include <cstdint>
#include <memory>

#include "oriel/types.hpp"

namespace oriel::image {

/// Decoded 8-bit pixels, [height, width, channels] without padding: 3 channels are RGB, 4 are RGBA.
struct Pixels {
  Size size;
  int channels = 3;
  std::shared_ptr<uint8_t[]> data;

  /// Memory is not set to anything: untouched pages of a picture that turns out to be damaged cost nothing.
  /// The caller has checked `size` against the limits.
  [[nodiscard]] static Pixels allocate(Size size, int channels) {
    const auto bytes = static_cast<size_t>(size.width) * static_cast<size_t>(size.height);
    return {size, channels, std::make_shared_for_overwrite<uint8_t[]>(bytes * static_cast<size_t>(channels))};
  }
  [[nodiscard]] int64_t row_bytes() const { return size.width * channels; }
  [[nodiscard]] uint8_t* row(int64_t y) const { return data.get() + y * row_bytes(); }
};

}  // namespace oriel::image
