#include "outline.hpp"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace scenes {
namespace {

constexpr int steps = 120;         // of 3 degrees, in a full turn
constexpr int cosine_one = 16384;  // what stands for 1 in the table
constexpr int first_quarter[31] = {16384, 16362, 16294, 16182, 16026, 15826, 15582, 15296, 14968, 14598, 14189,
                                   13741, 13255, 12733, 12176, 11585, 10963, 10311, 9630,  8923,  8192,  7438,
                                   6664,  5872,  5063,  4240,  3406,  2563,  1713,  857,   0};

int cosine(int step) {
  step = ((step % steps) + steps) % steps;
  if (step > 60) step = steps - step;
  return step <= 30 ? first_quarter[step] : -first_quarter[60 - step];
}

int sine(int step) { return cosine(step - 30); }

Point around(Point centre, int radius, int step) {
  const auto scaled = [radius](int factor) {
    const int64_t product = int64_t{radius} * factor;
    return static_cast<int>((product + (product < 0 ? -cosine_one / 2 : cosine_one / 2)) / cosine_one);
  };
  return {centre.x + scaled(cosine(step)), centre.y + scaled(sine(step))};
}

/// `corners` corners on a circle, clockwise on the screen; `step` is where the first one stands.
Contour regular(Point centre, int radius, int corners, int step) {
  Contour contour;
  for (int i = 0; i < corners; ++i) contour.push_back(around(centre, radius, step + i * steps / corners));
  return contour;
}

Contour star(Point centre, int radius, int step) {
  Contour contour;
  for (int i = 0; i < 10; ++i)
    contour.push_back(around(centre, i % 2 == 0 ? radius : radius * 105 / 256, step + i * steps / 10));
  return contour;
}

// Strokes of the characters on a grid 4 wide and 6 high, in the order of `characters`: a point is two digits, x and y;
// a blank begins a new stroke.
constexpr std::string_view strokes[] = {
    "15112031352615",                       // 0
    "112026 1636",                          // 1
    "01103041420646",                       // 2
    "0110304142334445361605 1333",          // 3
    "36300444",                             // 4
    "400003334445361605",                   // 5
    "30100105163645443303",                 // 6
    "004016",                               // 7
    "103041423313020110 1304051636454433",  // 8
    "431302011030414536 3616",              // 9
    "0602204246 0444",                      // A
    "0030414233 0600 033344453606",         // B
    "4130100105163645",                     // C
    "00204244260600",                       // D
    "40000646 0333",                        // E
    "400006 0333",                          // F
    "41301001051636454323",                 // G
    "0006 4046 0343",                       // H
    "204045361605",                         // J
    "0006 400346",                          // K
    "000646",                               // L
    "0600234046",                           // M
    "06004640",                             // N
    "06003041423303",                       // P
    "103041453616050110 2446",              // Q
    "06003041423303 2346",                  // R
    "413010010213334445361605",             // S
    "0040 2026",                            // T
    "000516364540",                         // U
    "002640",                               // V
    "0016233640",                           // W
    "0046 4006",                            // X
    "002340 2326",                          // Y
    "00400646",                             // Z
};
static_assert(std::size(strokes) == characters.size());

constexpr int grid_height = 6;
constexpr int pen_corners = 12;

int64_t square_root(int64_t value) {
  int64_t root = 0;
  for (int64_t bit = int64_t{1} << 31; bit > 0; bit >>= 1)
    if ((root + bit) * (root + bit) <= value) root += bit;
  return root;
}

/// The quadrilateral that a pen of this radius covers on its way, clockwise as `regular` goes.
Contour trace(Point from, Point to, int pen) {
  const int64_t dx = to.x - from.x;
  const int64_t dy = to.y - from.y;
  const int64_t length = square_root(dx * dx + dy * dy);
  const int nx = static_cast<int>(-dy * pen / length);
  const int ny = static_cast<int>(dx * pen / length);
  return {{from.x - nx, from.y - ny}, {to.x - nx, to.y - ny}, {to.x + nx, to.y + ny}, {from.x + nx, from.y + ny}};
}

Point turned(Point offset, int step) {
  const auto product = [step](int64_t a, int64_t b) {
    return static_cast<int>((a * cosine(step) + b * sine(step)) / cosine_one);
  };
  return {product(offset.x, -offset.y), product(offset.y, offset.x)};
}

std::vector<Contour> character_outline(const Object& object) {
  const int pen = object.size * 20 / 128;
  const int height = 2 * (object.size - pen);
  std::vector<Contour> contours;
  bool pen_down = false;
  Point last;
  const std::string_view text = strokes[object.character];
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ' ') {
      pen_down = false;
      continue;
    }
    const Point offset{(text[i] - '2') * height / grid_height, (text[i + 1] - '3') * height / grid_height};
    const Point turn = turned(offset, object.tilt);
    const Point point{object.centre.x + turn.x, object.centre.y + turn.y};
    contours.push_back(regular(point, pen, pen_corners, 0));
    if (pen_down) contours.push_back(trace(last, point, pen));
    last = point;
    pen_down = true;
    ++i;
  }
  return contours;
}

