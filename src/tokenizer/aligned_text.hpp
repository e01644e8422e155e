#pragma once
// Text on its way through normalizer and pre-tokenizer, with the bytes of the original text that it stands for.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pattern.hpp"
#include "tokenizer/unicode.hpp"

namespace oriel::tokenizer {

/// Bytes [begin, end) of the original text.
struct Span {
  uint32_t begin = 0;
  uint32_t end = 0;
  friend bool operator==(const Span&, const Span&) = default;
};

/// A stretch of text. Points into the original text or into an AlignedText.
struct Piece {
  std::string_view text;
  const Span* alignment = nullptr;  ///< of each byte; null where the text is as it was, and where nobody asks
  uint32_t begin = 0;               ///< where text that is as it was begins in the original
  bool at_start = false;            ///< nothing stands before it

  [[nodiscard]] Piece part(size_t from, size_t to) const {
    return {text.substr(from, to - from), alignment == nullptr ? nullptr : alignment + from,
            begin + static_cast<uint32_t>(from), at_start && from == 0};
  }
  /// What the bytes [from, to) stand for, in whole characters.
  [[nodiscard]] Span span(size_t from, size_t to) const;
};

/// Text that a step has changed.
class AlignedText {
 public:
  /// A copy. Alignment is kept up to date only if `tracked`.
  AlignedText(const Piece& piece, bool tracked);
  /// A copy without alignment, into which each replace() may put `longest` bytes.
  AlignedText(std::string_view text, size_t longest);

  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] Piece piece() const { return {text_, tracked_ ? alignment_.data() : nullptr, begin_, at_start_}; }

  /// Puts `content` in the place of each match; it stands for the last character of what it replaces. Throws
  /// limit_exceeded where that makes the text many times longer.
  void replace(const std::vector<Pattern::Match>& matches, std::string_view content);
  /// Puts `content` in front; it stands for the first character.
  void prepend(std::string_view content) { replace({{0, 0}}, content); }
  /// Unicode 9's composed form. A character that was put together stands for its first part.
  void compose();

 private:
  std::string text_;
  std::vector<Span> alignment_;
  size_t longest_;
  uint32_t begin_;
  bool tracked_;
  bool at_start_;
};

/// All places of a non-empty `needle`, from left to right.
void find_literal(std::string_view text, std::string_view needle, std::vector<Pattern::Match>& matches);

}  // namespace oriel::tokenizer
