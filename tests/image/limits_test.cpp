// Limits are read off the header: the files of these tests hold no pixels at all.
#include "image/picture_files.hpp"

namespace oriel::testing {
namespace {

void put(ByteVector& bytes, size_t at, std::initializer_list<int> values) {
  for (const int value : values) bytes.at(at++) = static_cast<std::byte>(value);
}

uint32_t crc32(const ByteVector& bytes, size_t at, size_t count) {
  uint32_t crc = ~0U;
  for (size_t i = at; i < at + count; ++i) {
    crc ^= std::to_integer<uint32_t>(bytes[i]);
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320U : crc >> 1;
  }
  return ~crc;
}

/// A picture of the tests with another size written into its header.
ByteVector png_of(uint32_t width, uint32_t height) {
  ByteVector file = read_picture("rgb8.png");
  for (size_t i = 0; i < 4; ++i) {
    file[16 + i] = static_cast<std::byte>(width >> (24 - 8 * i));
    file[20 + i] = static_cast<std::byte>(height >> (24 - 8 * i));
  }
  const uint32_t crc = crc32(file, 12, 17);
  for (size_t i = 0; i < 4; ++i) file[29 + i] = static_cast<std::byte>(crc >> (24 - 8 * i));
  return file;
}

ByteVector jpeg_of(int width, int height) {
  ByteVector file = read_picture("444.jpg");
  for (size_t at = 2;;) {
    const int marker = std::to_integer<int>(file.at(at + 1));
    if (marker == 0xC0) {
      put(file, at + 5, {height >> 8, height & 255, width >> 8, width & 255});
      return file;
    }
    at += 2 + std::to_integer<size_t>(file.at(at + 2)) * 256 + std::to_integer<size_t>(file.at(at + 3));
  }
}

ByteVector gif_of(int width, int height) {
  ByteVector file = read_picture("colors7.gif");
  put(file, 6, {width & 255, width >> 8, height & 255, height >> 8});
  return file;
}

ByteVector bmp_of(uint32_t width, uint32_t height) {
  ByteVector file = read_picture("rgb24.bmp");
  for (int i = 0; i < 4; ++i) {
    file[18 + static_cast<size_t>(i)] = static_cast<std::byte>(width >> (8 * i));
    file[22 + static_cast<size_t>(i)] = static_cast<std::byte>(height >> (8 * i));
  }
  return file;
}

ByteVector webp_of(uint32_t width, uint32_t height) {
  ByteVector file = read_picture("lossy_alpha.webp");
  for (int i = 0; i < 3; ++i) {
    file[24 + static_cast<size_t>(i)] = static_cast<std::byte>((width - 1) >> (8 * i));
    file[27 + static_cast<size_t>(i)] = static_cast<std::byte>((height - 1) >> (8 * i));
  }
  return file;
}

/// Both the probe and the decoder stop, with the same words.
void expect_refused(ErrorCode code, const std::string& text, const ByteVector& file, const ImageLimits& limits = {}) {
  expect_error(code, text, [&] { return Image::probe(file, limits, "big"); });
  expect_error(code, text, [&] { return Image::decode(file, {.limits = limits}, "big"); });
}

TEST(Limits, AHeaderOf100000By100000IsRefusedUnread) {
  const std::string text = ": expected sides of at most 65535 pixels (max_side), got 100000 x 100000";
  expect_refused(ErrorCode::limit_exceeded, "big: PNG" + text, png_of(100'000, 100'000));
  expect_refused(ErrorCode::limit_exceeded, "big: BMP" + text, bmp_of(100'000, 100'000));
  expect_refused(ErrorCode::limit_exceeded, "big: WebP" + text, webp_of(100'000, 100'000));
}

TEST(Limits, TheLargestSidesAreTooManyPixels) {
  const std::string text = ": expected at most 178956970 pixels (max_pixels), got 65535 x 65535 = 4294836225";
  expect_refused(ErrorCode::limit_exceeded, "big: JPEG" + text, jpeg_of(65'535, 65'535));
  expect_refused(ErrorCode::limit_exceeded, "big: GIF" + text, gif_of(65'535, 65'535));
  expect_refused(ErrorCode::limit_exceeded, "big: PNG" + text, png_of(65'535, 65'535));
}

TEST(Limits, SidesBeyond31BitsAreRefused) {
  expect_refused(ErrorCode::limit_exceeded,
                 "big: PNG: expected sides of at most 65535 pixels (max_side), got 4294967295 x 4294967295",
                 png_of(0xFFFFFFFF, 0xFFFFFFFF));
  expect_refused(ErrorCode::limit_exceeded,
                 "big: BMP: expected sides of at most 65535 pixels (max_side), got 4294967295 x 16777216",
                 bmp_of(0xFFFFFFFF, 0xFF000000));
}

TEST(Limits, ZeroSidesAreMalformed) {
  const std::string text = ": expected a positive width and height, got ";
  expect_refused(ErrorCode::malformed_image, "big: PNG" + text + "0 x 17", png_of(0, 17));
  expect_refused(ErrorCode::malformed_image, "big: PNG" + text + "17 x 0", png_of(17, 0));
  expect_refused(ErrorCode::malformed_image, "big: JPEG" + text + "0 x 17", jpeg_of(0, 17));
  expect_refused(ErrorCode::malformed_image, "big: JPEG" + text + "17 x 0", jpeg_of(17, 0));
  expect_refused(ErrorCode::malformed_image, "big: BMP" + text + "0 x 0", bmp_of(0, 0));
  ByteVector gif = read_picture("no_palette.gif");
  put(gif, 13 + 5, {0, 0});
  expect_refused(ErrorCode::malformed_image, "big: GIF" + text + "0 x 9", gif);
  ByteVector webp = read_picture("lossy.webp");
  put(webp, 26, {0, 0});
  expect_refused(ErrorCode::malformed_image, "big: WebP" + text + "0 x 31", webp);
}

TEST(Limits, CanBeLowered) {
  const ByteVector file = read_picture("rgb8.png");  // 23 x 17
  ImageLimits limits;
  limits.max_side = 22;
  expect_refused(ErrorCode::limit_exceeded, "big: PNG: expected sides of at most 22 pixels (max_side), got 23 x 17",
                 file, limits);
  limits = {};
  limits.max_pixels = 23 * 17 - 1;
  expect_refused(ErrorCode::limit_exceeded, "big: PNG: expected at most 390 pixels (max_pixels), got 23 x 17 = 391",
                 file, limits);
  limits.max_pixels = 23 * 17;
  EXPECT_EQ(Image::decode(file, {.limits = limits}).size(), (Size{23, 17}));
}

TEST(Limits, FilesOfTooManyBytesAreNotRead) {
  const std::filesystem::path path = pictures() / "rgb8.png";
  const auto size = std::filesystem::file_size(path);
  ImageLimits limits;
  limits.max_file_bytes = static_cast<int64_t>(size) - 1;
  const std::string text = ": expected a file of at most " + std::to_string(size - 1) +
                           " bytes (max_file_bytes), got " + std::to_string(size);
  expect_error(ErrorCode::limit_exceeded, path.string() + text, [&] { return Image::open(path, {.limits = limits}); });
  expect_error(ErrorCode::limit_exceeded, path.string() + text, [&] { return Image::probe(path, limits); });
  expect_refused(ErrorCode::limit_exceeded, "big" + text, read_picture("rgb8.png"), limits);
}

TEST(Limits, ASmallFileCannotClaimManyPixels) {
  // 10,000 x 10,000 is inside of the limits; 300 MB of pixels can't come from a kilobyte of deflate.
  const ByteVector file = png_of(10'000, 10'000);
  try {
    static_cast<void>(Image::decode(file, {}, "big"));
    ADD_FAILURE() << "expected an error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::malformed_image);
    EXPECT_NE(std::string(error.what()).find("can't hold 10000 x 10000 pixels"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace oriel::testing
