// Image as a value: raw pixels, names, hashes, files.
#include "oriel/image.hpp"

#include <numeric>
#include <utility>

#include "image/picture_files.hpp"

namespace oriel::testing {
namespace {

std::vector<uint8_t> counting(size_t count) {
  std::vector<uint8_t> values(count);
  std::iota(values.begin(), values.end(), uint8_t{0});
  return values;
}

std::vector<uint8_t> rgb_of(const Image& image) { return {image.rgb().begin(), image.rgb().end()}; }

TEST(FromPixels, CopiesRgb) {
  std::vector<uint8_t> pixels = counting(18);
  const Image image = Image::from_pixels({pixels.data(), {3, 2}, 3}, {}, "pixels");
  const std::vector<uint8_t> expected = pixels;
  pixels.assign(18, 99);
  EXPECT_EQ(rgb_of(image), expected);
  EXPECT_EQ(image.size(), (Size{3, 2}));
  EXPECT_EQ(image.name(), "pixels");
}

TEST(FromPixels, SkipsThePaddingOfAStride) {
  const std::vector<uint8_t> pixels = counting(16);
  const Image image = Image::from_pixels({pixels.data(), {2, 2}, 3, 8});
  EXPECT_EQ(rgb_of(image), (std::vector<uint8_t>{0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13}));
}

TEST(FromPixels, ReadsUpwardsWithANegativeStride) {
  const std::vector<uint8_t> pixels = counting(12);
  const Image image = Image::from_pixels({pixels.data() + 6, {2, 2}, 3, -6});
  EXPECT_EQ(rgb_of(image), (std::vector<uint8_t>{6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5}));
}

TEST(FromPixels, DoesNotReadBehindTheLastRow) {
  // Exactly the bytes that are needed: two rows of 6 with 2 between them, and nothing after the second.
  const std::vector<uint8_t> pixels = counting(14);
  EXPECT_EQ(Image::from_pixels({pixels.data(), {2, 2}, 3, 8}).rgb().back(), 13);
}

TEST(FromPixels, RepeatsGrey) {
  const uint8_t grey[]{7, 200};
  EXPECT_EQ(rgb_of(Image::from_pixels({grey, {2, 1}, 1})), (std::vector<uint8_t>{7, 7, 7, 200, 200, 200}));
}

TEST(FromPixels, LaysRgbaOverTheBackground) {
  const uint8_t rgba[]{10, 20, 30, 0, 10, 20, 30, 255};
  const Image image = Image::from_pixels({rgba, {2, 1}, 4}, {.alpha = AlphaPolicy::over(1, 2, 3)});
  EXPECT_EQ(rgb_of(image), (std::vector<uint8_t>{1, 2, 3, 10, 20, 30}));
}

TEST(FromPixels, RefusesArgumentsByName) {
  const std::vector<uint8_t> pixels = counting(64);
  const auto make = [&](Size size, int channels, int64_t stride, const uint8_t* data) {
    return [=] { return Image::from_pixels({data, size, channels, stride}, {}, "frame"); };
  };
  const ErrorCode code = ErrorCode::invalid_argument;
  expect_error(code, "frame: expected 1 to 4 channels, got 5", make({2, 2}, 5, 0, pixels.data()));
  expect_error(code, "frame: expected 1 to 4 channels, got 0", make({2, 2}, 0, 0, pixels.data()));
  expect_error(code, "frame: expected a positive width and height, got 0 x 2", make({0, 2}, 3, 0, pixels.data()));
  expect_error(code, "frame: expected a positive width and height, got 2 x -1", make({2, -1}, 3, 0, pixels.data()));
  expect_error(code, "frame: expected pixels, got a null pointer", make({2, 2}, 3, 0, nullptr));
  expect_error(code, "frame: expected a stride of at least 6 bytes either way (2 pixels of 3 channels), got 5",
               make({2, 2}, 3, 5, pixels.data()));
  expect_error(code, "frame: expected a stride of at least 6 bytes either way (2 pixels of 3 channels), got -5",
               make({2, 2}, 3, -5, pixels.data()));
}

TEST(FromPixels, TestsLimitsBeforeReading) {
  const uint8_t one = 0;
  expect_error(ErrorCode::limit_exceeded,
               "frame: expected sides of at most 65535 pixels (max_side), got 100000 x 100000", [&] {
                 return Image::from_pixels({&one, {100'000, 100'000}, 3}, {}, "frame");
               });
  constexpr int64_t kLargest = std::numeric_limits<int64_t>::max();
  ImageOptions options;
  options.limits.max_side = kLargest;
  expect_error(ErrorCode::limit_exceeded, "frame: 9223372036854775807 * 9223372036854775807 does not fit", [&] {
    return Image::from_pixels({&one, {kLargest, kLargest}, 3}, options, "frame");
  });
}

TEST(Image, CopiesShareTheirPixels) {
  const Image image = Image::open(pictures() / "rgb8.png");
  const Image copy = image;
  EXPECT_EQ(copy.rgb().data(), image.rgb().data());
}

TEST(Image, HasNoPixelsOnceMovedFrom) {
  Image image = Image::open(pictures() / "rgb8.png");
  const Image other = std::move(image);
  EXPECT_FALSE(other.rgb().empty());
  EXPECT_TRUE(image.rgb().empty());  // NOLINT(bugprone-use-after-move): this is what is tested
}

TEST(Image, HashDependsOnPixelsAndSizeAlone) {
  const Image file = Image::open(pictures() / "rgb8.png");
  const Image pixels = Image::from_pixels({file.rgb().data(), file.size(), 3}, {}, "other");
  EXPECT_EQ(file.content_hash(), pixels.content_hash());

  std::vector<uint8_t> changed = rgb_of(file);
  changed[100] ^= 1;
  EXPECT_NE(Image::from_pixels({changed.data(), file.size(), 3}).content_hash(), file.content_hash());
  const Size turned{file.size().height, file.size().width};
  EXPECT_NE(Image::from_pixels({file.rgb().data(), turned, 3}).content_hash(), file.content_hash());
}

TEST(Image, CropsArePartsOfThePixels) {
  std::vector<uint8_t> bytes(5 * 3 * 3);
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  const Image image = Image::from_pixels({bytes.data(), {5, 3}}, {}, "five");
  const Image part = image.crop({3, 1, {2, 2}});
  EXPECT_EQ(part.size(), (Size{2, 2}));
  EXPECT_EQ(std::vector(part.rgb().begin(), part.rgb().end()),
            (std::vector<uint8_t>{24, 25, 26, 27, 28, 29, 39, 40, 41, 42, 43, 44}));
  EXPECT_EQ(image.crop({0, 0, {5, 3}}).content_hash(), image.content_hash());
  for (const Rect& bad :
       {Rect{4, 1, {2, 2}}, Rect{-1, 0, {2, 2}}, Rect{0, 2, {1, 2}}, Rect{0, 0, {0, 1}}, Rect{0, INT64_MAX, {1, 1}}})
    EXPECT_THROW((void)image.crop(bad), Error);
  expect_error(ErrorCode::invalid_argument, "five: expected a part of 5 x 3 pixels, got 2 x 2 at (4, 1)", [&] {
    (void)image.crop({4, 1, {2, 2}});
  });
}

TEST(Image, DecodedBytesEqualTheOpenedFile) {
  const Image decoded = Image::decode(read_picture("420.jpg"), {}, "upload");
  EXPECT_EQ(decoded.name(), "upload");
  const Image opened = Image::open(pictures() / "420.jpg");
  EXPECT_EQ(opened.name(), (pictures() / "420.jpg").string());
  EXPECT_EQ(decoded.content_hash(), opened.content_hash());
}

TEST(Image, MissingFilesAreNamed) {
  const auto open = [] { return Image::open("no/such/picture.jpg"); };
  expect_error(ErrorCode::file_error,
               "no/such/picture.jpg: expected a picture file, and there is none (No such file or directory)", open);
}

TEST(Image, DirectoriesAndDevicesAreNoPictures) {
  const std::string folder = pictures().string();
  expect_error(ErrorCode::file_error, folder + ": expected a picture file, got something that is not a regular file",
               [&] { return Image::open(folder); });
  expect_error(ErrorCode::file_error, "/dev/zero: expected a picture file, got something that is not a regular file",
               [] { return Image::probe("/dev/zero"); });
}

}  // namespace
}  // namespace oriel::testing
