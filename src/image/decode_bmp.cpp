// BMP (Windows' BITMAPINFOHEADER family and OS/2 1.x), with the layouts that Pillow reads: 1, 4 and 8 bits through a
// palette, 16, 24 and 32 bits, run-length coding, rows from below or from above. Pixels equal Pillow's, but for 8-bit
// pictures with a palette of just black and white, whose rows Pillow takes for bits: here they are what the file says.
#include <algorithm>
#include <array>
#include <vector>

#include "image/decode_formats.hpp"

namespace oriel::image {
namespace {

enum Compression : uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitfields = 3 };

/// Which bits of a 16- or 32-bit pixel are a channel. A mask of 0 means that the channel is absent.
struct Masks {
  uint32_t red, green, blue, alpha;
  friend bool operator==(const Masks&, const Masks&) = default;
};

struct Layout {
  Size size;
  bool is_top_down = false;
  uint32_t bits = 0;
  uint32_t compression = kRaw;
  Masks masks{};
  uint8_t palette[256][4] = {};
  size_t data = 0;  ///< where the rows begin

  [[nodiscard]] size_t row_bytes() const { return (static_cast<size_t>(size.width) * bits + 31) / 32 * 4; }
};

constexpr Masks k555{0x7C00, 0x03E0, 0x001F, 0};
constexpr Masks k565{0xF800, 0x07E0, 0x001F, 0};
constexpr Masks kBgrx{0xFF0000, 0xFF00, 0xFF, 0};
constexpr Masks kBgra{0xFF0000, 0xFF00, 0xFF, 0xFF000000};

/// What the header says before palette and rows.
struct Fields {
  size_t header_bytes = 0;
  size_t palette_entry_bytes = 4;
  uint32_t colors = 0;
  Masks masks{};
};

constexpr size_t kFileHeaderBytes = 14;

Fields read_fields(const Encoded& file, Layout& layout) {
  constexpr std::string_view kWhat = "the header";
  Fields fields;
  fields.header_bytes = file.u32le(kFileHeaderBytes, kWhat);
  constexpr size_t kAt = kFileHeaderBytes + 4;
  if (fields.header_bytes == 12) {
    layout.size = positive_size(file, file.u16le(kAt, kWhat), file.u16le(kAt + 2, kWhat));
    layout.bits = file.u16le(kAt + 6, kWhat);
    fields.palette_entry_bytes = 3;
    return fields;
  }
  constexpr std::array<size_t, 6> kKnown{40, 52, 56, 64, 108, 124};
  if (std::find(kKnown.begin(), kKnown.end(), fields.header_bytes) == kKnown.end()) {
    file.unsupported("a header of {} bytes; 12, 40, 52, 56, 64, 108 and 124 are known", fields.header_bytes);
  }
  file.require(kFileHeaderBytes, fields.header_bytes, kWhat);
  const uint32_t height = file.u32le(kAt + 4, kWhat);
  layout.is_top_down = height >> 24 == 0xFF;
  layout.size =
      positive_size(file, file.u32le(kAt, kWhat), layout.is_top_down ? (int64_t{1} << 32) - height : int64_t{height});
  layout.bits = file.u16le(kAt + 10, kWhat);
  layout.compression = file.u32le(kAt + 12, kWhat);
  fields.colors = file.u32le(kAt + 28, kWhat);
  if (layout.compression == kBitfields) {
    // Masks follow a header of 40 bytes, and are part of the longer ones, which from 56 bytes on have one for alpha.
    const bool has_alpha_mask = fields.header_bytes >= 56;
    fields.masks = {file.u32le(kAt + 36, kWhat), file.u32le(kAt + 40, kWhat), file.u32le(kAt + 44, kWhat),
                    has_alpha_mask ? file.u32le(kAt + 48, kWhat) : 0};
  }
  return fields;
}

/// The layouts of whole bytes and of five and six bits that Pillow knows; others are refused by name.
Masks choose_masks(const Encoded& file, uint32_t bits, uint32_t compression, const Masks& given) {
  if (compression == kRaw) return bits == 16 ? k555 : kBgrx;
  const Masks opaque{given.red, given.green, given.blue, 0};
  if (bits == 16 && (opaque == k555 || opaque == k565)) return opaque;
  if (bits == 24 && opaque == kBgrx) return opaque;
  constexpr std::array<Masks, 7> kKnown{{kBgrx,
                                         {0xFF000000, 0xFF0000, 0xFF00, 0},
                                         {0xFF000000, 0xFF00, 0xFF, 0},
                                         {0xFF000000, 0xFF0000, 0xFF00, 0xFF},
                                         {0xFF, 0xFF00, 0xFF0000, 0xFF000000},
                                         kBgra,
                                         {0xFF000000, 0xFF00, 0xFF, 0xFF0000}}};
  if (bits == 32 && given == Masks{}) return kBgra;
  if (bits == 32 && std::find(kKnown.begin(), kKnown.end(), given) != kKnown.end()) return given;
  file.unsupported("{} bits with the channel masks {:08x}, {:08x}, {:08x}, {:08x}", bits, given.red, given.green,
                   given.blue, given.alpha);
}

void check_compression(const Encoded& file, const Layout& layout) {
  const uint32_t bits = layout.bits;
  if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32) {
    file.unsupported("{} bits for a pixel; 1, 4, 8, 16, 24 and 32 are known", bits);
  }
  switch (layout.compression) {
    case kRaw:
      return;
    case kRle8:
      if (bits == 8) return;
      break;
    case kRle4:
      if (bits == 4) return;
      break;
    case kBitfields:
      if (bits >= 16) return;
      break;
    case 4:
      file.unsupported("JPEG data inside of a BMP");
    case 5:
      file.unsupported("PNG data inside of a BMP");
    default:
      break;
  }
  file.unsupported("compression {} with {} bits for a pixel", layout.compression, bits);
}

