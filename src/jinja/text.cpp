#include "jinja/text.hpp"

#include <algorithm>

namespace oriel::jinja {
namespace {

char32_t character_at(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + i])); };
  switch (character_size(text, at)) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
  }
}

bool is_whitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool continues_character(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

}  // namespace

Text::Text(std::string bytes, bool foreign) : bytes_(std::move(bytes)) {
  if (foreign) add_foreign(0, bytes_.size());
}

void Text::add_foreign(size_t begin, size_t end) {
  if (begin == end) return;
  if (!foreign_.empty() && foreign_.back().second == begin)
    foreign_.back().second = end;
  else
    foreign_.emplace_back(begin, end);
}

std::vector<Text::Run> Text::runs() const {
  std::vector<Run> runs;
  const std::string_view all = bytes_;
  size_t at = 0;
  for (const auto& [begin, end] : foreign_) {
    if (begin > at) runs.push_back({all.substr(at, begin - at), false});
    runs.push_back({all.substr(begin, end - begin), true});
    at = end;
  }
  if (at < all.size()) runs.push_back({all.substr(at), false});
  return runs;
}

void Text::append(const Text& other) {
  const size_t offset = bytes_.size();
  bytes_ += other.bytes_;
  for (const auto& [begin, end] : other.foreign_) add_foreign(begin + offset, end + offset);
}

void Text::append(std::string_view own) { bytes_ += own; }

Text Text::slice(size_t begin, size_t end) const {
  Text part(bytes_.substr(begin, end - begin));
  const auto first = std::ranges::upper_bound(foreign_, begin, {}, &std::pair<size_t, size_t>::second);
  for (auto run = first; run != foreign_.end() && run->first < end; ++run)
    part.add_foreign(std::max(run->first, begin) - begin, std::min(run->second, end) - begin);
  return part;
}

size_t character_size(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(std::ranges::count_if(text, [](char c) { return !continues_character(c); }));
}

size_t byte_of_character(std::string_view text, size_t index) {
  size_t at = 0;
  for (; index > 0 && at < text.size(); --index) at += character_size(text, at);
  return at;
}

size_t leading_whitespace(std::string_view text) {
  size_t at = 0;
  while (at < text.size() && is_whitespace(character_at(text, at))) at += character_size(text, at);
  return at;
}

size_t trailing_whitespace(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    size_t start = end - 1;
    while (start > 0 && continues_character(text[start])) --start;
    if (!is_whitespace(character_at(text, start))) break;
    end = start;
  }
  return text.size() - end;
}

}  // namespace oriel::jinja
