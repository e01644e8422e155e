// JPEG by stb_image. It is quick to build and always there, but it trusts its input more than we do; so the file is
// first copied, segment by segment, into one that holds only what is known to be well formed.
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <memory>
#include <vector>

#include "image/decode_formats.hpp"
#include "image/decode_jpeg.hpp"

// Memory is cleared: a damaged file may use a table that it never defined.
#define STBI_MALLOC(size) std::calloc(1, size)
#define STBI_REALLOC(pointer, size) std::realloc(pointer, size)
#define STBI_FREE(pointer) std::free(pointer)
#define STBI_ASSERT(condition) static_cast<void>(0)
#define STBI_MAX_DIMENSIONS 65535
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_ONLY_JPEG
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wpedantic"
#include <stb_image.h>
#pragma GCC diagnostic pop

namespace oriel::image {
namespace {

constexpr int kMostScans = 100;

/// A code has at most 256 words: stb 2.27 writes as many as the segment claims.
void check_huffman_tables(const Encoded& file, Bytes segment) {
  while (!segment.empty()) {
    if (segment.size() < 17) file.malformed("expected 17 bytes of a Huffman table, got {}", segment.size());
    size_t words = 0;
    for (const uint8_t count : segment.subspan(1, 16)) words += count;
    if (words > 256 || words > segment.size() - 17) file.malformed("a Huffman table of {} words", words);
    segment = segment.subspan(17 + words);
  }
}

/// Where entropy-coded bytes end: at the first marker that is no restart marker. Nothing if the file ends before.
size_t end_of_scan(const Encoded& file, size_t at) {
  for (; file.has(at, 2); ++at) {
    if (file.bytes()[at] != 0xFF) continue;
    const int next = file.bytes()[at + 1];
    if (next != 0 && next != 0xFF && (next < 0xD0 || next > 0xD7)) return at;
  }
  file.malformed("the file ends too early, within a scan");
}

/// Of two frame headers stb believes the first, while the limits were tested on the last one before the pixels.
void check_frame(const Encoded& file, Bytes frame, Size stored) {
  if (frame.size() < 5) file.malformed("expected a frame header of at least 5 bytes, got {}", frame.size());
  const Size size = frame_size(frame);
  if (size != stored) {
    file.malformed("it holds two frames: {} x {} and {} x {}", size.width, size.height, stored.width, stored.height);
  }
}

/// The file with the segments that decoding needs, in order. Throws unless it ends with an end marker.
std::vector<uint8_t> checked_copy(const Encoded& file, Size stored) {
  std::vector<uint8_t> copy{0xFF, 0xD8};
  const auto append = [&copy](Bytes bytes) { copy.insert(copy.end(), bytes.begin(), bytes.end()); };
  int scans = 0;
  for (size_t at = 2;;) {
    while (file.u8(at, "a marker") != 0xFF || file.u8(at + 1, "a marker") == 0 || file.u8(at + 1, "a marker") == 0xFF) {
      ++at;
    }
    const int marker = file.u8(at + 1, "a marker");
    if (marker == 0xD9) break;
    if (marker == 0xD8 || (marker >= 0xD0 && marker <= 0xD7)) {
      at += 2;
      continue;
    }
    const uint32_t length = file.u16be(at + 2, "a segment's length");
    if (length < 2) file.malformed("expected a segment of at least 2 bytes at byte {}, got {}", at + 2, length);
    const Bytes segment = file.slice(at, 2 + size_t{length}, "a segment");
    at += segment.size();
    if (marker == 0xC4) check_huffman_tables(file, segment.subspan(4));
    if (marker == 0xC9 || marker == 0xCA)
      file.unsupported("JPEG with arithmetic coding; this build has no libjpeg-turbo");
    const bool is_frame = marker >= 0xC0 && marker <= 0xC2;
    if (is_frame) check_frame(file, segment.subspan(4), stored);
    if (is_frame || marker == 0xC4 || marker == 0xDB || marker == 0xDD || marker == 0xE0 || marker == 0xEE) {
      append(segment);
    }
    if (marker != 0xDA) continue;
    if (++scans > kMostScans) file.fail(ErrorCode::limit_exceeded, "expected at most {} scans", kMostScans);
    append(segment);
    const size_t end = end_of_scan(file, at);
    append(file.bytes().subspan(at, end - at));
    at = end;
  }
  copy.insert(copy.end(), {0xFF, 0xD9});
  return copy;
}

struct FreeStb {
  void operator()(stbi_uc* pixels) const { stbi_image_free(pixels); }
};

}  // namespace

Pixels decode_jpeg_with_stb(const Encoded& file, const ImageInfo& info) {
  const JpegHeader header = read_jpeg_markers(file);
  if (header.components == 4) {
    file.fail(ErrorCode::unavailable, "CMYK JPEG needs a build with libjpeg-turbo");
  }
  const std::vector<uint8_t> copy = checked_copy(file, info.stored);
  if (copy.size() > INT_MAX) {
    file.fail(ErrorCode::limit_exceeded, "stb_image reads at most {} bytes, got {}", INT_MAX, copy.size());
  }
  int width = 0;
  int height = 0;
  int components = 0;
  const int wanted = header.components;
  const std::unique_ptr<stbi_uc, FreeStb> decoded(
      stbi_load_from_memory(copy.data(), static_cast<int>(copy.size()), &width, &height, &components, wanted));
  if (!decoded) {
    const char* reason = stbi_failure_reason();  // not every failure has one
    file.malformed("stb_image: {}", reason != nullptr ? reason : "the data is damaged");
  }
  if (Size{width, height} != info.stored || components != wanted) {
    file.malformed("it holds two frames: {} x {} with {} components, and {} x {} with {}", info.stored.width,
                   info.stored.height, wanted, width, height, components);
  }
  Pixels pixels = Pixels::allocate(info.stored, 3);
  const int64_t count = info.stored.width * info.stored.height;
  if (wanted == 3) {
    std::copy_n(decoded.get(), count * 3, pixels.data.get());
    return pixels;
  }
  for (int64_t i = 0; i < count; ++i) std::fill_n(pixels.data.get() + 3 * i, 3, decoded.get()[i]);
  return pixels;
}

}  // namespace oriel::image
