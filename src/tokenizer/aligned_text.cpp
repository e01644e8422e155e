#include "tokenizer/aligned_text.hpp"

#include <utility>

#include "core/error.hpp"
#include "tokenizer/nfc.hpp"

namespace oriel::tokenizer {
namespace {

// A space that becomes a metaspace is three times as long.
constexpr size_t most_growth = 16;

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

}  // namespace

Span Piece::span(size_t from, size_t to) const {
  if (from >= to) {
    const uint32_t at = alignment == nullptr ? begin + static_cast<uint32_t>(from)
                        : from < text.size() ? alignment[from].begin
                        : text.empty()       ? begin
                                             : alignment[text.size() - 1].end;
    return {at, at};
  }
  if (alignment != nullptr) return {alignment[from].begin, alignment[to - 1].end};
  while (from > 0 && is_continuation(text[from])) --from;
  while (to < text.size() && is_continuation(text[to])) ++to;
  return {begin + static_cast<uint32_t>(from), begin + static_cast<uint32_t>(to)};
}

AlignedText::AlignedText(const Piece& piece, bool tracked)
    : text_(piece.text),
      longest_(most_growth * piece.text.size() + (1 << 20)),
      begin_(piece.begin),
      tracked_(tracked),
      at_start_(piece.at_start) {
  if (!tracked) return;
  if (piece.alignment != nullptr) {
    alignment_.assign(piece.alignment, piece.alignment + piece.text.size());
    return;
  }
  alignment_.reserve(text_.size());
  for (size_t i = 0; i < text_.size();) {
    const size_t length = utf8_length(text_[i]);
    alignment_.insert(alignment_.end(), length, piece.span(i, i + length));
    i += length;
  }
}

AlignedText::AlignedText(std::string_view text, size_t longest)
    : text_(text), longest_(longest), begin_(0), tracked_(false), at_start_(true) {}

void AlignedText::replace(const std::vector<Pattern::Match>& matches, std::string_view content) {
  if (matches.empty()) return;
  if (matches.size() * content.size() > longest_)
    throw_error(ErrorCode::limit_exceeded, "tokenizer: expected replacements that keep a text below {} bytes, got more",
                longest_);
  std::string text;
  std::vector<Span> alignment;
  size_t done = 0;
  const auto keep_until = [&](size_t end) {
    text.append(text_, done, end - done);
    if (tracked_)
      alignment.insert(alignment.end(), alignment_.begin() + static_cast<ptrdiff_t>(done),
                       alignment_.begin() + static_cast<ptrdiff_t>(end));
    done = end;
  };
  // The last character of the match; what is put in front stands for the first one, as in `tokenizers`.
  const auto stands_for = [&](const Pattern::Match& match) {
    if (alignment_.empty()) return Span{begin_, begin_};
    return alignment_[match.end > 0 ? match.end - 1 : 0];
  };
  for (const Pattern::Match& match : matches) {
    keep_until(match.begin);
    text += content;
    if (tracked_) alignment.insert(alignment.end(), content.size(), stands_for(match));
    done = match.end;
  }
  keep_until(text_.size());
  text_ = std::move(text);
  alignment_ = std::move(alignment);
}

void AlignedText::compose() {
  std::vector<ComposedCharacter> characters;
  compose_text(text_, characters);
  std::string text;
  std::vector<Span> alignment;
  size_t position = 0;  // the next byte of the old text
  for (const ComposedCharacter& character : characters) {
    const size_t before = text.size();
    append_utf8(text, character.code_point);
    if (!tracked_) continue;
    const bool is_extra = character.change > 0;
    const Span stands_for = !is_extra      ? alignment_[position]
                            : position > 0 ? alignment_[position - 1]
                                           : Span{begin_, begin_};
    alignment.insert(alignment.end(), text.size() - before, stands_for);
    for (int taken = is_extra ? 1 : character.change; taken <= 0 && position < text_.size(); ++taken)
      position += utf8_length(text_[position]);
  }
  text_ = std::move(text);
  alignment_ = std::move(alignment);
}

void find_literal(std::string_view text, std::string_view needle, std::vector<Pattern::Match>& matches) {
  matches.clear();
  for (size_t at = text.find(needle); at != std::string_view::npos; at = text.find(needle, at + needle.size()))
    matches.push_back({at, at + needle.size()});
}

}  // namespace oriel::tokenizer
