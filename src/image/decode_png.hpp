#pragma once
// What the two files that read PNG share.
#include <array>
#include <string>
#include <vector>

#include "image/encoded.hpp"
#include "oriel/types.hpp"

namespace oriel::image {

/// IHDR.
struct PngLayout {
  enum Color : int { grey = 0, rgb = 2, palette = 3, grey_alpha = 4, rgba = 6 };  // the format's numbers
  Size size;
  int depth = 8;  ///< bits of one sample: 1, 2, 4, 8 or 16
  int color = rgb;
  bool is_interlaced = false;

  [[nodiscard]] bool has_alpha_channel() const { return color == grey_alpha || color == rgba; }
  [[nodiscard]] int samples() const { return color == rgba ? 4 : color == rgb ? 3 : color == grey_alpha ? 2 : 1; }
  [[nodiscard]] int pixel_bits() const { return samples() * depth; }
  /// Bytes of `width` pixels, without the filter's byte.
  [[nodiscard]] int64_t row_bytes(int64_t width) const { return (width * pixel_bits() + 7) / 8; }
};

/// A file taken apart. The spans point into the file.
struct PngParts {
  PngLayout layout;
  uint8_t palette[256][4] = {};  ///< RGBA; entries that the file does not give are black
  bool has_palette = false;
  bool has_transparency = false;  ///< tRNS: alpha in the palette, or a colour key
  std::array<uint16_t, 3> color_key{};
  std::vector<Bytes> data;  ///< IDAT
  Bytes exif;
  std::vector<uint8_t> raw_profile;
  std::string xmp;
};

/// Throws malformed_image. Checksums of IDAT are left out unless `wants_pixels`: a probe needs them not.
[[nodiscard]] PngParts read_png_parts(const Encoded& file, bool wants_pixels);

}  // namespace oriel::image
