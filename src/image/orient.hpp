#pragma once
#include "image/pixels.hpp"

namespace oriel::image {

/// Turns and mirrors a picture so that its EXIF orientation (1 to 8) becomes 1. Orientation 1 returns it as it is.
[[nodiscard]] Pixels make_upright(Pixels stored, int orientation);

}  // namespace oriel::image
