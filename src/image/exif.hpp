#pragma once
// The orientation that a camera or an editor wrote into a file, read as Pillow's ImageOps.exif_transpose reads it.
#include <optional>
#include <string_view>

#include "image/encoded.hpp"

namespace oriel::image {

/// The Orientation tag (0x0112) of the first directory of an EXIF block: a TIFF header in either byte order, with or
/// without "Exif\0\0" before it. Nothing if the block is damaged or has no such tag: a picture whose metadata is
/// broken is still a picture. A value that is no orientation (0, 9, a list) gives 1.
[[nodiscard]] std::optional<int> exif_orientation(Bytes exif);

/// The first tiff:Orientation of an XMP packet, as attribute or element.
[[nodiscard]] std::optional<int> xmp_orientation(std::string_view xmp);

/// EXIF if it has the tag, else XMP, else 1.
[[nodiscard]] int choose_orientation(Bytes exif, std::string_view xmp);

}  // namespace oriel::image
