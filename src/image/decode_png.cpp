// PNG (ISO/IEC 15948), read as Pillow reads it: the chunks. Rows and samples are in decode_png_rows.cpp.
#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "image/decode_formats.hpp"
#include "image/decode_png.hpp"
#include "image/exif.hpp"
#include "image/inflate.hpp"

namespace oriel::image {
namespace {

constexpr size_t kSignatureBytes = 8;

struct Chunk {
  std::string_view type;
  Bytes data;
  size_t next;  ///< where the chunk after it begins
};

std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

/// A chunk's name as four letters; other bytes are spelt out, so that a message stays one readable line.
std::string printable(std::string_view type) {
  std::string text;
  for (const char c : type) {
    const bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    text += is_letter ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
  }
  return text;
}

Chunk read_chunk(const Encoded& file, size_t at) {
  const uint32_t length = file.u32be(at, "a chunk's length");
  const std::string_view type = as_text(file.slice(at + 4, 4, "a chunk's name"));
  const Bytes data = file.slice(at + 8, length, "a chunk's data");
  return {type, data, at + 8 + length + 4};
}

void check_crc(const Encoded& file, const Chunk& chunk) {
  const uint32_t expected = file.u32be(chunk.next - 4, "a chunk's checksum");
  const size_t covered = chunk.data.size() + 4;
  const Bytes bytes = file.bytes().subspan(chunk.next - 4 - covered, covered);
  const auto found = static_cast<uint32_t>(crc32_z(0, bytes.data(), bytes.size()));
  if (found != expected) {
    file.malformed("chunk {} is damaged: its checksum is {:08x}, its bytes give {:08x}", printable(chunk.type),
                   expected, found);
  }
}

PngLayout read_ihdr(const Encoded& file, Bytes data) {
  if (data.size() < 13) file.malformed("expected an IHDR chunk of 13 bytes, got {}", data.size());
  PngLayout layout;
  layout.size = positive_size(file, Encoded::big(data.first(4)), Encoded::big(data.subspan(4, 4)));
  layout.depth = data[8];
  layout.color = data[9];
  layout.is_interlaced = data[12] != 0;
  const int depth = layout.depth;
  const bool is_small = depth == 1 || depth == 2 || depth == 4;
  const bool is_valid =
      layout.color == PngLayout::grey      ? is_small || depth == 8 || depth == 16
      : layout.color == PngLayout::palette ? is_small || depth == 8
      : layout.color == PngLayout::rgb || layout.color == PngLayout::grey_alpha || layout.color == PngLayout::rgba
          ? depth == 8 || depth == 16
          : false;
  if (!is_valid) file.malformed("no such pixels: colour type {} with {} bits", layout.color, depth);
  if (data[10] != 0) file.malformed("expected compression method 0, got {}", data[10]);
  if (data[11] != 0) file.malformed("expected filter method 0, got {}", data[11]);
  return layout;
}

void read_plte(const Encoded& file, Bytes data, PngParts& parts) {
  if (parts.layout.color != PngLayout::palette) return;  // a suggestion for screens with few colours
  const size_t entries = data.size() / 3;
  if (entries == 0 || entries > 256) file.malformed("expected a palette of 1 to 256 entries, got {}", entries);
  for (size_t i = 0; i < entries; ++i)
    std::copy_n(data.begin() + static_cast<std::ptrdiff_t>(i * 3), 3, parts.palette[i]);
  parts.has_palette = true;
}

void read_trns(const Encoded& file, Bytes data, PngParts& parts) {
  const size_t needed = parts.layout.color == PngLayout::grey ? 2 : parts.layout.color == PngLayout::rgb ? 6 : 0;
  if (parts.layout.color == PngLayout::palette) {
    const size_t entries = std::min<size_t>(data.size(), 256);
    for (size_t i = 0; i < entries; ++i) parts.palette[i][3] = data[i];
    parts.has_transparency = true;
  } else if (needed > 0) {
    if (data.size() < needed) file.malformed("expected a tRNS chunk of {} bytes, got {}", needed, data.size());
    const uint32_t used_bits = (1U << parts.layout.depth) - 1;
    for (size_t i = 0; i < needed / 2; ++i) {
      parts.color_key[i] = static_cast<uint16_t>(Encoded::big(data.subspan(i * 2, 2)) & used_bits);
    }
    parts.has_transparency = true;
  }
}

/// The bytes of ImageMagick's "Raw profile type exif": three lines (empty, name, length), then hexadecimal digits.
std::vector<uint8_t> read_raw_profile(std::string_view text) {
  for (int line = 0; line < 3; ++line) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  std::vector<uint8_t> bytes;
  std::string_view digits = text;
  while (!digits.empty()) {
    if (digits[0] == '\n' || digits[0] == ' ') {
      digits.remove_prefix(1);
      continue;
    }
    uint8_t value = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + std::min<size_t>(digits.size(), 2), value, 16);
    if (digits.size() < 2 || parsed.ptr != digits.data() + 2) return {};
    bytes.push_back(value);
    digits.remove_prefix(2);
  }
  return bytes;
}

/// A compressed text. Orientation needs a few kilobytes; what is longer is cut, so that text can't be a bomb.
std::string inflate_text(Bytes data) {
  std::string text(size_t{1} << 18, '\0');
  const InflateResult result = inflate_zlib(data, {reinterpret_cast<uint8_t*>(text.data()), text.size()});
  text.resize(result.status == InflateStatus::corrupt ? 0 : result.written);
  return text;
}

/// Texts that may hold an orientation: the raw EXIF profile, and XMP.
void read_text_chunk(const Chunk& chunk, PngParts& parts) {
  const std::string_view all = as_text(chunk.data);
  const size_t key_end = all.find('\0');
  if (key_end == std::string_view::npos) return;
  const std::string_view key = all.substr(0, key_end);
  const bool is_profile = key == "Raw profile type exif";
  const bool is_xmp = key == "XML:com.adobe.xmp";
  if (!is_profile && !is_xmp) return;

  size_t value_at = key_end + 1;
  bool is_compressed = chunk.type == "zTXt";
  if (chunk.type == "iTXt") {
    if (!Encoded(chunk.data, {}).has(value_at, 2)) return;
    is_compressed = all[value_at] != 0;
    const size_t language_end = all.find('\0', value_at + 2);
    const size_t keyword_end = language_end == std::string_view::npos ? language_end : all.find('\0', language_end + 1);
    if (keyword_end == std::string_view::npos) return;
    value_at = keyword_end + 1;
  } else if (is_compressed) {
    value_at = std::min(value_at + 1, all.size());  // the compression method; there is one
  }
  const std::string value =
      is_compressed ? inflate_text(chunk.data.subspan(value_at)) : std::string(all.substr(value_at));
  if (is_profile) parts.raw_profile = read_raw_profile(value);
  if (is_xmp) parts.xmp = value;
}

/// In an animated PNG the picture may double as the first frame. Pillow then takes that frame's rectangle for the
/// picture's; the standard wants both to be the same.
void check_first_frame(const Encoded& file, Bytes data, const PngLayout& layout) {
  if (data.size() < 26) file.malformed("expected an fcTL chunk of 26 bytes, got {}", data.size());
  const uint32_t width = Encoded::big(data.subspan(4, 4));
  const uint32_t height = Encoded::big(data.subspan(8, 4));
  if (width != layout.size.width || height != layout.size.height) {
    file.malformed("expected a first frame of the picture's size, {} x {}, got {} x {}", layout.size.width,
                   layout.size.height, width, height);
  }
}

bool is_name(const Encoded& file, size_t at) {
  return std::ranges::all_of(file.slice(at, 4, "a chunk's name"), [](uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  });
}

void read_chunk_into(const Encoded& file, const Chunk& chunk, PngParts& parts) {
  if (chunk.type == "IDAT") {
    parts.data.push_back(chunk.data);
  } else if (chunk.type == "PLTE") {
    read_plte(file, chunk.data, parts);
  } else if (chunk.type == "tRNS") {
    read_trns(file, chunk.data, parts);
  } else if (chunk.type == "eXIf") {
    parts.exif = chunk.data;
  } else if (chunk.type == "tEXt" || chunk.type == "zTXt" || chunk.type == "iTXt") {
    read_text_chunk(chunk, parts);
  } else if (chunk.type == "fcTL" && parts.data.empty()) {
    check_first_frame(file, chunk.data, parts.layout);
  }
}

}  // namespace