/// A palette whose entries are the greys of their indices stands for greys, also beyond its end; entries beyond the end
/// of any other are black. As in Pillow.
void read_palette(const Encoded& file, size_t at, size_t declared, size_t entry_bytes, Layout& layout) {
  // Writers may declare, or leave out and so declare, more entries than the file has: rows then lie in their place.
  file.require(at, 0, "the palette");
  const size_t entries = std::min(declared, (file.size() - at) / entry_bytes);
  if (entries > 256 || declared > 65'536) {
    file.malformed("expected a palette of at most 256 entries, got {}", declared);
  }
  const Bytes bytes = file.bytes().subspan(at, entries * entry_bytes);
  bool is_ramp = entries == declared && entries != 2;
  for (size_t i = 0; i < entries; ++i) {
    const Bytes bgr = bytes.subspan(i * entry_bytes, 3);
    is_ramp = is_ramp && bgr[0] == i && bgr[1] == i && bgr[2] == i;
    std::reverse_copy(bgr.begin(), bgr.end(), layout.palette[i]);
  }
  for (size_t i = entries; is_ramp && i < 256; ++i) {
    std::fill_n(layout.palette[i], 3, static_cast<uint8_t>(layout.bits == 1 ? 255 : i));
  }
  for (auto& entry : layout.palette) entry[3] = 255;
}

Layout read_layout(const Encoded& file) {
  Layout layout;
  const Fields fields = read_fields(file, layout);
  check_compression(file, layout);
  const size_t declared_data = file.u32le(10, "the header");
  size_t at = kFileHeaderBytes + fields.header_bytes;
  layout.data = declared_data;
  if (layout.compression == kBitfields && fields.header_bytes == 40) at += 12;
  if (layout.bits > 8) {
    layout.masks = choose_masks(file, layout.bits, layout.compression, fields.masks);
  } else {
    const size_t entries = fields.colors == 0 ? size_t{1} << layout.bits : fields.colors;
    read_palette(file, at, entries, fields.palette_entry_bytes, layout);
    // Some writers forget the palette when they say where the rows begin.
    if (declared_data == at) layout.data += entries * fields.palette_entry_bytes;
    at += entries * fields.palette_entry_bytes;
  }
  if (layout.data == 0) layout.data = at;
  return layout;
}

int64_t row_of(const Layout& layout, int64_t y) { return layout.is_top_down ? y : layout.size.height - 1 - y; }

/// Pillow's stretching of a few bits to eight: value * 255 / most, rounded down.
uint8_t channel(uint32_t pixel, uint32_t mask) {
  if (mask == 0) return 255;
  const uint32_t lowest = mask & (~mask + 1);
  return static_cast<uint8_t>((pixel & mask) / lowest * 255 / (mask / lowest));
}

void read_direct_row(const Layout& layout, Bytes row, int channels, uint8_t* out) {
  const size_t pixel_bytes = layout.bits / 8;
  for (int64_t x = 0; x < layout.size.width; ++x, out += channels) {
    const Bytes bytes = row.subspan(static_cast<size_t>(x) * pixel_bytes, pixel_bytes);
    if (layout.masks == kBgrx) {
      std::reverse_copy(bytes.begin(), bytes.begin() + 3, out);
      continue;
    }
    const uint32_t pixel = Encoded::little(bytes);
    out[0] = channel(pixel, layout.masks.red);
    out[1] = channel(pixel, layout.masks.green);
    out[2] = channel(pixel, layout.masks.blue);
    if (channels == 4) out[3] = channel(pixel, layout.masks.alpha);
  }
}

void read_palette_row(const Layout& layout, Bytes row, std::vector<uint8_t>& indices) {
  const uint32_t per_byte = 8 / layout.bits;
  for (size_t x = 0; x < indices.size(); ++x) {
    const uint32_t shift = 8 - layout.bits * (static_cast<uint32_t>(x % per_byte) + 1);
    indices[x] = static_cast<uint8_t>(row[x / per_byte] >> shift & ((1U << layout.bits) - 1));
  }
}

