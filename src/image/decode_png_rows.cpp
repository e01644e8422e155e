// PNG: from compressed data to pixels. Depths become 8 bits as in Pillow (spec/resize.md 8): small greys are stretched,
// 16-bit grey is cut at 255, all other 16-bit samples keep their high byte.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "image/decode_formats.hpp"
#include "image/decode_png.hpp"
#include "image/inflate.hpp"

namespace oriel::image {
namespace {

/// One pass of Adam7, or the whole picture: which pixels it holds.
struct Pass {
  int64_t left, top, step_x, step_y;

  [[nodiscard]] int64_t width(Size size) const { return (size.width - left + step_x - 1) / step_x; }
  [[nodiscard]] int64_t height(Size size) const { return (size.height - top + step_y - 1) / step_y; }
};

constexpr std::array<Pass, 1> kWhole{{{0, 0, 1, 1}}};
constexpr std::array<Pass, 7> kAdam7{
    {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}}};

std::span<const Pass> passes_of(const PngLayout& layout) {
  return layout.is_interlaced ? std::span<const Pass>(kAdam7) : std::span<const Pass>(kWhole);
}

/// All bytes that the compressed data has to give: a filter byte and the pixels of each row of each pass.
int64_t unpacked_bytes(const PngLayout& layout) {
  int64_t total = 0;
  for (const Pass& pass : passes_of(layout)) {
    if (pass.width(layout.size) <= 0 || pass.height(layout.size) <= 0) continue;
    total += pass.height(layout.size) * (1 + layout.row_bytes(pass.width(layout.size)));
  }
  return total;
}

uint8_t paeth(int left, int above, int above_left) {
  const int estimate = left + above - above_left;
  const int to_left = std::abs(estimate - left);
  const int to_above = std::abs(estimate - above);
  const int to_above_left = std::abs(estimate - above_left);
  if (to_left <= to_above && to_left <= to_above_left) return static_cast<uint8_t>(left);
  return static_cast<uint8_t>(to_above <= to_above_left ? above : above_left);
}

/// Undoes the filter of one row in place. `above` is the row before it, zeros for the first of a pass. False for a
/// filter that does not exist.
bool unfilter(int filter, uint8_t* row, const uint8_t* above, int64_t bytes, int64_t pixel_bytes) {
  const int64_t head = std::min(pixel_bytes, bytes);  // the first pixel, which has none to its left
  switch (filter) {
    case 0:
      return true;
    case 1:
      for (int64_t i = head; i < bytes; ++i) row[i] = static_cast<uint8_t>(row[i] + row[i - pixel_bytes]);
      return true;
    case 2:
      for (int64_t i = 0; i < bytes; ++i) row[i] = static_cast<uint8_t>(row[i] + above[i]);
      return true;
    case 3:
      for (int64_t i = 0; i < head; ++i) row[i] = static_cast<uint8_t>(row[i] + above[i] / 2);
      for (int64_t i = head; i < bytes; ++i) {
        row[i] = static_cast<uint8_t>(row[i] + (row[i - pixel_bytes] + above[i]) / 2);
      }
      return true;
    case 4:
      for (int64_t i = 0; i < head; ++i) row[i] = static_cast<uint8_t>(row[i] + above[i]);
      for (int64_t i = head; i < bytes; ++i) {
        row[i] = static_cast<uint8_t>(row[i] + paeth(row[i - pixel_bytes], above[i], above[i - pixel_bytes]));
      }
      return true;
    default:
      return false;
  }
}

/// One pixel as 16-bit numbers or smaller, before anything is made of them.
struct Samples {
  std::array<uint16_t, 4> value{};
};

Samples read_samples(const PngLayout& layout, const uint8_t* row, int64_t x) {
  Samples samples;
  const int count = layout.samples();
  for (int64_t c = 0; c < count; ++c) {
    uint16_t& value = samples.value[static_cast<size_t>(c)];
    if (layout.depth == 16) {
      const uint8_t* bytes = row + (x * count + c) * 2;
      value = static_cast<uint16_t>(bytes[0] << 8 | bytes[1]);
    } else if (layout.depth == 8) {
      value = row[x * count + c];
    } else {
      const int64_t bit = x * layout.depth;
      value = static_cast<uint16_t>(row[bit / 8] >> (8 - layout.depth - bit % 8) & ((1 << layout.depth) - 1));
    }
  }
  return samples;
}

uint8_t grey_to_8_bits(uint16_t value, int depth) {
  if (depth == 16) return static_cast<uint8_t>(std::min<int>(value, 255));
  return static_cast<uint8_t>(value * (255 / ((1 << depth) - 1)));
}

/// The pixel as RGBA.
std::array<uint8_t, 4> to_rgba(const PngParts& parts, const Samples& samples) {
  const PngLayout& layout = parts.layout;
  const auto& value = samples.value;
  const auto high = [&](size_t c) { return static_cast<uint8_t>(layout.depth == 16 ? value[c] >> 8 : value[c]); };
  const auto& key = parts.color_key;
  switch (layout.color) {
    case PngLayout::grey: {
      const uint8_t grey = grey_to_8_bits(value[0], layout.depth);
      const bool is_clear = parts.has_transparency && value[0] == key[0];
      return {grey, grey, grey, static_cast<uint8_t>(is_clear ? 0 : 255)};
    }
    case PngLayout::palette: {
      const uint8_t* entry = parts.palette[value[0]];
      return {entry[0], entry[1], entry[2], entry[3]};
    }
    case PngLayout::grey_alpha:
      return {high(0), high(0), high(0), high(1)};
    case PngLayout::rgba:
      return {high(0), high(1), high(2), high(3)};
    default: {
      const bool is_clear = parts.has_transparency && value[0] == key[0] && value[1] == key[1] && value[2] == key[2];
      return {high(0), high(1), high(2), static_cast<uint8_t>(is_clear ? 0 : 255)};
    }
  }
}

/// Spreads one unfiltered row of `width` pixels over the picture's row, `step` pixels apart.
void write_row(const PngParts& parts, const uint8_t* row, int64_t width, int channels, int64_t step, uint8_t* out) {
  const PngLayout& layout = parts.layout;
  const bool is_copy = layout.depth == 8 && step == 1 && layout.samples() == channels &&
                       (layout.color == PngLayout::rgb || layout.color == PngLayout::rgba);
  if (is_copy) {
    std::copy_n(row, width * channels, out);
    return;
  }
  for (int64_t x = 0; x < width; ++x, out += step * channels) {
    const std::array<uint8_t, 4> pixel = to_rgba(parts, read_samples(layout, row, x));
    std::copy_n(pixel.begin(), channels, out);
  }
}

/// All IDAT chunks as one stream. The usual file has many; one is used where it lies.
std::vector<uint8_t> join(const std::vector<Bytes>& pieces) {
  std::vector<uint8_t> joined;
  size_t total = 0;
  for (const Bytes& piece : pieces) total += piece.size();
  joined.reserve(total);
  for (const Bytes& piece : pieces) joined.insert(joined.end(), piece.begin(), piece.end());
  return joined;
}

/// The filtered rows. An end of the stream after the last row is not asked for, as in Pillow.
std::unique_ptr<uint8_t[]> inflate_rows(const Encoded& file, const PngParts& parts, size_t needed) {
  const std::vector<uint8_t> joined = parts.data.size() == 1 ? std::vector<uint8_t>() : join(parts.data);
  const Bytes compressed = parts.data.size() == 1 ? parts.data[0] : Bytes(joined);
  if (needed / kLargestInflation > compressed.size()) {
    file.malformed("the file ends too early: {} bytes of compressed data can't hold {} x {} pixels", compressed.size(),
                   parts.layout.size.width, parts.layout.size.height);
  }
  auto rows = std::make_unique_for_overwrite<uint8_t[]>(needed);
  const InflateResult result = inflate_zlib(compressed, {rows.get(), needed});
  if (result.status == InflateStatus::corrupt) {
    file.malformed("the compressed data is damaged after {} of {} bytes", result.written, needed);
  }
  if (result.written < needed) {
    file.malformed("the file ends too early: expected {} bytes of pixels, got {}", needed, result.written);
  }
  return rows;
}

}  // namespace

