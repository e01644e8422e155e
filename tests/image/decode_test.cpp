// Every picture of tests/data/pictures against Pillow's pixels.
#include <cmath>

#include "image/decode.hpp"
#include "image/decode_formats.hpp"
#include "image/picture_files.hpp"

namespace oriel::testing {
namespace {

/// A build without a codec is held to less: see DecodeJpegWithStb, and DecodeErrors for WebP.
bool is_decodable(const Expected& picture) {
  if (picture.format == "webp") return image::has_libwebp();
  if (picture.format == "jpeg") return image::has_libjpeg_turbo();
  return true;
}

class Decode : public ::testing::TestWithParam<Expected> {};

TEST_P(Decode, EqualsPillow) {
  if (!is_decodable(GetParam())) GTEST_SKIP() << "no decoder";
  const Golden golden = PictureGoldens::get().load(GetParam().name + "|rgb");
  EXPECT_TRUE(equals(Image::open(pictures() / GetParam().name, {.exif = ExifPolicy::ignore}), golden));
}

TEST_P(Decode, IsUprightByDefaultAsExifTransposeMakesIt) {
  if (!is_decodable(GetParam())) GTEST_SKIP() << "no decoder";
  const auto& goldens = PictureGoldens::get();
  const std::string upright = GetParam().name + "|upright";
  const Golden golden = goldens.load(goldens.has(upright) ? upright : GetParam().name + "|rgb");
  EXPECT_TRUE(equals(Image::decode(read_picture(GetParam().name)), golden));
}

class DecodeTransparent : public ::testing::TestWithParam<Expected> {};

TEST_P(DecodeTransparent, LaidOverWhiteEqualsAlphaComposite) {
  if (!is_decodable(GetParam())) GTEST_SKIP() << "no decoder";
  const Golden golden = PictureGoldens::get().load(GetParam().name + "|white");
  EXPECT_TRUE(equals(Image::open(pictures() / GetParam().name, {.alpha = AlphaPolicy::white()}), golden));
}

TEST_P(Decode, ProbeReportsWhatPillowReports) {
  const ImageInfo info = Image::probe(pictures() / GetParam().name);
  EXPECT_EQ(info.format, GetParam().format);
  EXPECT_EQ(info.orientation, GetParam().orientation);
  EXPECT_EQ(info.has_alpha, GetParam().has_alpha);
  const Golden golden = PictureGoldens::get().load(GetParam().name + "|rgb");
  EXPECT_EQ(info.stored, golden.size);
  const bool is_turned = info.orientation >= 5;
  EXPECT_EQ(info.upright(), (is_turned ? Size{golden.size.height, golden.size.width} : golden.size));
  EXPECT_EQ(info.upright(ExifPolicy::ignore), golden.size);
}

std::string test_name(const ::testing::TestParamInfo<Expected>& picture) {
  std::string name = picture.param.name;
  std::replace_if(
      name.begin(), name.end(), [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0; }, '_');
  return name;
}

std::vector<Expected> transparent_pictures() {
  std::vector<Expected> pictures = PictureGoldens::get().pictures();
  std::erase_if(pictures, [](const Expected& picture) { return !picture.has_alpha; });
  return pictures;
}

INSTANTIATE_TEST_SUITE_P(Pictures, Decode, ::testing::ValuesIn(PictureGoldens::get().pictures()), test_name);
INSTANTIATE_TEST_SUITE_P(Pictures, DecodeTransparent, ::testing::ValuesIn(transparent_pictures()), test_name);

/// Pillow takes the bytes of such a picture for bits. Here they are indices, as the file says.
TEST(DecodePictures, AnEightBitBmpOfBlackAndWhiteIsNotTakenForBits) {
  ByteVector file = read_picture("grey8_short.bmp");  // whose greys are its indices, some of them 1
  file[46] = std::byte{2};                            // colours in the palette
  std::fill_n(file.begin() + 54 + 4, 3, std::byte{255});
  file[file.size() - 20] = std::byte{1};  // the first pixel of the top row, which comes last
  Golden golden = PictureGoldens::get().load("grey8_short.bmp|rgb");
  for (uint8_t& value : golden.rgb) value = value == 1 ? 255 : 0;
  std::fill_n(golden.rgb.begin(), 3, uint8_t{255});
  EXPECT_TRUE(equals(Image::decode(file), golden));
}

TEST(DecodePictures, CoverEveryFormatOrientationAndTransparency) {
  std::vector<std::string> seen;
  for (const Expected& picture : PictureGoldens::get().pictures()) {
    seen.push_back(picture.format);
    seen.push_back(picture.format + std::to_string(picture.orientation));
    if (picture.has_alpha) seen.push_back(picture.format + " alpha");
  }
  const auto was_seen = [&](const std::string& what) {
    return std::find(seen.begin(), seen.end(), what) != seen.end();
  };
  for (const char* format : {"jpeg", "png", "webp", "bmp", "gif"}) EXPECT_TRUE(was_seen(format)) << format;
  for (int orientation = 1; orientation <= 8; ++orientation) {
    EXPECT_TRUE(was_seen("jpeg" + std::to_string(orientation))) << orientation;
  }
  for (const char* format : {"png", "webp", "bmp", "gif"}) EXPECT_TRUE(was_seen(format + std::string(" alpha")));
}

/// stb_image's JPEG, the fallback of a build without libjpeg-turbo. It rounds otherwise, by up to 3 in these pictures,
/// and spreads colour otherwise in the last columns of 4:2:2: the whole of the allowance for single values.
TEST(DecodeJpegWithStb, ComesCloseToPillow) {
  int compared = 0;
  for (const Expected& picture : PictureGoldens::get().pictures()) {
    if (picture.format != "jpeg" || picture.name.find("cmyk") == 0 || picture.name == "ycck.jpg") continue;
    const ByteVector file = read_picture(picture.name);
    const image::Bytes bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
    const ImageInfo info = image::read_header(bytes, {}, picture.name);
    const image::Pixels pixels = image::decode_jpeg_with_stb(image::Encoded(bytes, picture.name), info);
    const Golden golden = PictureGoldens::get().load(picture.name + "|rgb");
    ASSERT_EQ(pixels.size, golden.size) << picture.name;
    size_t far = 0;
    for (size_t i = 0; i < golden.rgb.size(); ++i) {
      far += std::abs(int{pixels.data[i]} - int{golden.rgb[i]}) > 3 ? 1 : 0;
    }
    const auto columns = static_cast<size_t>(picture.name == "422.jpg" ? 2 : 0);
    EXPECT_LE(far, columns * 3 * static_cast<size_t>(golden.size.height)) << picture.name;
    ++compared;
  }
  EXPECT_GE(compared, 20);
}

TEST(DecodeJpegWithStb, RefusesCmykByName) {
  const ByteVector file = read_picture("cmyk.jpg");
  const image::Bytes bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  const ImageInfo info = image::read_header(bytes, {}, "cmyk.jpg");
  expect_error(ErrorCode::unavailable, "cmyk.jpg: CMYK JPEG needs a build with libjpeg-turbo",
               [&] { return image::decode_jpeg_with_stb(image::Encoded(bytes, "cmyk.jpg"), info); });
}

// A picture of 60,000 x 60,000 in front of the small one, whose size the limits see.
TEST(DecodeJpegWithStb, RefusesASecondFrameOfAnotherSize) {
  ByteVector file = read_picture("444.jpg");
  const ByteVector frame =
      bytes_of({"\xFF\xC0\x00\x11\x08\xEA\x60\xEA\x60\x03\x01\x11\x00\x02\x11\x01\x03\x11\x01", 19});
  file.insert(file.begin() + 2, frame.begin(), frame.end());
  const image::Bytes bytes(reinterpret_cast<const uint8_t*>(file.data()), file.size());
  const ImageInfo info = image::read_header(bytes, {}, "two.jpg");
  expect_error(
      ErrorCode::malformed_image,
      fmt::format("two.jpg: it holds two frames: 60000 x 60000 and {} x {}", info.stored.width, info.stored.height),
      [&] { return image::decode_jpeg_with_stb(image::Encoded(bytes, "two.jpg"), info); });
}

}  // namespace
}  // namespace oriel::testing
