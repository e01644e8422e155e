#pragma once
// Stop strings in a text that comes in pieces.
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace oriel::text {

/// Passes text on until one of some strings is complete. What may be the begin of one is held back, so that neither the
/// string nor a part of it is ever passed on. The match that is complete first wins, of those that end together the
/// longest: how the text is cut makes no difference. Strings start with a whole character, so whole characters in are
/// whole characters out.
class StopStrings {
 public:
  /// Throws invalid_argument for one that is empty or no UTF-8.
  explicit StopStrings(std::vector<std::string> strings);

  /// The text that `piece` makes certain. After a match it is what stands in front of it; nothing may be pushed then.
  [[nodiscard]] std::string push(std::string_view piece);
  /// What is held back, at the end of the text.
  [[nodiscard]] std::string finish();
  /// The string that was found.
  [[nodiscard]] const std::optional<std::string>& found() const noexcept { return found_; }

 private:
  [[nodiscard]] size_t held_length() const;

  std::vector<std::string> strings_;
  std::string held_;
  std::optional<std::string> found_;
};

}  // namespace oriel::text
