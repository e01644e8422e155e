#include "scene.hpp"

#include <algorithm>
#include <limits>

#include "outline.hpp"

namespace scenes {
namespace {

// Far apart from each other, and from every ground: grounds are grey tones between black and white.
constexpr Rgb paints[] = {{214, 38, 40}, {245, 130, 32}, {248, 214, 40}, {40, 160, 70},
                          {40, 90, 215}, {130, 50, 165}, {24, 24, 26},   {246, 246, 246}};
static_assert(std::size(paints) == colour_names.size());

enum Texture { plain, gradient, stripes, clouds, checks, texture_count };

uint8_t to_byte(int value) { return static_cast<uint8_t>(std::clamp(value, 0, 255)); }

Rgb near(Rgb colour, int distance, Random& random) {
  for (uint8_t& channel : colour) channel = to_byte(channel + random.between(-distance, distance));
  return colour;
}

Background make_background(Random& random, int side_pixels) {
  const auto grey = static_cast<uint8_t>(random.between(100, 168));
  Background background;
  background.base = near({grey, grey, grey}, 18, random);
  background.texture = random.below(texture_count);
  background.strength = random.between(4, 15);
  background.spacing = std::max(3, side_pixels * random.between(4, 24) / 100);
  background.direction = {random.between(-8, 8), random.between(-8, 8)};
  if (background.direction.x == 0 && background.direction.y == 0) background.direction.x = 5;
  background.seed = static_cast<uint32_t>(random.next());
  return background;
}

uint32_t scatter(uint32_t x, uint32_t y, uint32_t seed) {
  uint32_t value = x * 0x9E3779B1U ^ y * 0x85EBCA77U ^ seed;
  value = (value ^ (value >> 15)) * 0x2C1B3C6DU;
  value = (value ^ (value >> 12)) * 0x297A2D39U;
  return value ^ (value >> 15);
}

/// Goes up and down between -256 and 256 with a period of 1024.
int triangle_wave(int phase) {
  const int place = ((phase % 1024) + 1024) % 1024;
  return place < 512 ? place - 256 : 768 - place;
}

/// Smooth random grey between -256 and 256.
int cloud(int x, int y, const Background& background) {
  const int spacing = background.spacing;
  const int column = x / spacing;
  const int row = y / spacing;
  const int fx = (x % spacing) * 256 / spacing;
  const int fy = (y % spacing) * 256 / spacing;
  const auto knot = [&](int dx, int dy) {
    const uint32_t hash = scatter(static_cast<uint32_t>(column + dx), static_cast<uint32_t>(row + dy), background.seed);
    return static_cast<int>(hash & 511) - 256;
  };
  const int top = knot(0, 0) * (256 - fx) + knot(1, 0) * fx;
  const int bottom = knot(0, 1) * (256 - fx) + knot(1, 1) * fx;
  return (top * (256 - fy) + bottom * fy) / 65536;
}

/// The texture at a pixel, between -256 and 256.
int texture_at(int x, int y, const Background& background) {
  const int along = (x * background.direction.x + y * background.direction.y) * 128;
  switch (background.texture) {
    case gradient:
      return triangle_wave(along / (background.spacing * 6));
    case stripes:
      return triangle_wave(along / background.spacing);
    case clouds:
      return cloud(x, y, background);
    case checks:
      return triangle_wave(x * 512 / background.spacing) * triangle_wave(y * 512 / background.spacing) / 256;
    default:
      return 0;
  }
}

void draw_background(const Background& background, int width_pixels, int height_pixels, uint8_t* pixels) {
  for (int y = 0; y < height_pixels; ++y) {
    for (int x = 0; x < width_pixels; ++x) {
      const uint32_t hash = scatter(static_cast<uint32_t>(x), static_cast<uint32_t>(y), ~background.seed);
      const int grain = static_cast<int>(hash % 7) - 3;
      const int tone = texture_at(x, y, background) * background.strength / 256 + grain;
      for (const uint8_t channel : background.base) *pixels++ = to_byte(channel + tone);
    }
  }
}

/// The radius of a circle around an object that holds it whole.
int reach(const Object& object) { return object.shape == character_shape ? object.size * 5 / 4 : object.size; }

bool apart(const Object& a, const Object& b, int gap) {
  const int64_t dx = a.centre.x - b.centre.x;
  const int64_t dy = a.centre.y - b.centre.y;
  const int64_t distance = reach(a) + reach(b) + gap;
  return dx * dx + dy * dy >= distance * distance;
}

class Composer {
 public:
  Composer(Random& random, int width_pixels, int height_pixels) : random_(random) {
    scene_.width_pixels = width_pixels;
    scene_.height_pixels = height_pixels;
    side_ = std::min(width_pixels, height_pixels) * unit;
    scene_.background = make_background(random, side_ / unit);
  }

  Object shape(int smallest_percent, int largest_percent) {
    Object object;
    do {
      object.shape = random_.below(static_cast<int>(shape_names.size()));
      object.colour = random_.below(static_cast<int>(colour_names.size()));
    } while (taken(object));
    object.paint = near(paints[object.colour], 9, random_);
    object.size = side_ / 100 * random_.between(smallest_percent, largest_percent);
    object.tilt = random_.between(-4, 4);
    return object;
  }

