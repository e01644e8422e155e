// GIF (GIF89a specification): the first frame, composed as Pillow does. The canvas is the logical screen, grown where
// the frame reaches beyond it, and filled with the transparent index if there is one, else with index 0.
#include <algorithm>
#include <array>
#include <vector>

#include "image/decode_formats.hpp"

namespace oriel::image {
namespace {

using Palette = uint8_t[256][4];

struct Frame {
  int64_t left = 0, top = 0;
  Size size;
  Size canvas;
  bool is_interlaced = false;
  int transparent = -1;  ///< index, or -1
  Palette palette = {};
  size_t data = 0;  ///< where the compressed data begins: the code size, then blocks
};

/// Without a palette an index is a grey level. Entries beyond a palette's end are black.
void set_grey(Palette& palette) {
  for (size_t i = 0; i < 256; ++i) std::fill_n(palette[i], 3, static_cast<uint8_t>(i));
}

/// Reads a palette of 2^bits entries at `at`, which is moved behind it. As in Pillow, a palette in which each entry is
/// the grey of its own index counts as none: whatever held before goes on to hold.
void read_palette(const Encoded& file, int bits, size_t& at, Palette& palette) {
  const Bytes bytes = file.slice(at, size_t{3} << bits, "a palette");
  at += bytes.size();
  Palette read = {};
  bool is_ramp = true;
  for (size_t i = 0; i < bytes.size() / 3; ++i) {
    const Bytes entry = bytes.subspan(3 * i, 3);
    is_ramp = is_ramp && entry[0] == i && entry[1] == i && entry[2] == i;
    std::copy(entry.begin(), entry.end(), read[i]);
  }
  if (!is_ramp) std::copy_n(&read[0][0], sizeof read, &palette[0][0]);
}

/// The sub-block at `at`, which is moved to the next; empty at the terminator.
Bytes read_block(const Encoded& file, size_t& at) {
  const size_t length = file.u8(at, "a block");
  const Bytes block = file.slice(at + 1, length, "a block");
  at += 1 + length;
  return block;
}

void read_extension(const Encoded& file, size_t& at, Frame& frame) {
  constexpr uint8_t kGraphicControl = 0xF9;
  const uint8_t label = file.u8(at++, "an extension");
  Bytes block = read_block(file, at);
  if (label == kGraphicControl && !block.empty()) {
    if (block.size() < 4) file.malformed("expected a graphic control block of 4 bytes, got {}", block.size());
    if ((block[0] & 1) != 0) frame.transparent = block[3];
  }
  while (!block.empty()) block = read_block(file, at);
}

void read_image_descriptor(const Encoded& file, size_t& at, Frame& frame) {
  constexpr std::string_view kWhat = "the image descriptor";
  frame.left = file.u16le(at, kWhat);
  frame.top = file.u16le(at + 2, kWhat);
  frame.size = positive_size(file, file.u16le(at + 4, kWhat), file.u16le(at + 6, kWhat));
  const int flags = file.u8(at + 8, kWhat);
  at += 9;
  frame.is_interlaced = (flags & 0x40) != 0;
  if ((flags & 0x80) != 0) read_palette(file, (flags & 7) + 1, at, frame.palette);
  frame.data = at;
}

/// Everything up to the first frame's data.
Frame read_frame(const Encoded& file) {
  Frame frame;
  frame.canvas = {file.u16le(6, "the screen descriptor"), file.u16le(8, "the screen descriptor")};
  file.require(10, 3, "the screen descriptor");
  const int flags = file.bytes()[10];
  size_t at = 13;
  set_grey(frame.palette);
  if ((flags & 0x80) != 0) read_palette(file, (flags & 7) + 1, at, frame.palette);
  for (;;) {
    const uint8_t introducer = file.u8(at++, "the first frame");
    if (introducer == ';') file.malformed("the file holds no frame");
    if (introducer == '!') read_extension(file, at, frame);
    if (introducer == ',') break;
    // Other bytes are passed over, as Pillow does.
  }
  read_image_descriptor(file, at, frame);
  frame.canvas.width = std::max(frame.canvas.width, frame.left + frame.size.width);
  frame.canvas.height = std::max(frame.canvas.height, frame.top + frame.size.height);
  for (int i = 0; i < 256; ++i) frame.palette[i][3] = i == frame.transparent ? 0 : 255;
  return frame;
}

/// Codes of a growing number of bits, lowest bit first, from a chain of sub-blocks.
class CodeReader {
 public:
  CodeReader(const Encoded& file, size_t at) : file_(file), at_(at) {}

  uint32_t read(int bits) {
    while (count_ < bits) {
      while (block_.empty()) next_block();
      bits_ |= uint32_t{block_[0]} << count_;
      count_ += 8;
      block_ = block_.subspan(1);
    }
    const uint32_t code = bits_ & ((1U << bits) - 1);
    bits_ >>= bits;
    count_ -= bits;
    return code;
  }

 private:
  void next_block() {
    block_ = read_block(file_, at_);
    if (block_.empty()) file_.malformed("the frame's data ends too early");
  }

