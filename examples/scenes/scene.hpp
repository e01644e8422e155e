#pragma once
// Generated pictures about which questions have one right answer: a few shapes and a character on a textured ground.
//
// Whole numbers only, and a random generator of its own: a seed gives the same pixels on every machine. Needs the
// standard library alone. Lengths are in 1/64 of a pixel unless a name says pixels.
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace scenes {

/// splitmix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next();
  /// From 0 to count - 1.
  int below(int count);
  /// From `first` to `last`, both included.
  int between(int first, int last);
  bool chance(int percent) { return below(100) < percent; }

 private:
  uint64_t state_;
};

inline constexpr int unit = 64;  // one pixel

inline constexpr std::array<std::string_view, 5> shape_names{"circle", "square", "triangle", "star", "ring"};
inline constexpr std::array<std::string_view, 8> colour_names{"red",  "orange", "yellow", "green",
                                                              "blue", "purple", "black",  "white"};
/// Without O and I, which look like 0 and 1.
inline constexpr std::string_view characters = "0123456789ABCDEFGHJKLMNPQRSTUVWXYZ";
inline constexpr int character_shape = static_cast<int>(shape_names.size());

struct Point {
  int x = 0;
  int y = 0;
};

struct Box {
  int left = 0;
  int top = 0;
  int right = 0;
  int bottom = 0;
};

using Rgb = std::array<uint8_t, 3>;

struct Object {
  int shape = 0;      // into shape_names, or character_shape
  int colour = 0;     // into colour_names
  int character = 0;  // into characters, of a character alone
  Point centre;
  int size = 0;  // of a shape its radius, of a character half its height
  int tilt = 0;  // in steps of 3 degrees
  Rgb paint{};   // the colour, a little off
};

struct Background {
  Rgb base{};
  int texture = 0;
  int strength = 0;   // of the texture, in grey levels
  int spacing = 1;    // of the texture, in pixels
  Point direction{};  // of stripes and gradients
  uint32_t seed = 0;
};

struct Scene {
  int width_pixels = 0;
  int height_pixels = 0;
  Background background;
  std::vector<Object> objects;  // shapes in the order of shape_names and colour_names, then the character
};

struct SceneOptions {
  int max_shapes = 4;
  int character_percent = 60;
};

/// No two objects touch, or look alike in shape and colour. Sides from 48 to 4096 pixels.
Scene make_scene(Random& random, int width_pixels, int height_pixels, const SceneOptions& options = {});

/// The frames of a clip in which the first object, a shape, goes one way and all else stands.
struct Clip {
  std::vector<Scene> frames;
  int direction = 0;  // into direction_names
};
inline constexpr std::array<std::string_view, 4> direction_names{"left", "right", "up", "down"};
Clip make_clip(Random& random, int width_pixels, int height_pixels, int frame_count);

/// The smallest box around an object.
Box box_of(const Object& object);

/// Rows of RGB pixels.
std::vector<uint8_t> draw(const Scene& scene);
/// The same into `pixels` [height, width, 3].
void draw(const Scene& scene, uint8_t* pixels);

}  // namespace scenes
