#include "image/orient.hpp"

#include <algorithm>

namespace oriel::image {
namespace {

/// Where the upright pixel (x, y) lies in the stored picture: begin + x * right + y * down, in bytes.
struct Walk {
  int64_t begin;
  int64_t right;
  int64_t down;
};

/// EXIF 2.32, tag 0x0112: the number names the sides that row 0 and column 0 of the stored picture stand for.
Walk walk_of(int orientation, Size stored, int64_t pixel, int64_t row) {
  const int64_t last_column = (stored.width - 1) * pixel;
  const int64_t last_row = (stored.height - 1) * row;
  switch (orientation) {
    case 2:
      return {last_column, -pixel, row};
    case 3:
      return {last_row + last_column, -pixel, -row};
    case 4:
      return {last_row, pixel, -row};
    case 5:
      return {0, row, pixel};
    case 6:
      return {last_row, -row, pixel};
    case 7:
      return {last_row + last_column, -row, -pixel};
    case 8:
      return {last_column, row, -pixel};
    default:
      return {0, pixel, row};
  }
}

}  // namespace

Pixels make_upright(Pixels stored, int orientation) {
  if (orientation <= 1 || orientation > 8) return stored;
  const Size size = orientation >= 5 ? Size{stored.size.height, stored.size.width} : stored.size;
  Pixels upright = Pixels::allocate(size, stored.channels);
  const Walk walk = walk_of(orientation, stored.size, stored.channels, stored.row_bytes());

  // Square tiles: a turned picture reads down columns, and a tile's lines stay in the cache until all are used.
  constexpr int64_t kTile = 64;
  for (int64_t top = 0; top < size.height; top += kTile) {
    for (int64_t left = 0; left < size.width; left += kTile) {
      const int64_t bottom = std::min(top + kTile, size.height);
      const int64_t right = std::min(left + kTile, size.width);
      for (int64_t y = top; y < bottom; ++y) {
        const uint8_t* from = stored.data.get() + walk.begin + left * walk.right + y * walk.down;
        uint8_t* to = upright.row(y) + left * stored.channels;
        for (int64_t x = left; x < right; ++x, from += walk.right) to = std::copy_n(from, stored.channels, to);
      }
    }
  }
  return upright;
}

}  // namespace oriel::image
