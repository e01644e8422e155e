// JPEG (ITU T.81): the markers up to the first scan. Pixels are made by libjpeg-turbo (decode_jpeg_turbo.cpp), or by
// stb_image in a build without it (decode_jpeg_stb.cpp).
#include <algorithm>
#include <vector>

#include "image/decode_formats.hpp"
#include "image/decode_jpeg.hpp"
#include "image/exif.hpp"

namespace oriel::image {
namespace {

enum Marker : int {
  kSof0 = 0xC0,
  kDht = 0xC4,
  kJpg = 0xC8,
  kDac = 0xCC,
  kRst0 = 0xD0,
  kSoi = 0xD8,
  kEoi = 0xD9,
  kSos = 0xDA,
  kApp1 = 0xE1,
  kJpg0 = 0xF0,
  kJpg13 = 0xFD
};

bool is_frame(int marker) {
  return marker >= kSof0 && marker <= 0xCF && marker != kDht && marker != kJpg && marker != kDac;
}

/// Markers without a length behind them.
bool stands_alone(int marker) {
  return marker == kJpg || (marker >= kRst0 && marker <= kEoi) || (marker >= kJpg0 && marker <= kJpg13);
}

/// The kinds of JPEG that neither Pillow nor libjpeg-turbo 2.1 decodes, by the name of the frame marker.
void refuse_other_kinds(const Encoded& file, int marker, Bytes frame) {
  if (marker == 0xC3 || marker == 0xC7 || marker == 0xCB || marker == 0xCF) file.unsupported("lossless JPEG");
  if (marker == 0xC5 || marker == 0xC6 || marker == 0xCD || marker == 0xCE) file.unsupported("hierarchical JPEG");
  if (frame[0] != 8) file.unsupported("JPEG with {} bits for a sample; 8 are supported", frame[0]);
  if (frame[5] != 1 && frame[5] != 3 && frame[5] != 4) {
    file.unsupported("JPEG with {} components; 1 (grey), 3 (colour) and 4 (CMYK) are supported", frame[5]);
  }
}

/// Size and component count from a frame header (ITU T.81 B.2.2).
void read_frame(const Encoded& file, int marker, Bytes frame, JpegHeader& header) {
  if (frame.size() < 6) file.malformed("expected a frame header of at least 6 bytes, got {}", frame.size());
  refuse_other_kinds(file, marker, frame);
  const Size size = frame_size(frame);
  header.info.stored = positive_size(file, size.width, size.height);
  header.components = frame[5];
}

struct Metadata {
  std::vector<uint8_t> exif;
  std::string_view xmp;
};

void read_app1(Bytes segment, Metadata& metadata) {
  constexpr std::string_view kExif{"Exif\0\0", 6};
  constexpr std::string_view kXmp{"http://ns.adobe.com/xap/1.0/\0", 29};
  const Encoded app1(segment, {});
  if (app1.has_text(0, kExif)) {
    // A block larger than a segment is continued in the next one.
    const Bytes part = segment.subspan(kExif.size());
    metadata.exif.insert(metadata.exif.end(), part.begin(), part.end());
  } else if (app1.has_text(0, kXmp)) {
    const Bytes packet = segment.subspan(kXmp.size());
    metadata.xmp = {reinterpret_cast<const char*>(packet.data()), packet.size()};
  }
}

/// The next marker at or after `at`, which is moved behind it. As Pillow does, bytes between segments are passed over.
int next_marker(const Encoded& file, size_t& at) {
  constexpr std::string_view kWhat = "the next marker (no picture data has come yet)";
  for (;; ++at) {
    if (file.u8(at, kWhat) != 0xFF) continue;
    const int marker = file.u8(at + 1, kWhat);
    if (marker == 0xFF || marker == 0) continue;
    at += 2;
    return marker;
  }
}

}  // namespace

JpegHeader read_jpeg_markers(const Encoded& file) {
  JpegHeader header;
  Metadata metadata;
  for (size_t at = 2;;) {
    const int marker = next_marker(file, at);
    if (stands_alone(marker)) continue;
    if (marker < kSof0) file.malformed("no such marker: FF {:02X} at byte {}", marker, at - 2);
    const uint32_t length = file.u16be(at, "a segment's length");
    if (length < 2) file.malformed("expected a segment of at least 2 bytes at byte {}, got {}", at, length);
    const Bytes segment = file.slice(at + 2, length - 2, "a segment");
    at += length;
    if (is_frame(marker)) read_frame(file, marker, segment, header);
    if (marker == kApp1) read_app1(segment, metadata);
    if (marker == kSos) break;
  }
  if (header.components == 0) file.malformed("the picture begins without a frame header (SOF)");
  header.info.orientation = choose_orientation(metadata.exif, metadata.xmp);
  return header;
}

Size frame_size(Bytes frame) { return {Encoded::big(frame.subspan(3, 2)), Encoded::big(frame.subspan(1, 2))}; }

ImageInfo read_jpeg_header(const Encoded& file) { return read_jpeg_markers(file).info; }

}  // namespace oriel::image
