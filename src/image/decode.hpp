#pragma once
// From the bytes of a file to pixels, as Pillow 13 opens it: spec/resize.md 8.
#include "image/encoded.hpp"
#include "image/pixels.hpp"
#include "oriel/image.hpp"

namespace oriel::image {

/// What the header says. Nothing is allocated. Throws malformed_image, unsupported_image, limit_exceeded.
[[nodiscard]] ImageInfo read_header(Bytes file, const ImageLimits& limits, const std::string& name);

/// Decodes to RGB (or, if `keep_alpha` and info.has_alpha, RGBA) in the stored orientation.
/// `info` comes from read_header on the same bytes.
[[nodiscard]] Pixels decode_pixels(Bytes file, const ImageInfo& info, bool keep_alpha, const std::string& name);

/// What this build was made with; without it, JPEG is decoded by stb_image and WebP is refused (unavailable).
[[nodiscard]] bool has_libjpeg_turbo() noexcept;
[[nodiscard]] bool has_libwebp() noexcept;

/// Throws limit_exceeded naming the limit. Both sides are positive.
void check_limits(Size size, const ImageLimits& limits, const std::string& label);

}  // namespace oriel::image
