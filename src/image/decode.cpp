#include "image/decode.hpp"

#include <algorithm>
#include <array>

#include "image/decode_formats.hpp"

namespace oriel::image {
namespace {

struct Format {
  std::string_view name;   ///< as in ImageInfo
  std::string_view title;  ///< as in messages
  ImageInfo (*read_header)(const Encoded&);
  Pixels (*decode)(const Encoded&, const ImageInfo&, bool keep_alpha);
};

constexpr std::array<Format, 5> kFormats{{
    {"jpeg", "JPEG", read_jpeg_header,
     [](const Encoded& file, const ImageInfo& info, bool) { return decode_jpeg(file, info); }},
    {"png", "PNG", read_png_header, decode_png},
    {"webp", "WebP", read_webp_header, decode_webp},
    {"bmp", "BMP", read_bmp_header, decode_bmp},
    {"gif", "GIF", read_gif_header, decode_gif},
}};

const Format* find_format(std::string_view name) {
  const auto* found = std::find_if(kFormats.begin(), kFormats.end(), [&](const Format& f) { return f.name == name; });
  return found == kFormats.end() ? nullptr : found;
}

/// The name of the format that the first bytes stand for; empty if it is none of ours.
std::string_view identify(const Encoded& file) {
  if (file.has_text(0, "\xFF\xD8\xFF")) return "jpeg";
  if (file.has_text(0, "\x89PNG\r\n\x1A\n")) return "png";
  if (file.has_text(0, "RIFF") && file.has_text(8, "WEBP")) return "webp";
  if (file.has_text(0, "GIF87a") || file.has_text(0, "GIF89a")) return "gif";
  if (file.has_text(0, "BM")) return "bmp";
  return {};
}

/// What a picture of another kind is called, so that the error can say so.
std::string_view name_of_other(const Encoded& file) {
  struct Signature {
    size_t at;
    std::string_view text;
    std::string_view name;
  };
  constexpr std::array<Signature, 14> kOthers{{
      {4, "ftypavif", "AVIF"},
      {4, "ftypavis", "AVIF"},
      {4, "ftypheic", "HEIC"},
      {4, "ftypheix", "HEIC"},
      {4, "ftypmif1", "HEIF"},
      {0, std::string_view{"II*\0", 4}, "TIFF"},
      {0, std::string_view{"MM\0*", 4}, "TIFF"},
      {0, std::string_view{"\0\0\0\x0CjP  ", 8}, "JPEG 2000"},
      {0, "\xFF\x4F\xFF\x51", "JPEG 2000"},
      {0, "\xFF\x0A", "JPEG XL"},
      {0, std::string_view{"\0\0\0\x0CJXL ", 8}, "JPEG XL"},
      {0, "8BPS", "Photoshop"},
      {0, "%PDF", "PDF"},
      {0, "qoif", "QOI"},
  }};
  for (const Signature& other : kOthers) {
    if (file.has_text(other.at, other.text)) return other.name;
  }
  return {};
}

std::string hexadecimal(Bytes bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += fmt::format("{}{:02x}", text.empty() ? "" : " ", byte);
  return text;
}

[[noreturn]] void refuse_unknown(const Encoded& file) {
  constexpr std::string_view kExpected = "expected a JPEG, PNG, WebP, BMP or GIF picture";
  if (file.size() == 0) file.malformed("{}, got no bytes", kExpected);
  const std::string_view other = name_of_other(file);
  if (!other.empty()) file.unsupported("{}, got {}", kExpected, other);
  const Bytes start = file.bytes().first(std::min<size_t>(file.size(), 8));
  file.malformed("{}, got a file that starts with {}", kExpected, hexadecimal(start));
}

}  // namespace

void check_limits(Size size, const ImageLimits& limits, const std::string& label) {
  if (size.width > limits.max_side || size.height > limits.max_side) {
    throw_error(ErrorCode::limit_exceeded, "{}: expected sides of at most {} pixels (max_side), got {} x {}", label,
                limits.max_side, size.width, size.height);
  }
  const int64_t pixels = checked_multiply(size.width, size.height, label);
  if (pixels > limits.max_pixels) {
    throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} pixels (max_pixels), got {} x {} = {}", label,
                limits.max_pixels, size.width, size.height, pixels);
  }
}

ImageInfo read_header(Bytes file, const ImageLimits& limits, const std::string& name) {
  const Encoded unknown(file, name);
  if (!std::in_range<int64_t>(file.size()) || static_cast<int64_t>(file.size()) > limits.max_file_bytes) {
    unknown.fail(ErrorCode::limit_exceeded, "expected a file of at most {} bytes (max_file_bytes), got {}",
                 limits.max_file_bytes, file.size());
  }
  const Format* format = find_format(identify(unknown));
  if (format == nullptr) refuse_unknown(unknown);
  const Encoded known(file, fmt::format("{}: {}", name, format->title));
  ImageInfo info = format->read_header(known);
  info.format = format->name;
  check_limits(info.stored, limits, known.label());
  return info;
}

Pixels decode_pixels(Bytes file, const ImageInfo& info, bool keep_alpha, const std::string& name) {
  const Format* format = find_format(info.format);
  if (format == nullptr) throw_error(ErrorCode::internal, "{}: no decoder for {}", name, info.format);
  return format->decode(Encoded(file, fmt::format("{}: {}", name, format->title)), info, keep_alpha && info.has_alpha);
}

void apply_palette(const uint8_t* indices, int64_t count, const uint8_t (*palette)[4], int channels, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i) out = std::copy_n(palette[indices[i]], channels, out);
}

}  // namespace oriel::image
