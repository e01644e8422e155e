#include "image/exif.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace oriel::image {
namespace {

/// A little-endian TIFF block with one directory of the entries given as 12 bytes each.
std::vector<uint8_t> tiff(const std::vector<std::vector<uint8_t>>& entries) {
  std::vector<uint8_t> block{'I', 'I', 42, 0, 8, 0, 0, 0, static_cast<uint8_t>(entries.size()), 0};
  for (const auto& entry : entries) block.insert(block.end(), entry.begin(), entry.end());
  block.insert(block.end(), 4, 0);
  return block;
}

const std::vector<uint8_t> kTurned{0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0};

TEST(Exif, ReadsTheTagInBothByteOrders) {
  EXPECT_EQ(exif_orientation(tiff({kTurned})), 6);
  const std::vector<uint8_t> big{'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 8, 0, 0};
  EXPECT_EQ(exif_orientation(big), 8);
}

TEST(Exif, AcceptsTheJpegPrefixOnceOrTwice) {
  std::vector<uint8_t> block = tiff({kTurned});
  for (int i = 0; i < 2; ++i) {
    block.insert(block.begin(), {'E', 'x', 'i', 'f', 0, 0});
    EXPECT_EQ(exif_orientation(block), 6);
  }
}

TEST(Exif, TakesTheFirstOfTwoTags) {
  std::vector<uint8_t> other = kTurned;
  other[8] = 3;
  EXPECT_EQ(exif_orientation(tiff({kTurned, other})), 6);
}

TEST(Exif, CallsAnImpossibleValueUpright) {
  for (const int value : {0, 9, 255}) {
    std::vector<uint8_t> entry = kTurned;
    entry[8] = static_cast<uint8_t>(value);
    EXPECT_EQ(exif_orientation(tiff({entry})), 1) << value;
  }
  std::vector<uint8_t> list = kTurned;
  list[4] = 2;
  EXPECT_EQ(exif_orientation(tiff({list})), 1);
}

TEST(Exif, IsSilentAboutDamagedBlocks) {
  EXPECT_EQ(exif_orientation({}), std::nullopt);
  std::vector<uint8_t> block = tiff({kTurned});
  block[0] = 'X';
  EXPECT_EQ(exif_orientation(block), std::nullopt);
  block = tiff({kTurned});
  block[2] = 43;  // BigTIFF
  EXPECT_EQ(exif_orientation(block), std::nullopt);
  block = tiff({kTurned});
  block[4] = 200;  // a directory beyond the end
  EXPECT_EQ(exif_orientation(block), std::nullopt);
}

TEST(Exif, NeverReadsBeyondACutBlock) {
  const std::vector<uint8_t> text{0x0F, 1, 2, 0, 20, 0, 0, 0, 26, 0, 0, 0};
  const std::vector<uint8_t> whole = tiff({text, kTurned});
  for (size_t count = 0; count < whole.size(); ++count) {
    const std::vector<uint8_t> cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(count));
    EXPECT_EQ(exif_orientation(cut), std::nullopt) << count;
  }
}

TEST(Exif, SurvivesOffsetsNearTheEndOfTheAddressSpace) {
  std::vector<uint8_t> block = tiff({kTurned});
  for (size_t i = 4; i < 8; ++i) block[i] = 0xFF;
  EXPECT_EQ(exif_orientation(block), std::nullopt);
  const std::vector<uint8_t> far{0x0F, 1, 2, 0, 5, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF};
  EXPECT_EQ(exif_orientation(tiff({far, kTurned})), std::nullopt);
  const std::vector<uint8_t> huge{0x0F, 1, 5, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0};
  EXPECT_EQ(exif_orientation(tiff({huge, kTurned})), 6);
}

TEST(Xmp, ReadsAttributeAndElement) {
  EXPECT_EQ(xmp_orientation("<a tiff:Orientation=\"7\"/>"), 7);
  EXPECT_EQ(xmp_orientation("<tiff:Orientation>2</tiff:Orientation>"), 2);
  EXPECT_EQ(xmp_orientation("tiff:Orientation= 3, then tiff:Orientation=\"4\""), 4);
  EXPECT_EQ(xmp_orientation("tiff:Orientation=\"9\""), 1);
  EXPECT_EQ(xmp_orientation("tiff:Orientation"), std::nullopt);
  EXPECT_EQ(xmp_orientation("tiff:Orientation=\""), std::nullopt);
  EXPECT_EQ(xmp_orientation(""), std::nullopt);
}

TEST(Orientation, PrefersExifAndFallsBackToXmp) {
  EXPECT_EQ(choose_orientation(tiff({kTurned}), "tiff:Orientation=\"3\""), 6);
  EXPECT_EQ(choose_orientation(tiff({}), "tiff:Orientation=\"3\""), 3);
  EXPECT_EQ(choose_orientation({}, ""), 1);
}

}  // namespace
}  // namespace oriel::image
