#include "text/stop_strings.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "core/json.hpp"

namespace oriel::text {
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
