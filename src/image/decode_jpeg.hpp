#pragma once
#include "image/encoded.hpp"
#include "oriel/image.hpp"

namespace oriel::image {

/// What stands before the first scan of a JPEG.
struct JpegHeader {
  ImageInfo info;
  int components = 0;  ///< 1 grey, 3 colour, 4 CMYK
};

[[nodiscard]] JpegHeader read_jpeg_markers(const Encoded& file);

/// What a frame header of at least five bytes says (ITU T.81 B.2.2), not checked; sides may be 0.
[[nodiscard]] Size frame_size(Bytes frame);

}  // namespace oriel::image
