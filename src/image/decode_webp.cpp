// WebP (https://developers.google.com/speed/webp/docs/riff_container): the container. Pixels are made by libwebp.
#include <algorithm>
#include <optional>

#include "image/decode.hpp"
#include "image/decode_formats.hpp"
#include "image/exif.hpp"

#if ORIEL_HAS_LIBWEBP
#include <webp/decode.h>
#endif

namespace oriel::image {
namespace {

struct Chunk {
  std::string_view type;
  Bytes data;
};

/// The chunk at `at`, which is moved to the next one. Nothing at the end, or where a chunk is cut off.
std::optional<Chunk> next_chunk(Bytes bytes, size_t& at) {
  const Encoded file(bytes, {});
  if (!file.has(at, 8)) return std::nullopt;
  const size_t length = Encoded::little(bytes.subspan(at + 4, 4));
  if (!file.has(at + 8, length)) return std::nullopt;
  const Chunk chunk{{reinterpret_cast<const char*>(bytes.data()) + at, 4}, bytes.subspan(at + 8, length)};
  at += 8 + length + length % 2;
  return chunk;
}

struct Picture {
  Size size;
  bool has_alpha = false;
};

/// RFC 6386 9.1: three bytes of frame tag, a start code, then 14 bits of each side.
Picture read_lossy(const Encoded& file, size_t at) {
  if (!file.has_text(at + 3, "\x9D\x01\x2A")) {
    file.require(at, 10, "the lossy frame header");
    file.malformed("the lossy frame has no start code");
  }
  const int64_t width = file.u16le(at + 6, "the lossy frame header") & 0x3FFF;
  const int64_t height = file.u16le(at + 8, "the lossy frame header") & 0x3FFF;
  return {positive_size(file, width, height), false};
}

/// WebP lossless bitstream, section 3: a signature, 14 bits of each side minus one, and a hint of alpha.
Picture read_lossless(const Encoded& file, size_t at) {
  if (file.u8(at, "the lossless frame header") != 0x2F) file.malformed("the lossless frame has no signature");
  const uint32_t bits = file.u32le(at + 1, "the lossless frame header");
  return {{int64_t{bits & 0x3FFF} + 1, int64_t{bits >> 14 & 0x3FFF} + 1}, (bits >> 28 & 1) != 0};
}

/// The extended header: flags, and 24 bits of each side minus one.
struct Extended {
  enum Flag : int { animation = 0x02, xmp = 0x04, exif = 0x08, alpha = 0x10 };
  int flags = 0;
  Size size;
};

constexpr size_t kFirstChunk = 12;
constexpr size_t kFirstData = kFirstChunk + 8;

/// The file as far as its own length goes; what comes after belongs to something else.
Bytes container(const Encoded& file) {
  const size_t length = size_t{file.u32le(4, "the container's length")} + 8;
  return file.bytes().first(std::min(length, file.size()));
}

Extended read_extended(const Encoded& file) {
  Extended extended;
  extended.flags = file.u8(kFirstData, "the extended header");
  extended.size = {int64_t{file.u24le(kFirstData + 4, "the extended header")} + 1,
                   int64_t{file.u24le(kFirstData + 7, "the extended header")} + 1};
  return extended;
}

ImageInfo read_extended_header(const Encoded& file) {
  const Extended extended = read_extended(file);
  ImageInfo info;
  info.stored = extended.size;
  info.has_alpha = (extended.flags & Extended::alpha) != 0;
  Bytes exif;
  std::string_view xmp;
  size_t at = kFirstChunk;
  while (const auto chunk = next_chunk(container(file), at)) {
    if (chunk->type == "EXIF" && (extended.flags & Extended::exif) != 0 && exif.empty()) exif = chunk->data;
    if (chunk->type == "XMP " && (extended.flags & Extended::xmp) != 0 && xmp.empty()) {
      xmp = {reinterpret_cast<const char*>(chunk->data.data()), chunk->data.size()};
    }
    if ((extended.flags & Extended::animation) != 0) continue;
    if (chunk->type == "ALPH") info.has_alpha = true;
    if (chunk->type == "VP8L") info.has_alpha = read_lossless(Encoded(chunk->data, file.label()), 0).has_alpha;
  }
  info.orientation = choose_orientation(exif, xmp);
  return info;
}

#if ORIEL_HAS_LIBWEBP

bool is_animated(const Encoded& file) {
  return file.has_text(kFirstChunk, "VP8X") && (read_extended(file).flags & Extended::animation) != 0;
}

void check_status(const Encoded& file, VP8StatusCode status) {
  switch (status) {
    case VP8_STATUS_OK:
      return;
    case VP8_STATUS_OUT_OF_MEMORY:
      throw std::bad_alloc();
    case VP8_STATUS_SUSPENDED:
    case VP8_STATUS_NOT_ENOUGH_DATA:
      file.malformed("the file ends too early");
    case VP8_STATUS_UNSUPPORTED_FEATURE:
      file.unsupported("a feature that libwebp does not know");
    default:
      file.malformed("the compressed data is damaged (libwebp status {})", static_cast<int>(status));
  }
}

Size size_of_still(const Encoded& file, Bytes bytes) {
  WebPBitstreamFeatures features;
  check_status(file, WebPGetFeatures(bytes.data(), bytes.size(), &features));
  return positive_size(file, features.width, features.height);
}

/// Decodes one still picture of `size` into the rows that begin at `out`.
void decode_still(const Encoded& file, Bytes bytes, Size size, const Pixels& pixels, uint8_t* out) {
  WebPDecoderConfig config;
  if (!WebPInitDecoderConfig(&config)) file.fail(ErrorCode::internal, "libwebp has another version than its header");
  config.output.colorspace = pixels.channels == 4 ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA.rgba = out;
  config.output.u.RGBA.stride = static_cast<int>(pixels.row_bytes());
  config.output.u.RGBA.size =
      static_cast<size_t>((size.height - 1) * pixels.row_bytes() + size.width * pixels.channels);
  check_status(file, WebPDecode(bytes.data(), bytes.size(), &config));
}

/// The first frame of an animation on a canvas of zeros: black, and clear where alpha is kept.
void decode_first_frame(const Encoded& file, Pixels& pixels) {
  constexpr size_t kFrameHeader = 16;  // place, size, duration, flags
  size_t at = kFirstChunk;
  while (const auto chunk = next_chunk(container(file), at)) {
    if (chunk->type != "ANMF") continue;
    const Encoded frame(chunk->data, file.label());
    frame.require(0, kFrameHeader, "the frame header");
    const int64_t left = int64_t{frame.u24le(0, "the frame header")} * 2;
    const int64_t top = int64_t{frame.u24le(3, "the frame header")} * 2;
    const Bytes still = chunk->data.subspan(kFrameHeader);
    const Size size = size_of_still(file, still);
    if (left + size.width > pixels.size.width || top + size.height > pixels.size.height) {
      file.malformed("a frame of {} x {} pixels at ({}, {}) leaves the canvas of {} x {}", size.width, size.height,
                     left, top, pixels.size.width, pixels.size.height);
    }
    std::fill_n(pixels.data.get(), pixels.size.height * pixels.row_bytes(), uint8_t{0});
    decode_still(file, still, size, pixels, pixels.row(top) + left * pixels.channels);
    return;
  }
  file.malformed("the animation has no whole frame");
}

#endif

}  // namespace

ImageInfo read_webp_header(const Encoded& file) {
  file.require(kFirstChunk, 8, "the first chunk");
  if (file.has_text(kFirstChunk, "VP8X")) return read_extended_header(file);
  Picture picture;
  if (file.has_text(kFirstChunk, "VP8 ")) {
    picture = read_lossy(file, kFirstData);
  } else if (file.has_text(kFirstChunk, "VP8L")) {
    picture = read_lossless(file, kFirstData);
  } else {
    file.malformed("expected VP8, VP8L or VP8X as the first chunk");
  }
  ImageInfo info;
  info.stored = picture.size;
  info.has_alpha = picture.has_alpha;
  return info;
}

#if ORIEL_HAS_LIBWEBP

bool has_libwebp() noexcept { return true; }

Pixels decode_webp(const Encoded& file, const ImageInfo& info, bool keep_alpha) {
  file.require(8, file.u32le(4, "the container's length"), "the container");
  Pixels pixels = Pixels::allocate(info.stored, keep_alpha ? 4 : 3);
  if (is_animated(file)) {
    decode_first_frame(file, pixels);
  } else {
    const Size size = size_of_still(file, file.bytes());
    if (size != info.stored) {
      file.malformed("expected a picture of {} x {} pixels, got {} x {}", info.stored.width, info.stored.height,
                     size.width, size.height);
    }
    decode_still(file, file.bytes(), size, pixels, pixels.data.get());
  }
  return pixels;
}

#else

bool has_libwebp() noexcept { return false; }

Pixels decode_webp(const Encoded& file, const ImageInfo&, bool) {
  file.fail(ErrorCode::unavailable, "this build has no libwebp");
}

#endif

}  // namespace oriel::image
