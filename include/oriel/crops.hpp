#pragma once
#include <cstdint>

#include <oriel/types.hpp>

namespace oriel {

/// A part of a picture, pixels from its top left corner.
struct Rect {
  int64_t x = 0;
  int64_t y = 0;
  Size size = {};
  friend bool operator==(const Rect&, const Rect&) = default;
};

/// Which pictures are cut, and into how many crops: transformers' pan_and_scan arguments, with its processor's values.
struct CropOptions {
  double min_ratio = 1.2;  ///< long side by short side, from which on a picture is cut
  int64_t min_side = 256;  ///< of a crop, pixels: a picture whose crops would be smaller is not cut
  int64_t max_crops = 4;
};

}  // namespace oriel
