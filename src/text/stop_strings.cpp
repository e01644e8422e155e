#include "text/stop_strings.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"

namespace oriel::text {
namespace {

/// Whether the bytes are whole characters, by the table of RFC 3629.
bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U; };
    const auto is_tail = [&](size_t at) { return (byte(at) & 0xc0U) == 0x80U; };
    const unsigned lead = byte(i);
    const unsigned second = byte(i + 1);
    size_t length = 0;
    if (lead < 0x80)
      length = 1;
    else if (lead >= 0xc2 && lead <= 0xdf && is_tail(i + 1))
      length = 2;
    else if (lead >= 0xe0 && lead <= 0xef && is_tail(i + 1) && is_tail(i + 2) && !(lead == 0xe0 && second < 0xa0) &&
             !(lead == 0xed && second > 0x9f))
      length = 3;
    else if (lead >= 0xf0 && lead <= 0xf4 && is_tail(i + 1) && is_tail(i + 2) && is_tail(i + 3) &&
             !(lead == 0xf0 && second < 0x90) && !(lead == 0xf4 && second > 0x8f))
      length = 4;
    if (length == 0) return false;
    i += length;
  }
  return true;
}

}  // namespace

StopStrings::StopStrings(std::vector<std::string> strings) : strings_(std::move(strings)) {
  for (const std::string& text : strings_) {
    if (text.empty())
      throw_error(ErrorCode::invalid_argument, "JobOptions::stop_strings: expected texts, got an empty one");
    if (!is_utf8(text))
      throw_error(ErrorCode::invalid_argument, "JobOptions::stop_strings: expected UTF-8, got {} bytes that are not",
                  text.size());
  }
}

std::string StopStrings::push(std::string_view piece) {
  held_ += piece;
  size_t best_begin = 0;
  size_t best_end = std::string::npos;
  for (const std::string& text : strings_) {
    const size_t begin = held_.find(text);
    if (begin == std::string::npos) continue;
    const size_t end = begin + text.size();
    if (end > best_end || (end == best_end && begin >= best_begin)) continue;
    best_begin = begin;
    best_end = end;
    found_ = text;
  }
  const size_t certain = found_ ? best_begin : held_.size() - held_length();
  std::string passed = held_.substr(0, certain);
  held_ = found_ ? std::string() : held_.substr(certain);
  return passed;
}

std::string StopStrings::finish() { return std::exchange(held_, {}); }

size_t StopStrings::held_length() const {
  size_t longest = 0;
  for (const std::string& text : strings_)
    for (size_t length = std::min(text.size() - 1, held_.size()); length > longest; --length)
      if (std::string_view(held_).ends_with(std::string_view(text).substr(0, length))) longest = length;
  return longest;
}

}  // namespace oriel::text
