#pragma once
// Code points, UTF-8, and sets of characters by their Unicode 16 properties.
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace oriel::tokenizer {

inline constexpr uint32_t code_point_count = 0x110000;

/// Bytes of the UTF-8 sequence that begins with `lead`.
[[nodiscard]] constexpr size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/// The code point at `position`, which is moved behind it. `text` must be UTF-8.
[[nodiscard]] inline uint32_t next_code_point(std::string_view text, size_t& position) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[position + i])); };
  const uint32_t lead = byte(0);
  const size_t length = utf8_length(text[position]);
  uint32_t code_point = lead;
  if (length == 2) code_point = (lead & 0x1f) << 6 | (byte(1) & 0x3f);
  if (length == 3) code_point = (lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
  if (length == 4) code_point = (lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
  position += length;
  return code_point;
}

void append_utf8(std::string& text, uint32_t code_point);
/// The position of the first byte that does not belong to UTF-8.
[[nodiscard]] std::optional<size_t> find_invalid_utf8(std::string_view text);

/// A set of code points, as sorted ranges that do not touch.
class CodePointSet {
 public:
  struct Range {
    uint32_t first;
    uint32_t last;
  };
  CodePointSet() = default;
  explicit CodePointSet(std::vector<Range> ranges);

  void add(uint32_t first, uint32_t last);
  void add(const CodePointSet& other);
  [[nodiscard]] CodePointSet complement() const;
  [[nodiscard]] bool contains(uint32_t code_point) const;
  [[nodiscard]] const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

/// All characters of a general category, or of a group of them: "Lu", "L", "Letter". Empty for other names.
[[nodiscard]] std::optional<CodePointSet> category_set(std::string_view name);
/// The 25 characters of White_Space: Oniguruma's \s, and what Rust calls white space.
[[nodiscard]] const CodePointSet& white_space_set();
/// Letters, marks, decimal digits, letter numbers and connectors: Rust's \w but for the two joiners. Oniguruma's has
/// six superscripts and fractions of Latin-1 more.
[[nodiscard]] const CodePointSet& word_set();

}  // namespace oriel::tokenizer