void read_rows(const Encoded& file, const Layout& layout, Pixels& pixels) {
  // The padding of the last row may be missing.
  const size_t used_bytes = (static_cast<size_t>(layout.size.width) * layout.bits + 7) / 8;
  std::vector<uint8_t> indices(layout.bits <= 8 ? static_cast<size_t>(layout.size.width) : 0);
  const size_t last = layout.row_bytes() * static_cast<size_t>(layout.size.height - 1);
  file.require(layout.data, last + used_bytes, "the rows");
  for (int64_t y = 0; y < layout.size.height; ++y) {
    const Bytes row = file.slice(layout.data + layout.row_bytes() * static_cast<size_t>(y), used_bytes, "a row");
    uint8_t* out = pixels.row(row_of(layout, y));
    if (layout.bits <= 8) {
      read_palette_row(layout, row, indices);
      apply_palette(indices.data(), layout.size.width, layout.palette, pixels.channels, out);
    } else {
      read_direct_row(layout, row, pixels.channels, out);
    }
  }
}

/// Run-length coded indices, in the order of the file. Pillow appends runs to one list, and so do we: a run that leaves
/// its row is cut, other oddities shift what follows.
class RunLengthReader {
 public:
  RunLengthReader(const Encoded& file, const Layout& layout)
      : file_(file),
        layout_(layout),
        at_(layout.data),
        width_(static_cast<size_t>(layout.size.width)),
        indices_(width_ * static_cast<size_t>(layout.size.height)) {}

  std::vector<uint8_t> read() {
    while (written_ < indices_.size() && file_.has(at_, 2)) {
      const uint8_t count = file_.bytes()[at_++];
      const uint8_t value = file_.bytes()[at_++];
      if (count > 0) {
        run(count, value);
      } else if (value == 1) {
        break;
      } else if (value == 0) {
        append_zeros((width_ - written_ % width_) % width_);
        x_ = 0;
      } else if (value == 2) {
        if (!file_.has(at_, 2)) break;
        const size_t right = file_.bytes()[at_];
        const size_t down = file_.bytes()[at_ + 1];
        at_ += 2;
        append_zeros(right + down * width_);
        x_ = written_ % width_;
      } else if (!literals(value)) {
        break;
      }
    }
    if (written_ < indices_.size()) {
      file_.malformed("the file ends too early: expected {} pixels, got {}", indices_.size(), written_);
    }
    return std::move(indices_);
  }

 private:
  void append(uint8_t index) {
    if (written_ < indices_.size()) indices_[written_++] = index;
  }
  void append_zeros(size_t count) { written_ += std::min(count, indices_.size() - written_); }

  void run(size_t count, uint8_t value) {
    count = std::min(count, width_ - std::min(x_, width_));
    for (size_t i = 0; i < count; ++i) append(layout_.compression == kRle4 ? nibble(value, i) : value);
    x_ += count;
  }
  /// False if the file ends within them.
  bool literals(size_t count) {
    const bool is_rle4 = layout_.compression == kRle4;
    const size_t used = std::min(count, indices_.size() - written_);
    const size_t bytes = is_rle4 ? (used + 1) / 2 : used;
    if (!file_.has(at_, bytes)) return false;
    for (size_t i = 0; i < used; ++i) {
      append(is_rle4 ? nibble(file_.bytes()[at_ + i / 2], i) : file_.bytes()[at_ + i]);
    }
    at_ += bytes;
    x_ += count;
    at_ += at_ % 2;  // literals are padded to an even place in the file
    return true;
  }
  static uint8_t nibble(uint8_t byte, size_t i) { return static_cast<uint8_t>(i % 2 == 0 ? byte >> 4 : byte & 15); }

  const Encoded& file_;
  const Layout& layout_;
  size_t at_;
  size_t width_;
  size_t x_ = 0;
  size_t written_ = 0;
  std::vector<uint8_t> indices_;
};

}  // namespace

ImageInfo read_bmp_header(const Encoded& file) {
  const Layout layout = read_layout(file);
  ImageInfo info;
  info.stored = layout.size;
  info.has_alpha = layout.bits == 32 && layout.masks.alpha != 0;
  return info;
}

Pixels decode_bmp(const Encoded& file, const ImageInfo& info, bool keep_alpha) {
  const Layout layout = read_layout(file);
  Pixels pixels = Pixels::allocate(info.stored, keep_alpha ? 4 : 3);
  if (layout.compression != kRle8 && layout.compression != kRle4) {
    read_rows(file, layout, pixels);
    return pixels;
  }
  const std::vector<uint8_t> indices = RunLengthReader(file, layout).read();
  for (int64_t y = 0; y < layout.size.height; ++y) {
    apply_palette(indices.data() + y * layout.size.width, layout.size.width, layout.palette, pixels.channels,
                  pixels.row(row_of(layout, y)));
  }
  return pixels;
}

}  // namespace oriel::image