Pixels decode_png(const Encoded& file, const ImageInfo& info, bool keep_alpha) {
  const PngParts parts = read_png_parts(file, true);
  const PngLayout& layout = parts.layout;
  const auto rows = inflate_rows(file, parts, static_cast<size_t>(unpacked_bytes(layout)));
  Pixels pixels = Pixels::allocate(info.stored, keep_alpha ? 4 : 3);
  const int64_t pixel_bytes = std::max(1, layout.pixel_bits() / 8);
  const std::vector<uint8_t> zeros(static_cast<size_t>(layout.row_bytes(layout.size.width)));
  uint8_t* row = rows.get();
  for (const Pass& pass : passes_of(layout)) {
    const int64_t width = pass.width(layout.size);
    if (width <= 0) continue;
    const int64_t row_bytes = layout.row_bytes(width);
    const uint8_t* above = zeros.data();
    for (int64_t y = pass.top; y < layout.size.height; y += pass.step_y) {
      const int filter = *row++;
      if (!unfilter(filter, row, above, row_bytes, pixel_bytes)) {
        file.malformed("row {} has the filter {}, and there are 0 to 4", y, filter);
      }
      write_row(parts, row, width, pixels.channels, pass.step_x, pixels.row(y) + pass.left * pixels.channels);
      above = row;
      row += row_bytes;
    }
  }
  return pixels;
}

}  // namespace oriel::image
