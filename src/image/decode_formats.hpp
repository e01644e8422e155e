#pragma once
// One pair of functions for each format. A read_*_header checks what it reads but no limits; a decode_* is called with
// the header of the same bytes, inside the limits, and gives RGB or, if asked for and present, RGBA.
#include "image/encoded.hpp"
#include "image/pixels.hpp"
#include "oriel/image.hpp"

namespace oriel::image {

[[nodiscard]] ImageInfo read_jpeg_header(const Encoded& file);
[[nodiscard]] ImageInfo read_png_header(const Encoded& file);
[[nodiscard]] ImageInfo read_webp_header(const Encoded& file);
[[nodiscard]] ImageInfo read_bmp_header(const Encoded& file);
[[nodiscard]] ImageInfo read_gif_header(const Encoded& file);

[[nodiscard]] Pixels decode_jpeg(const Encoded& file, const ImageInfo& info);
[[nodiscard]] Pixels decode_png(const Encoded& file, const ImageInfo& info, bool keep_alpha);
[[nodiscard]] Pixels decode_webp(const Encoded& file, const ImageInfo& info, bool keep_alpha);
[[nodiscard]] Pixels decode_bmp(const Encoded& file, const ImageInfo& info, bool keep_alpha);
[[nodiscard]] Pixels decode_gif(const Encoded& file, const ImageInfo& info, bool keep_alpha);

/// JPEG by stb_image: the fallback of decode_jpeg in a build without libjpeg-turbo. Grey and three-component pictures
/// only; pixels differ from Pillow's in places. Present in every build, so that tests reach it.
[[nodiscard]] Pixels decode_jpeg_with_stb(const Encoded& file, const ImageInfo& info);

/// Size with both sides positive, or malformed_image.
[[nodiscard]] inline Size positive_size(const Encoded& file, int64_t width, int64_t height) {
  if (width <= 0 || height <= 0) file.malformed("expected a positive width and height, got {} x {}", width, height);
  return {width, height};
}

/// Writes 256 palette entries of `channels` bytes over the indices of one row.
void apply_palette(const uint8_t* indices, int64_t count, const uint8_t (*palette)[4], int channels, uint8_t* out);

}  // namespace oriel::image
