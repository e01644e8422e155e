#include "image/exif.hpp"

#include <array>

namespace oriel::image {
namespace {

constexpr uint32_t kOrientation = 0x0112;
constexpr std::string_view kPrefix{"Exif\0\0", 6};

/// Bytes of one element of each TIFF type, 0 for types that do not exist.
constexpr std::array<uint64_t, 17> kElementBytes{0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};

struct Tiff {
  Bytes bytes;
  bool big_endian;

  [[nodiscard]] bool has(uint64_t at, uint64_t count) const { return at <= bytes.size() && count <= bytes.size() - at; }
  [[nodiscard]] uint32_t number(uint64_t at, size_t count) const {
    const Bytes part = bytes.subspan(static_cast<size_t>(at), count);
    return big_endian ? Encoded::big(part) : Encoded::little(part);
  }
};

bool starts_with(Bytes bytes, std::string_view text) { return Encoded(bytes, {}).has_text(0, text); }

/// The value of one single-element integer tag, or 1 where Pillow would not find the value among the orientations.
int orientation_value(const Tiff& tiff, uint64_t entry, uint32_t type, uint32_t count) {
  if (count != 1) return 1;
  uint32_t value = 1;
  if (type == 3 || type == 8) value = tiff.number(entry + 8, 2);
  if (type == 4 || type == 9 || type == 13) value = tiff.number(entry + 8, 4);
  return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
}

}  // namespace

std::optional<int> exif_orientation(Bytes exif) {
  for (int i = 0; i < 2 && starts_with(exif, kPrefix); ++i) exif = exif.subspan(kPrefix.size());
  if (exif.size() < 8) return std::nullopt;
  const bool big_endian = starts_with(exif, "MM");
  if (!big_endian && !starts_with(exif, "II")) return std::nullopt;
  const Tiff tiff{exif, big_endian};
  if (tiff.number(2, 2) != 42) return std::nullopt;

  uint64_t at = tiff.number(4, 4);
  if (!tiff.has(at, 2)) return std::nullopt;
  const uint32_t entries = tiff.number(at, 2);
  at += 2;
  uint64_t outside = 0;
  for (uint32_t i = 0; i < entries && tiff.has(at, 12); ++i, at += 12) {
    const uint32_t tag = tiff.number(at, 2);
    const uint32_t type = tiff.number(at + 2, 2);
    const uint32_t count = tiff.number(at + 4, 4);
    const uint64_t element = type < kElementBytes.size() ? kElementBytes[type] : 0;
    if (element == 0 || count == 0) continue;
    const uint64_t size = element * count;
    if (size > 4) {
      // Values kept elsewhere: Pillow passes over one that is larger than everything, and stops at one that is cut off.
      outside += size;
      if (outside > exif.size()) continue;
      if (!tiff.has(tiff.number(at + 8, 4), size)) return std::nullopt;
    }
    if (tag == kOrientation) return orientation_value(tiff, at, type, count);
  }
  return std::nullopt;
}

std::optional<int> xmp_orientation(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (size_t at = xmp.find(kName); at != std::string_view::npos; at = xmp.find(kName, at + 1)) {
    std::string_view rest = xmp.substr(at + kName.size());
    if (rest.starts_with("=\"")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with(">")) {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (rest.empty() || rest[0] < '0' || rest[0] > '9') continue;
    const int value = rest[0] - '0';
    return value >= 1 && value <= 8 ? value : 1;
  }
  return std::nullopt;
}

int choose_orientation(Bytes exif, std::string_view xmp) {
  if (const auto orientation = exif_orientation(exif)) return *orientation;
  return xmp_orientation(xmp).value_or(1);
}

}  // namespace oriel::image
