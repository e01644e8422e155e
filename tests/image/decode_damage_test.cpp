// Damaged, cut and hostile files: an Error that names the file, or a full picture. Run under AddressSanitizer too.
#include <random>

#include "image/decode.hpp"
#include "image/decode_formats.hpp"
#include "image/inflate.hpp"
#include "image/picture_files.hpp"

namespace oriel::testing {
namespace {

constexpr ImageLimits kSmall{.max_side = 4096, .max_pixels = 1 << 20, .max_file_bytes = 1 << 20};

/// True if the bytes gave a picture; false if they gave an Error about the picture. Anything else fails the test.
bool try_decode(const ByteVector& file, const std::string& what) {
  try {
    const Image image = Image::decode(file, {.alpha = AlphaPolicy::white(), .limits = kSmall}, "damaged");
    EXPECT_EQ(image.rgb().size(), static_cast<size_t>(image.size().width * image.size().height * 3)) << what;
    return true;
  } catch (const Error& error) {
    const std::string text = error.what();
    EXPECT_EQ(text.rfind("damaged", 0), 0U) << what << ": " << text;
    EXPECT_EQ(text.find('\n'), std::string::npos) << what << ": " << text;
    EXPECT_NE(error.code(), ErrorCode::internal) << what << ": " << text;
    return false;
  }
}

image::Bytes as_bytes(const ByteVector& file) { return {reinterpret_cast<const uint8_t*>(file.data()), file.size()}; }

/// The same for the fallback decoder.
void try_stb(const ByteVector& file) {
  try {
    const ImageInfo info = image::read_header(as_bytes(file), kSmall, "damaged");
    if (info.format != "jpeg") return;
    static_cast<void>(image::decode_jpeg_with_stb(image::Encoded(as_bytes(file), "damaged"), info));
  } catch (const Error& error) {
    EXPECT_NE(error.code(), ErrorCode::internal) << error.what();
  }
}

constexpr const char* kCut[] = {"17x1.jpg",
                                "orientation6.jpg",
                                "grey_progressive.jpg",
                                "cmyk.jpg",
                                "420_restarts.jpg",
                                "rgb8.png",
                                "palette4_trns.png",
                                "grey16_interlaced.png",
                                "orientation_profile.png",
                                "orientation6.png",
                                "animated.png",
                                "fixed_codes.png",
                                "lossy.webp",
                                "lossless_alpha.webp",
                                "lossy_alpha.webp",
                                "orientation6.webp",
                                "animated_offset.webp",
                                "palette4_13.bmp",
                                "rgb32_bgra.bmp",
                                "rle8.bmp",
                                "rle4.bmp",
                                "rgb16_565.bmp",
                                "colors7.gif",
                                "colors64_interlaced.gif",
                                "offset_transparent.gif"};

TEST(Damage, FilesCutAtAnyByteGiveAnErrorOrTheWholePicture) {
  for (const char* name : kCut) {
    const std::string_view kind = name;
    if (kind.ends_with(".webp") && !image::has_libwebp()) continue;
    if (kind == "cmyk.jpg" && !image::has_libjpeg_turbo()) continue;
    const ByteVector file = read_picture(name);
    const std::vector<uint8_t> whole = [&] {
      const Image image = Image::decode(file, {.alpha = AlphaPolicy::white()});
      return std::vector<uint8_t>(image.rgb().begin(), image.rgb().end());
    }();
    size_t errors = 0;
    for (size_t count = 0; count < file.size(); ++count) {
      const ByteVector cut = first_bytes(file, count);
      const std::string what = std::string(name) + " cut to " + std::to_string(count);
      try_stb(cut);
      if (!try_decode(cut, what)) {
        ++errors;
        continue;
      }
      // A picture that comes out of a cut file is the whole one: only what follows the pixels was missing.
      const Image image = Image::decode(cut, {.exif = ExifPolicy::ignore, .alpha = AlphaPolicy::white()});
      const Image full = Image::decode(file, {.exif = ExifPolicy::ignore, .alpha = AlphaPolicy::white()});
      EXPECT_TRUE(std::equal(image.rgb().begin(), image.rgb().end(), full.rgb().begin(), full.rgb().end())) << what;
    }
    EXPECT_GT(errors, file.size() / 4) << name;
  }
}

TEST(Damage, FlippedBytesNeverCrash) {
  const unsigned seed = 7;
  std::mt19937 random(seed);
  int pictures_left = 0;
  int errors = 0;
  for (const Expected& picture : PictureGoldens::get().pictures()) {
    const ByteVector file = read_picture(picture.name);
    for (int round = 0; round < 60; ++round) {
      ByteVector damaged = file;
      const int flips = 1 + static_cast<int>(random() % 4);
      for (int i = 0; i < flips; ++i) {
        // Half of the damage goes to the first bytes, where sizes and tables are.
        const size_t range = random() % 2 == 0 ? std::min<size_t>(damaged.size(), 64) : damaged.size();
        damaged[random() % range] = static_cast<std::byte>(random());
      }
      try_stb(damaged);
      (try_decode(damaged, picture.name) ? pictures_left : errors) += 1;
    }
  }
  EXPECT_GT(pictures_left, 500);
  EXPECT_GT(errors, 500);
}

void fix_png_checksums(ByteVector& file);

TEST(Damage, FlippedBytesOfPngWithRightChecksumsNeverCrash) {
  std::mt19937 random(11);
  for (const Expected& picture : PictureGoldens::get().pictures()) {
    if (picture.format != "png") continue;
    const ByteVector file = read_picture(picture.name);
    for (int round = 0; round < 60; ++round) {
      ByteVector damaged = file;
      for (int i = 0; i < 2; ++i) damaged[16 + random() % (damaged.size() - 16)] = static_cast<std::byte>(random());
      fix_png_checksums(damaged);
      try_decode(damaged, picture.name);
    }
  }
}

TEST(Damage, RandomDeflateStreamsStayInsideOfTheirBuffers) {
  std::mt19937 random(13);
  for (int round = 0; round < 20'000; ++round) {
    std::vector<uint8_t> input(2 + random() % 80);
    for (uint8_t& byte : input) byte = static_cast<uint8_t>(random());
    input[0] = 0x78;
    input[1] = 0x9C;
    std::vector<uint8_t> output(random() % 300);
    const image::InflateResult result = image::inflate_zlib(input, output);
    EXPECT_LE(result.written, output.size());
  }
}

/// Walks the chunks as far as they make sense and writes the checksum that each one's bytes have.
void fix_png_checksums(ByteVector& file) {
  const auto byte = [&](size_t at) { return std::to_integer<uint32_t>(file[at]); };
  for (size_t at = 8; at + 12 <= file.size();) {
    const size_t length = byte(at) << 24 | byte(at + 1) << 16 | byte(at + 2) << 8 | byte(at + 3);
    if (length > file.size() - at - 12) return;
    uint32_t crc = ~0U;
    for (size_t i = at + 4; i < at + 8 + length; ++i) {
      crc ^= byte(i);
      for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? crc >> 1 ^ 0xEDB88320U : crc >> 1;
    }
    for (size_t i = 0; i < 4; ++i) file[at + 8 + length + i] = static_cast<std::byte>(~crc >> (24 - 8 * i));
    at += 12 + length;
  }
}

// --- the words of single errors ---

void expect_decode_error(ErrorCode code, const std::string& text, const ByteVector& file) {
  expect_error(code, text, [&] { return Image::decode(file, {}, "bad"); });
}

size_t find(const ByteVector& file, std::string_view text) {
  const ByteVector wanted = bytes_of(text);
  const auto found = std::search(file.begin(), file.end(), wanted.begin(), wanted.end());
  EXPECT_NE(found, file.end()) << text;
  return static_cast<size_t>(found - file.begin());
}

TEST(DecodeErrors, NameFilesThatAreNoPictures) {
  const std::string expected = "bad: expected a JPEG, PNG, WebP, BMP or GIF picture, got ";
  expect_decode_error(ErrorCode::malformed_image, expected + "no bytes", {});
  expect_decode_error(ErrorCode::malformed_image, expected + "a file that starts with 3c 68 74 6d 6c 3e",
                      bytes_of("<html>"));
  expect_decode_error(ErrorCode::unsupported_image, expected + "AVIF",
                      bytes_of(std::string_view("\0\0\0\x1c"
                                                "ftypavif",
                                                12)));
  expect_decode_error(ErrorCode::unsupported_image, expected + "TIFF", bytes_of(std::string_view("II*\0data", 8)));
}

TEST(DecodeErrors, NameTheEndOfACutFile) {
  const ByteVector png = read_picture("rgb8.png");
  expect_decode_error(ErrorCode::malformed_image,
                      "bad: PNG: the file ends too early: expected a chunk's data in bytes 16 to 29, got 20 bytes",
                      first_bytes(png, 20));
  const ByteVector jpeg = read_picture("420.jpg");
  expect_decode_error(ErrorCode::malformed_image,
                      "bad: JPEG: the file ends too early: expected a segment in bytes 6 to 20, got 10 bytes",
                      first_bytes(jpeg, 10));
  const ByteVector bmp = read_picture("rgb24.bmp");
  expect_decode_error(ErrorCode::malformed_image,
                      "bad: BMP: the file ends too early: expected the rows in bytes 54 to 579, got 100 bytes",
                      first_bytes(bmp, 100));
}

TEST(DecodeErrors, SayInWhichRowAJpegEnds) {
  if (!image::has_libjpeg_turbo()) GTEST_SKIP() << "stb_image does not say";
  const ByteVector jpeg = read_picture("420.jpg");
  expect_decode_error(ErrorCode::malformed_image, "bad: JPEG: the file ends too early, at row 14 of 43",
                      first_bytes(jpeg, 1600));
  const ByteVector progressive = read_picture("420_progressive.jpg");
  expect_decode_error(ErrorCode::malformed_image, "bad: JPEG: the file ends too early, before the first row",
                      first_bytes(progressive, progressive.size() - 2));
}

TEST(DecodeErrors, NameDamagedPngChunks) {
  for (const char* chunk : {"IHDR", "PLTE", "IDAT"}) {
    ByteVector file = read_picture("palette8.png");
    file[find(file, chunk) + 9] ^= std::byte{1};
    try {
      static_cast<void>(Image::decode(file, {}, "bad"));
      ADD_FAILURE() << chunk;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::malformed_image);
      const std::string start = std::string("bad: PNG: chunk ") + chunk + " is damaged: its checksum is ";
      EXPECT_EQ(std::string(error.what()).rfind(start, 0), 0U) << error.what();
    }
  }
}

TEST(DecodeErrors, NameImpossiblePng) {
  ByteVector file = read_picture("rgb8.png");
  file[24] = std::byte{3};
  fix_png_checksums(file);
  expect_decode_error(ErrorCode::malformed_image, "bad: PNG: no such pixels: colour type 2 with 3 bits", file);
  file = read_picture("palette8.png");
  file[find(file, "PLTE")] = std::byte{'x'};
  fix_png_checksums(file);
  expect_decode_error(ErrorCode::malformed_image, "bad: PNG: the palette (PLTE) is missing", file);
  file = read_picture("rgb8.png");
  file[find(file, "IDAT") + 20] ^= std::byte{0x10};
  fix_png_checksums(file);
  EXPECT_FALSE(try_decode(file, "IDAT"));
}

TEST(DecodeErrors, NameKindsOfJpegThatAreRefused) {
  ByteVector file = read_picture("444.jpg");
  const size_t frame = find(file, std::string_view("\xff\xc0\x00\x11", 4));
  file[frame + 4] = std::byte{12};
  expect_decode_error(ErrorCode::unsupported_image, "bad: JPEG: JPEG with 12 bits for a sample; 8 are supported", file);
  file[frame + 4] = std::byte{8};
  file[frame + 9] = std::byte{2};
  expect_decode_error(ErrorCode::unsupported_image,
                      "bad: JPEG: JPEG with 2 components; 1 (grey), 3 (colour) and 4 (CMYK) are supported", file);
  file[frame + 9] = std::byte{3};
  file[frame + 1] = std::byte{0xC3};
  expect_decode_error(ErrorCode::unsupported_image, "bad: JPEG: lossless JPEG", file);
}

TEST(DecodeErrors, RefuseJpegWithHundredsOfScans) {
  const ByteVector file = read_picture("grey_progressive.jpg");
  // The last scan, repeated: each copy refines the same bits again.
  const std::string_view start("\xff\xda", 2);
  const ByteVector wanted = bytes_of(start);
  const auto last = std::find_end(file.begin(), file.end(), wanted.begin(), wanted.end());
  ByteVector many(file.begin(), last);
  for (int i = 0; i < 300; ++i) many.insert(many.end(), last, file.end() - 2);
  many.insert(many.end(), file.end() - 2, file.end());
  expect_decode_error(ErrorCode::limit_exceeded, "bad: JPEG: expected at most 100 scans", many);
  const ImageInfo info = image::read_header(as_bytes(many), {}, "bad");
  expect_error(ErrorCode::limit_exceeded, "bad: expected at most 100 scans",
               [&] { return image::decode_jpeg_with_stb(image::Encoded(as_bytes(many), "bad"), info); });
}

TEST(DecodeErrors, NameKindsOfBmpThatAreRefused) {
  ByteVector file = read_picture("rgb24.bmp");
  file[28] = std::byte{2};
  expect_decode_error(ErrorCode::unsupported_image, "bad: BMP: 2 bits for a pixel; 1, 4, 8, 16, 24 and 32 are known",
                      file);
  file = read_picture("rgb24.bmp");
  file[30] = std::byte{4};
  expect_decode_error(ErrorCode::unsupported_image, "bad: BMP: JPEG data inside of a BMP", file);
  file = read_picture("rgb16_565.bmp");
  file[55] = std::byte{0xF0};
  expect_decode_error(ErrorCode::unsupported_image,
                      "bad: BMP: 16 bits with the channel masks 0000f000, 000007e0, 0000001f, 00000000", file);
  file = read_picture("rgb24.bmp");
  file[14] = std::byte{41};
  expect_decode_error(ErrorCode::unsupported_image,
                      "bad: BMP: a header of 41 bytes; 12, 40, 52, 56, 64, 108 and 124 are known", file);
}

TEST(DecodeErrors, NameABmpWithTooManyColors) {
  ByteVector file = read_picture("palette8_few.bmp");
  file[48] = std::byte{1};
  expect_decode_error(ErrorCode::malformed_image, "bad: BMP: expected a palette of at most 256 entries, got 65566",
                      file);
}

TEST(DecodeErrors, NameDamagedGif) {
  ByteVector file = read_picture("no_palette.gif");
  const size_t code_size = 13 + 10;
  file[code_size] = std::byte{13};
  expect_decode_error(ErrorCode::malformed_image, "bad: GIF: expected a code size of 1 to 8 bits, got 13", file);
  expect_decode_error(ErrorCode::malformed_image, "bad: GIF: the file holds no frame",
                      bytes_of(std::string_view("GIF89a\x08\x00\x08\x00\x00\x00\x00;", 14)));
}

TEST(DecodeErrors, NameAFrameThatLeavesItsWebpCanvas) {
  if (!image::has_libwebp()) {
    expect_decode_error(ErrorCode::unavailable, "bad: WebP: this build has no libwebp", read_picture("lossy.webp"));
    return;
  }
  ByteVector file = read_picture("animated_offset.webp");
  file[find(file, "ANMF") + 8] = std::byte{200};
  expect_decode_error(ErrorCode::malformed_image,
                      "bad: WebP: a frame of 13 x 9 pixels at (400, 4) leaves the canvas of 31 x 20", file);
}

}  // namespace
}  // namespace oriel::testing
