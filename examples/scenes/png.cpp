#include "png.hpp"

#include <algorithm>
#include <array>

namespace scenes {
namespace {

void append_big_endian(std::string& out, uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift & 255);
}

void append_little_endian(std::string& out, size_t value) {
  for (int shift = 0; shift < 16; shift += 8) out += static_cast<char>(value >> shift & 255);
}

uint32_t crc32(const std::string& bytes) {
  uint32_t crc = ~0U;
  for (const char byte : bytes) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (0xEDB88320U & (0U - (crc & 1U)));
  }
  return ~crc;
}

uint32_t adler32(const std::string& bytes) {
  uint32_t a = 1;
  uint32_t b = 0;
  for (const char byte : bytes) {
    a = (a + static_cast<uint8_t>(byte)) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

void append_chunk(std::string& out, const std::string& type, const std::string& data) {
  append_big_endian(out, static_cast<uint32_t>(data.size()));
  out += type + data;
  append_big_endian(out, crc32(type + data));
}

/// A zlib stream of stored blocks.
std::string stored(const std::string& bytes) {
  constexpr size_t largest_block = 65535;
  std::string out = "\x78\x01";
  for (size_t begin = 0; begin < bytes.size(); begin += largest_block) {
    const size_t size = std::min(largest_block, bytes.size() - begin);
    out += begin + size == bytes.size() ? '\1' : '\0';
    append_little_endian(out, size);
    append_little_endian(out, size ^ 0xFFFF);
    out.append(bytes, begin, size);
  }
  append_big_endian(out, adler32(bytes));
  return out;
}

}  // namespace

std::string encode_png(std::span<const uint8_t> pixels, int width, int height) {
  std::string header;
  append_big_endian(header, static_cast<uint32_t>(width));
  append_big_endian(header, static_cast<uint32_t>(height));
  header += std::string("\x08\x02\x00\x00\x00", 5);  // 8 bits, RGB, no interlacing

  const size_t row_bytes = size_t{3} * static_cast<size_t>(width);
  std::string rows;
  for (size_t begin = 0; begin < row_bytes * static_cast<size_t>(height); begin += row_bytes) {
    rows += '\0';  // no filter
    rows.append(pixels.begin() + static_cast<ptrdiff_t>(begin),
                pixels.begin() + static_cast<ptrdiff_t>(begin + row_bytes));
  }

  std::string out = "\x89PNG\r\n\x1a\n";
  append_chunk(out, "IHDR", header);
  append_chunk(out, "IDAT", stored(rows));
  append_chunk(out, "IEND", {});
  return out;
}

}  // namespace scenes