constexpr int lines_per_pixel = 4;

struct Crossing {
  int line;
  int x;
  int winding;
};

/// Where the edges cross the sampled lines, line by line from left to right.
std::vector<Crossing> crossings_of(const std::vector<Contour>& contours) {
  constexpr int line_height = unit / lines_per_pixel;
  std::vector<Crossing> crossings;
  for (const Contour& contour : contours) {
    for (size_t i = 0; i < contour.size(); ++i) {
      Point top = contour[i];
      Point bottom = contour[(i + 1) % contour.size()];
      const int winding = top.y < bottom.y ? 1 : -1;
      if (winding < 0) std::swap(top, bottom);
      // Lines stand at y = line * line_height + line_height / 2; an edge holds its upper end and not its lower one.
      const int first = (top.y - line_height / 2 + line_height - 1) / line_height;
      for (int line = first; line * line_height + line_height / 2 < bottom.y; ++line) {
        const int64_t down = line * line_height + line_height / 2 - top.y;
        const int64_t across = int64_t{bottom.x - top.x} * down / (bottom.y - top.y);
        crossings.push_back({line, top.x + static_cast<int>(across), winding});
      }
    }
  }
  std::sort(crossings.begin(), crossings.end(), [](const Crossing& a, const Crossing& b) {
    return a.line != b.line ? a.line < b.line : a.x != b.x ? a.x < b.x : a.winding < b.winding;
  });
  return crossings;
}

/// Adds the part of each pixel that lies between two places of one sampled line.
void cover(std::vector<int>& coverage, int left, int right) {
  const int end = static_cast<int>(coverage.size()) * unit;
  left = std::clamp(left, 0, end);
  right = std::clamp(right, 0, end);
  for (int x = left; x < right;) {
    const int pixel_end = std::min((x / unit + 1) * unit, right);
    coverage[static_cast<size_t>(x / unit)] += pixel_end - x;
    x = pixel_end;
  }
}

void blend(const std::vector<int>& coverage, Rgb paint, uint8_t* row) {
  constexpr int full = unit * lines_per_pixel;
  for (size_t x = 0; x < coverage.size(); ++x)
    if (coverage[x] > 0)
      for (size_t c = 0; c < 3; ++c)
        row[3 * x + c] =
            static_cast<uint8_t>((row[3 * x + c] * (full - coverage[x]) + paint[c] * coverage[x] + full / 2) / full);
}

}  // namespace

std::vector<Contour> outline(const Object& object) {
  const int up = -30 + object.tilt;
  if (object.shape == character_shape) return character_outline(object);
  switch (object.shape) {
    case 0:
      return {regular(object.centre, object.size, steps, 0)};
    case 1:
      return {regular(object.centre, object.size, 4, up + 15)};
    case 2:
      return {regular(object.centre, object.size, 3, up)};
    case 3:
      return {star(object.centre, object.size, up)};
    default:
      break;
  }
  Contour hole = regular(object.centre, object.size * 145 / 256, steps, 0);
  std::reverse(hole.begin(), hole.end());
  return {regular(object.centre, object.size, steps, 0), hole};
}

void fill(const std::vector<Contour>& contours, Rgb paint, int width_pixels, int height_pixels, uint8_t* pixels) {
  const std::vector<Crossing> crossings = crossings_of(contours);
  std::vector<int> coverage(static_cast<size_t>(width_pixels));
  size_t i = 0;
  while (i < crossings.size()) {
    const int row = crossings[i].line / lines_per_pixel;
    std::fill(coverage.begin(), coverage.end(), 0);
    int winding = 0;
    for (; i < crossings.size() && crossings[i].line / lines_per_pixel == row; ++i) {
      winding += crossings[i].winding;
      if (winding != 0) cover(coverage, crossings[i].x, crossings[i + 1].x);
    }
    if (row >= 0 && row < height_pixels) blend(coverage, paint, pixels + ptrdiff_t{3} * row * width_pixels);
  }
}

}  // namespace scenes