  const Encoded& file_;
  size_t at_;
  Bytes block_;
  uint32_t bits_ = 0;
  int count_ = 0;
};

/// Takes indices in the order of the file and puts them into their rows.
class FrameWriter {
 public:
  FrameWriter(const Frame& frame, std::vector<uint8_t>& canvas) : frame_(frame), canvas_(canvas) { start_row(); }

  [[nodiscard]] bool is_full() const { return y_ >= frame_.size.height; }
  [[nodiscard]] int64_t rows() const { return rows_; }

  void put(uint8_t index) {
    *out_++ = index;
    if (++x_ < frame_.size.width) return;
    x_ = 0;
    ++rows_;
    next_row();
    if (!is_full()) start_row();
  }

 private:
  /// Interlaced rows come in four passes: every 8th from 0, every 8th from 4, every 4th from 2, every 2nd from 1.
  void next_row() {
    constexpr std::array<int64_t, 4> kFirst{0, 4, 2, 1};
    constexpr std::array<int64_t, 4> kStep{8, 8, 4, 2};
    y_ += frame_.is_interlaced ? kStep[pass_] : 1;
    while (frame_.is_interlaced && is_full() && pass_ < 3) y_ = kFirst[++pass_];
  }
  void start_row() { out_ = canvas_.data() + (frame_.top + y_) * frame_.canvas.width + frame_.left; }

  const Frame& frame_;
  std::vector<uint8_t>& canvas_;
  uint8_t* out_ = nullptr;
  int64_t x_ = 0, y_ = 0, rows_ = 0;
  size_t pass_ = 0;
};

constexpr uint32_t kTableSize = 4096;

/// Variable-length LZW as GIF uses it (appendix F).
class LzwDecoder {
 public:
  LzwDecoder(const Encoded& file, size_t at)
      : file_(file), codes_(file, at + 1), root_bits_(file.u8(at, "the code size")) {
    if (root_bits_ < 1 || root_bits_ > 8) file.malformed("expected a code size of 1 to 8 bits, got {}", root_bits_);
    clear_ = 1U << root_bits_;
    reset();
  }

  void decode(FrameWriter& writer) {
    while (!writer.is_full()) {
      const uint32_t code = codes_.read(code_bits_);
      if (code == clear_) {
        reset();
      } else if (code == clear_ + 1) {
        file_.malformed("the frame's data ends too early: {} rows are there", writer.rows());
      } else {
        expand(code);
        for (size_t i = length_; i-- > 0 && !writer.is_full();) writer.put(string_[i]);
      }
    }
  }

 private:
  void reset() {
    next_ = clear_ + 2;
    code_bits_ = root_bits_ + 1;
    has_previous_ = false;
  }

  /// Puts the string of `code` into string_, last index first, and learns the string that this code completes.
  void expand(uint32_t code) {
    if (has_previous_ ? code > next_ : code > clear_) file_.malformed("the frame's data is damaged: code {}", code);
    length_ = 0;
    uint32_t at = code;
    if (has_previous_ && code == next_) {  // the string being learned: the previous one and its own first index
      string_[length_++] = first_;
      at = previous_;
    }
    while (at >= clear_) {
      if (at >= kTableSize || length_ + 1 >= string_.size())
        file_.malformed("the frame's data is damaged: code {}", code);
      string_[length_++] = suffix_[at];
      at = prefix_[at];
    }
    first_ = static_cast<uint8_t>(at);
    string_[length_++] = first_;
    if (has_previous_ && next_ < kTableSize) {
      suffix_[next_] = first_;
      prefix_[next_] = static_cast<uint16_t>(previous_);
      if (next_ == (1U << code_bits_) - 1 && code_bits_ < 12) ++code_bits_;
      ++next_;
    }
    previous_ = code;
    has_previous_ = true;
  }

  const Encoded& file_;
  CodeReader codes_;
  int root_bits_;
  uint32_t clear_ = 0, next_ = 0, previous_ = 0;
  int code_bits_ = 0;
  bool has_previous_ = false;
  uint8_t first_ = 0;
  size_t length_ = 0;
  std::array<uint8_t, kTableSize> suffix_{};
  std::array<uint16_t, kTableSize> prefix_{};
  std::array<uint8_t, kTableSize + 2> string_{};
};

}  // namespace

ImageInfo read_gif_header(const Encoded& file) {
  const Frame frame = read_frame(file);
  ImageInfo info;
  info.stored = frame.canvas;
  info.has_alpha = frame.transparent >= 0;
  return info;
}

Pixels decode_gif(const Encoded& file, const ImageInfo& info, bool keep_alpha) {
  const Frame frame = read_frame(file);
  const auto background = static_cast<uint8_t>(std::max(frame.transparent, 0));
  std::vector<uint8_t> canvas(static_cast<size_t>(info.stored.width * info.stored.height), background);
  FrameWriter writer(frame, canvas);
  LzwDecoder(file, frame.data).decode(writer);
  Pixels pixels = Pixels::allocate(info.stored, keep_alpha ? 4 : 3);
  apply_palette(canvas.data(), info.stored.width * info.stored.height, frame.palette, pixels.channels,
                pixels.data.get());
  return pixels;
}

}  // namespace oriel::image
