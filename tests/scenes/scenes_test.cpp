// Generated pictures: the same everywhere, as their objects say, with questions that have one answer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <oriel/image.hpp>
#include <set>

#include "scenes/cases.hpp"
#include "scenes/png.hpp"

namespace scenes {
namespace {

constexpr int scene_count = 300;

Scene scene_of(int seed) {
  Random random(static_cast<uint64_t>(seed));
  const int width = random.between(112, 224);
  return make_scene(random, width, random.between(112, 224));
}

/// FNV-1a.
uint64_t hash_of(const std::vector<uint8_t>& bytes) {
  uint64_t hash = 0xCBF29CE484222325ULL;
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001B3ULL;
  return hash;
}

bool is_character(const Object& object) { return object.shape == character_shape; }

TEST(Scenes, AreTheSameOnEveryMachine) {
  std::vector<uint8_t> all;
  for (int seed = 0; seed < 20; ++seed) {
    const std::vector<uint8_t> pixels = draw(scene_of(seed));
    all.insert(all.end(), pixels.begin(), pixels.end());
  }
  // Seen with g++ 12 (-O0, and -O3 for this machine) and clang 14.
  EXPECT_EQ(hash_of(all), 0xA02630ED60E986ECULL);
}

TEST(Scenes, PaintsExactlyWithinTheBoxes) {
  for (int seed = 0; seed < scene_count; ++seed) {
    const Scene scene = scene_of(seed);
    for (size_t i = 0; i < scene.objects.size(); ++i) {
      Scene without = scene;
      without.objects.erase(without.objects.begin() + static_cast<ptrdiff_t>(i));
      const std::vector<uint8_t> a = draw(scene);
      const std::vector<uint8_t> b = draw(without);
      int left = scene.width_pixels, top = scene.height_pixels, right = 0, bottom = 0;
      for (int y = 0; y < scene.height_pixels; ++y) {
        for (int x = 0; x < scene.width_pixels; ++x) {
          const ptrdiff_t at = ptrdiff_t{3} * (y * scene.width_pixels + x);
          if (std::equal(a.begin() + at, a.begin() + at + 3, b.begin() + at)) continue;
          left = std::min(left, x), right = std::max(right, x + 1);
          top = std::min(top, y), bottom = std::max(bottom, y + 1);
        }
      }
      // Within a pixel and a half: the thin point of a star covers so little of its last pixel that it shows no change.
      const Box box = box_of(scene.objects[i]);
      EXPECT_NEAR(left * unit, box.left, unit * 3 / 2) << "seed " << seed << ", object " << i;
      EXPECT_NEAR(top * unit, box.top, unit * 3 / 2) << "seed " << seed << ", object " << i;
      EXPECT_NEAR(right * unit, box.right, unit * 3 / 2) << "seed " << seed << ", object " << i;
      EXPECT_NEAR(bottom * unit, box.bottom, unit * 3 / 2) << "seed " << seed << ", object " << i;
    }
  }
}

TEST(Scenes, ObjectsAreApartAndUnlike) {
  for (int seed = 0; seed < scene_count; ++seed) {
    const Scene scene = scene_of(seed);
    std::set<std::pair<int, int>> looks;
    for (const Object& object : scene.objects) {
      EXPECT_TRUE(looks.emplace(object.shape, object.colour).second) << "seed " << seed;
      const Box a = box_of(object);
      EXPECT_TRUE(a.left >= 0 && a.top >= 0 && a.right <= scene.width_pixels * unit &&
                  a.bottom <= scene.height_pixels * unit)
          << "seed " << seed;
      for (const Object& other : scene.objects) {
        if (&other == &object) continue;
        const int64_t dx = object.centre.x - other.centre.x;
        const int64_t dy = object.centre.y - other.centre.y;
        const int64_t distance = object.size + other.size;
        EXPECT_GT(dx * dx + dy * dy, distance * distance) << "seed " << seed;
      }
    }
    EXPECT_THAT(std::count_if(scene.objects.begin(), scene.objects.end(), is_character), testing::Le(1));
  }
}

/// The name of the palette's colour that is nearest to a pixel; the palette is learned from the objects' own paint.
std::string nearest_colour(const uint8_t* pixel) {
  constexpr Rgb palette[] = {{214, 38, 40}, {245, 130, 32}, {248, 214, 40}, {40, 160, 70},
                             {40, 90, 215}, {130, 50, 165}, {24, 24, 26},   {246, 246, 246}};
  size_t nearest = 0;
  int least = 1 << 20;
  for (size_t i = 0; i < std::size(palette); ++i) {
    int distance = 0;
    for (size_t c = 0; c < 3; ++c) distance += std::abs(palette[i][c] - pixel[c]);
    if (distance < least) least = distance, nearest = i;
  }
  return std::string(colour_names[nearest]);
}

TEST(Questions, ColoursAreThoseOfThePixels) {
  int asked = 0;
  for (int seed = 0; seed < scene_count; ++seed) {
    const Scene scene = scene_of(seed);
    const std::vector<uint8_t> pixels = draw(scene);
    Random random(1);
    for (const Question& question : questions_about(scene, Place::words, random)) {
      if (question.kind != Kind::colour) continue;
      for (size_t shape = 0; shape < 4; ++shape) {  // a ring has nothing in its middle
        if (question.question.find(" the " + std::string(shape_names[shape]) + "?") == std::string::npos) continue;
        for (const Object& object : scene.objects) {
          if (object.shape != static_cast<int>(shape)) continue;
          const int at = 3 * (object.centre.y / unit * scene.width_pixels + object.centre.x / unit);
          EXPECT_EQ(question.answer, nearest_colour(&pixels[static_cast<size_t>(at)])) << "seed " << seed;
          ++asked;
        }
      }
    }
  }
  EXPECT_GT(asked, scene_count / 2);
}

TEST(Questions, HaveOneAnswerEach) {
  for (int seed = 0; seed < scene_count; ++seed) {
    const Scene scene = scene_of(seed);
    Random random(static_cast<uint64_t>(seed));
    std::map<std::string, std::string> answers;
    for (const Question& question : questions_about(scene, Place::boxes, random)) {
      const auto [place, is_new] = answers.emplace(question.question, question.answer);
      EXPECT_EQ(place->second, question.answer) << question.question << ", seed " << seed;
    }
  }
}

TEST(Questions, NameWhatTheyCount) {
  Scene scene;
  scene.width_pixels = scene.height_pixels = 200;
  const auto object = [](int shape, int colour, int x, int y) {
    Object made;
    made.shape = shape;
    made.colour = colour;
    made.centre = {x * unit, y * unit};
    made.size = 20 * unit;
    return made;
  };
  scene.objects = {object(0, 0, 30, 30), object(0, 4, 100, 100), object(3, 0, 170, 30),
                   object(character_shape, 6, 170, 170)};
  scene.objects.back().character = 19;  // K
  Random random(0);
  std::map<Kind, std::set<std::string>> answers;
  std::map<std::string, std::string> places;
  for (const Question& question : questions_about(scene, Place::words, random)) {
    answers[question.kind].insert(question.answer);
    if (question.kind == Kind::where)
      places[question.question.substr(question.question.find("the "))] = question.answer;
  }
  EXPECT_THAT(answers[Kind::describe], testing::ElementsAre("a red circle, a blue circle, a red star, the letter K"));
  EXPECT_THAT(answers[Kind::read], testing::ElementsAre("K"));
  EXPECT_THAT(answers[Kind::colour], testing::ElementsAre("black", "red"));  // letter, star
  EXPECT_THAT(answers[Kind::shape], testing::ElementsAre("circle"));         // the blue one
  EXPECT_TRUE(answers[Kind::count].contains("three") && answers[Kind::count].contains("two") &&
              answers[Kind::count].contains("one"));
  std::map<std::string, std::string> without_marks;
  for (const auto& [name, place] : places) without_marks[name.substr(0, name.size() - 1)] = place;
  EXPECT_THAT(without_marks,
              testing::UnorderedElementsAre(
                  testing::Pair("the red circle", "top left"), testing::Pair("the blue circle", "centre"),
                  testing::Pair("the blue shape", "centre"), testing::Pair("the red star", "top right"),
                  testing::Pair("the star", "top right"), testing::Pair("the letter", "bottom right")));
}

TEST(Questions, BoxesAreThousandthsOfThePicture) {
  Scene scene;
  scene.width_pixels = 200;
  scene.height_pixels = 100;
  Object square;
  square.shape = 0;
  square.colour = 0;
  square.centre = {100 * unit, 50 * unit};
  square.size = 20 * unit;
  scene.objects = {square};
  Random random(0);
  for (const Question& question : questions_about(scene, Place::boxes, random)) {
    if (question.kind != Kind::where) continue;
    EXPECT_THAT(question.answer, testing::EndsWith("<|box_start|>(400,300),(600,700)<|box_end|>"));
    EXPECT_THAT(question.answer, testing::StartsWith("<|object_ref_start|>the "));
  }
}

TEST(Clips, OneThingMovesOneWay) {
  std::set<std::string> seen;
  for (int seed = 0; seed < scene_count; ++seed) {
    Random random(static_cast<uint64_t>(seed));
    const Clip clip = make_clip(random, 140, 112, 4);
    ASSERT_EQ(clip.frames.size(), 4U);
    const Point first = clip.frames.front().objects[0].centre;
    const Point last = clip.frames.back().objects[0].centre;
    const int dx = last.x - first.x;
    const int dy = last.y - first.y;
    const std::string way = dx < 0 ? "left" : dx > 0 ? "right" : dy < 0 ? "up" : "down";
    EXPECT_EQ(way, direction_names[static_cast<size_t>(clip.direction)]) << "seed " << seed;
    EXPECT_GT(std::abs(dx) + std::abs(dy), 112 * unit / 4) << "seed " << seed;
    for (size_t i = 1; i < clip.frames[0].objects.size(); ++i) {
      EXPECT_EQ(clip.frames[0].objects[i].centre.x, clip.frames[3].objects[i].centre.x);
      EXPECT_EQ(clip.frames[0].objects[i].centre.y, clip.frames[3].objects[i].centre.y);
    }
    seen.insert(way);
  }
  EXPECT_EQ(seen.size(), direction_names.size());
}

TEST(Cases, DependOnSeedAndNumberAlone) {
  const CaseOptions options{.seed = 5, .kind = Kind::which};
  const Case a = make_case(options, 7);
  make_case(options, 8);
  const Case b = make_case(options, 7);
  EXPECT_EQ(a.questions[0].question, b.questions[0].question);
  EXPECT_EQ(draw(a.pictures[0]), draw(b.pictures[0]));
  EXPECT_NE(draw(a.pictures[0]), draw(make_case({.seed = 6, .kind = Kind::which}, 7).pictures[0]));
  EXPECT_GE(a.pictures.size(), 2U);
  EXPECT_EQ(a.questions[0].kind, Kind::which);
}

TEST(Cases, OfNeighbouringSeedsDiffer) {
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 50; ++seed) seen.insert(hash_of(draw(make_case({.seed = seed}, 0).pictures[0])));
  EXPECT_EQ(seen.size(), 50U);
}

TEST(Png, IsReadAsItWasDrawn) {
  for (const int side : {48, 113, 300}) {  // less and more than one stored block
    Random random(static_cast<uint64_t>(side));
    const Scene scene = make_scene(random, side, 90);
    const std::vector<uint8_t> pixels = draw(scene);
    const std::string file = encode_png(pixels, side, 90);
    const oriel::Image image = oriel::Image::decode(std::as_bytes(std::span(file)));
    EXPECT_EQ(image.size(), (oriel::Size{side, 90}));
    EXPECT_TRUE(std::equal(pixels.begin(), pixels.end(), image.rgb().begin(), image.rgb().end()));
  }
}

}  // namespace
}  // namespace scenes