PngParts read_png_parts(const Encoded& file, bool wants_pixels) {
  const Chunk header = read_chunk(file, kSignatureBytes);
  if (header.type != "IHDR") file.malformed("expected the chunk IHDR first, got {}", printable(header.type));
  check_crc(file, header);
  PngParts parts;
  parts.layout = read_ihdr(file, header.data);
  for (auto& entry : parts.palette) entry[3] = 255;

  for (size_t at = header.next; file.has(at, 8);) {
    // As in Pillow, all chunks up to the pixels have to be whole, and what comes after them may be cut off or damaged.
    // Unlike Pillow we hold the pixels' own chunks against their checksums too.
    const bool after_pixels = !parts.data.empty();
    const bool is_data = file.has_text(at + 4, "IDAT");
    const size_t length = file.u32be(at, "a chunk's length");
    const bool is_cut = !file.has(at + 8, length + 4);
    if (is_data && is_cut) {
      parts.data.push_back(file.bytes().subspan(at + 8, std::min(length, file.size() - at - 8)));
      break;
    }
    if (after_pixels && (is_cut || !is_name(file, at + 4))) break;
    const Chunk chunk = read_chunk(file, at);
    if (!is_name(file, at + 4)) file.malformed("no such chunk: {}", printable(chunk.type));
    if (chunk.type == "IEND") break;
    if (is_data ? wants_pixels : !after_pixels) check_crc(file, chunk);
    read_chunk_into(file, chunk, parts);
    at = chunk.next;
  }
  if (parts.data.empty()) file.malformed("the file has no picture data (IDAT)");
  if (parts.layout.color == PngLayout::palette && !parts.has_palette) file.malformed("the palette (PLTE) is missing");
  return parts;
}

ImageInfo read_png_header(const Encoded& file) {
  const PngParts parts = read_png_parts(file, false);
  ImageInfo info;
  info.stored = parts.layout.size;
  info.orientation = choose_orientation(parts.exif.empty() ? Bytes(parts.raw_profile) : parts.exif, parts.xmp);
  info.has_alpha = parts.layout.has_alpha_channel() || parts.has_transparency;
  return info;
}

}  // namespace oriel::image