  Object character() {
    Object object;
    object.shape = character_shape;
    object.character = random_.below(static_cast<int>(characters.size()));
    object.colour = random_.below(static_cast<int>(colour_names.size()));
    object.paint = near(paints[object.colour], 9, random_);
    object.size = side_ / 100 * random_.between(15, 22);
    object.tilt = random_.between(-2, 2);
    return object;
  }

  /// Finds a free place; false if there seems to be none.
  bool place(Object object) {
    const int margin = reach(object) + unit;
    const int gap = side_ / 24;
    for (int attempt = 0; attempt < 80; ++attempt) {
      object.centre = {random_.between(margin, scene_.width_pixels * unit - margin),
                       random_.between(margin, scene_.height_pixels * unit - margin)};
      const auto free = [&](const Object& other) { return apart(object, other, gap); };
      if (!std::all_of(scene_.objects.begin(), scene_.objects.end(), free)) continue;
      scene_.objects.push_back(object);
      return true;
    }
    return false;
  }

  Scene& scene() { return scene_; }
  int side() const { return side_; }

 private:
  bool taken(const Object& object) const {
    return std::any_of(scene_.objects.begin(), scene_.objects.end(), [&](const Object& other) {
      return other.shape == object.shape && other.colour == object.colour;
    });
  }

  Random& random_;
  Scene scene_;
  int side_ = 0;
};

void sort_objects(Scene& scene) {
  std::sort(scene.objects.begin(), scene.objects.end(), [](const Object& a, const Object& b) {
    return a.shape != b.shape ? a.shape < b.shape : a.colour < b.colour;
  });
}

}  // namespace

uint64_t Random::next() {
  uint64_t value = (state_ += 0x9E3779B97F4A7C15ULL);
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ULL;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBULL;
  return value ^ (value >> 31);
}

int Random::below(int count) { return static_cast<int>(((next() >> 32) * static_cast<uint64_t>(count)) >> 32); }

int Random::between(int first, int last) { return first + below(last - first + 1); }

Scene make_scene(Random& random, int width_pixels, int height_pixels, const SceneOptions& options) {
  Composer composer(random, width_pixels, height_pixels);
  const bool with_character = random.chance(options.character_percent);
  const int shapes = random.between(1, options.max_shapes);
  const int largest = shapes == 1 ? 32 : shapes == 2 ? 26 : 20;
  if (with_character) composer.place(composer.character());
  for (int i = 0; i < shapes; ++i) {
    const Object object = composer.shape(14, largest);
    if (composer.place(object)) continue;
    Object smaller = object;
    smaller.size = composer.side() / 100 * 13;
    composer.place(smaller);
  }
  sort_objects(composer.scene());
  return composer.scene();
}

Clip make_clip(Random& random, int width_pixels, int height_pixels, int frame_count) {
  Composer composer(random, width_pixels, height_pixels);
  Clip clip;
  clip.direction = random.below(static_cast<int>(direction_names.size()));
  const bool sideways = clip.direction < 2;
  const int sign = clip.direction % 2 == 0 ? -1 : 1;
  Object mover = composer.shape(14, 20);
  const int width = width_pixels * unit;
  const int height = height_pixels * unit;
  const int margin = reach(mover) + unit;
  const int room = (sideways ? width : height) - 2 * margin;
  const int path = room * random.between(50, 100) / 100;
  const int start = margin + random.between(0, room - path);
  const int across = random.between(margin, (sideways ? height : width) - margin);
  const auto at = [&](int frame) {
    const int along = start + path * (sign > 0 ? frame : frame_count - 1 - frame) / std::max(1, frame_count - 1);
    return sideways ? Point{along, across} : Point{across, along};
  };
  // What stands beside the path keeps clear of every place on it.
  std::vector<Object> path_places;
  for (int frame = 0; frame < frame_count; ++frame) {
    mover.centre = at(frame);
    path_places.push_back(mover);
  }
  composer.scene().objects = path_places;
  if (random.chance(50)) composer.place(random.chance(50) ? composer.character() : composer.shape(13, 16));
  const std::vector<Object> others(composer.scene().objects.begin() + frame_count, composer.scene().objects.end());
  for (const Object& place : path_places) {
    Scene frame = composer.scene();
    frame.objects = {place};
    frame.objects.insert(frame.objects.end(), others.begin(), others.end());
    clip.frames.push_back(frame);
  }
  return clip;
}

Box box_of(const Object& object) {
  constexpr int far = std::numeric_limits<int>::max();
  Box box{far, far, -far, -far};
  for (const Contour& contour : outline(object)) {
    for (const Point& point : contour) {
      box.left = std::min(box.left, point.x);
      box.top = std::min(box.top, point.y);
      box.right = std::max(box.right, point.x);
      box.bottom = std::max(box.bottom, point.y);
    }
  }
  return box;
}

void draw(const Scene& scene, uint8_t* pixels) {
  draw_background(scene.background, scene.width_pixels, scene.height_pixels, pixels);
  for (const Object& object : scene.objects)
    fill(outline(object), object.paint, scene.width_pixels, scene.height_pixels, pixels);
}

std::vector<uint8_t> draw(const Scene& scene) {
  std::vector<uint8_t> pixels(size_t{3} * static_cast<size_t>(scene.width_pixels) *
                              static_cast<size_t>(scene.height_pixels));
  draw(scene, pixels.data());
  return pixels;
}

}  // namespace scenes
