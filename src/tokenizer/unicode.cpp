#include "tokenizer/unicode.hpp"

#include <algorithm>
#include <utility>

#include "tokenizer/unicode_tables.hpp"

namespace oriel::tokenizer {

void append_utf8(std::string& text, uint32_t code_point) {
  const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
  if (code_point < 0x80) return put(code_point);
  if (code_point < 0x800) {
    put(0xc0 | code_point >> 6);
  } else if (code_point < 0x10000) {
    put(0xe0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3f));
  } else {
    put(0xf0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3f));
    put(0x80 | (code_point >> 6 & 0x3f));
  }
  put(0x80 | (code_point & 0x3f));
}

std::optional<size_t> find_invalid_utf8(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  for (size_t i = 0; i < text.size();) {
    if (byte(i) < 0x80) {
      ++i;
      continue;
    }
    const unsigned char lead = byte(i);
    if (lead < 0xc2 || lead > 0xf4) return i;
    const size_t length = utf8_length(text[i]);
    // The second byte's range excludes long forms, surrogates and what lies above U+10FFFF.
    const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    if (i + 1 >= text.size() || byte(i + 1) < low || byte(i + 1) > high) return i;
    for (size_t k = 2; k < length; ++k)
      if (i + k >= text.size() || (byte(i + k) & 0xc0) != 0x80) return i;
    i += length;
  }
  return std::nullopt;
}

CodePointSet::CodePointSet(std::vector<Range> ranges) : ranges_(std::move(ranges)) {
  std::ranges::sort(ranges_, {}, &Range::first);
  std::vector<Range> joined;
  for (const Range& range : ranges_) {
    if (!joined.empty() && range.first <= joined.back().last + 1) {
      joined.back().last = std::max(joined.back().last, range.last);
    } else {
      joined.push_back(range);
    }
  }
  ranges_ = std::move(joined);
}

void CodePointSet::add(uint32_t first, uint32_t last) { add(CodePointSet({{first, last}})); }

void CodePointSet::add(const CodePointSet& other) {
  std::vector<Range> all = ranges_;
  all.insert(all.end(), other.ranges_.begin(), other.ranges_.end());
  *this = CodePointSet(std::move(all));
}

CodePointSet CodePointSet::complement() const {
  CodePointSet result;
  uint32_t next = 0;
  for (const Range& range : ranges_) {
    if (range.first > next) result.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next < code_point_count) result.ranges_.push_back({next, code_point_count - 1});
  return result;
}

bool CodePointSet::contains(uint32_t code_point) const {
  const auto after = std::ranges::upper_bound(ranges_, code_point, {}, &Range::first);
  return after != ranges_.begin() && code_point <= std::prev(after)->last;
}

std::optional<CodePointSet> category_set(std::string_view name) {
  constexpr std::pair<std::string_view, std::string_view> long_names[] = {
      {"Letter", "L"}, {"Mark", "M"},   {"Number", "N"},    {"Punctuation", "P"},
      {"Punct", "P"},  {"Symbol", "S"}, {"Separator", "Z"}, {"Other", "C"}};
  for (const auto& [long_name, short_name] : long_names)
    if (name == long_name) name = short_name;
  std::array<bool, std::size(category_names)> is_meant{};
  for (size_t i = 0; i < is_meant.size(); ++i)
    is_meant[i] = name.size() <= 2 && !name.empty() && std::string_view(category_names[i]).starts_with(name);
  std::vector<CodePointSet::Range> ranges;
  for (size_t i = 0; i < category_runs.size(); ++i) {
    if (!is_meant[category_runs[i] & 31]) continue;
    const uint32_t end = i + 1 < category_runs.size() ? category_runs[i + 1] >> 5 : code_point_count;
    ranges.push_back({category_runs[i] >> 5, end - 1});
  }
  if (ranges.empty()) return std::nullopt;
  return CodePointSet(std::move(ranges));
}

const CodePointSet& white_space_set() {
  static const CodePointSet set({{0x9, 0xd},
                                 {0x20, 0x20},
                                 {0x85, 0x85},
                                 {0xa0, 0xa0},
                                 {0x1680, 0x1680},
                                 {0x2000, 0x200a},
                                 {0x2028, 0x2029},
                                 {0x202f, 0x202f},
                                 {0x205f, 0x205f},
                                 {0x3000, 0x3000}});
  return set;
}

const CodePointSet& word_set() {
  static const CodePointSet set = [] {
    // Alphabetic characters that are symbols: letters in circles and squares.
    CodePointSet result({{0x24b6, 0x24e9}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}});
    for (const char* category : {"L", "M", "Nd", "Nl", "Pc"}) result.add(*category_set(category));
    return result;
  }();
  return set;
}

}  // namespace oriel::tokenizer
