#include "image/alpha.hpp"

#include "image/picture_files.hpp"

namespace oriel::testing {
namespace {

/// All 65,536 pairs of value and alpha as grey-and-alpha pixels of a 256 x 256 picture: row = value, column = alpha.
std::vector<uint8_t> all_pairs() {
  std::vector<uint8_t> pixels;
  for (int value = 0; value < 256; ++value) {
    for (int alpha = 0; alpha < 256; ++alpha) {
      pixels.push_back(static_cast<uint8_t>(value));
      pixels.push_back(static_cast<uint8_t>(alpha));
    }
  }
  return pixels;
}

Image compose_all_pairs(const AlphaPolicy& policy) {
  const std::vector<uint8_t> pixels = all_pairs();
  return Image::from_pixels({pixels.data(), {256, 256}, 2}, {.alpha = policy});
}

TEST(Alpha, CompositeOverWhiteEqualsPillowForAllPairs) {
  EXPECT_TRUE(equals(compose_all_pairs(AlphaPolicy::white()), PictureGoldens::get().load("alpha|white")));
}

TEST(Alpha, CompositeOverAColorEqualsPillowForAllPairs) {
  EXPECT_TRUE(equals(compose_all_pairs(AlphaPolicy::over(0, 37, 200)), PictureGoldens::get().load("alpha|color")));
}

TEST(Alpha, DropKeepsHiddenColors) {
  const uint8_t clear[]{10, 20, 30, 0};
  const Image image = Image::from_pixels({clear, {1, 1}, 4});
  EXPECT_EQ(std::vector<uint8_t>(image.rgb().begin(), image.rgb().end()), (std::vector<uint8_t>{10, 20, 30}));
}

TEST(Alpha, CompositeRoundsToNearestForEveryBackground) {
  for (uint32_t background = 0; background < 256; ++background) {
    for (uint32_t alpha = 0; alpha < 256; alpha += 5) {
      for (uint32_t value = 0; value < 256; value += 3) {
        const uint32_t sum = value * alpha + background * (255 - alpha);
        ASSERT_EQ(image::composite(value, alpha, background), (sum * 2 + 255) / 510)
            << value << " " << alpha << " " << background;
      }
    }
  }
}

}  // namespace
}  // namespace oriel::testing
