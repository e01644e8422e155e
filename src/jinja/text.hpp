#pragma once
// Text that knows where it comes from: which bytes the template wrote, and which its variables brought in.
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace oriel::jinja {

/// UTF-8 text and the stretches of it that are foreign: not the template's own, but of a message.
class Text {
 public:
  struct Run {
    std::string_view bytes;
    bool foreign = false;
  };

  Text() = default;
  explicit Text(std::string bytes, bool foreign = false);

  [[nodiscard]] const std::string& bytes() const { return bytes_; }
  [[nodiscard]] size_t size() const { return bytes_.size(); }
  [[nodiscard]] bool empty() const { return bytes_.empty(); }
  [[nodiscard]] bool any_foreign() const { return !foreign_.empty(); }
  /// Bytes that a copy takes, about: each foreign stretch becomes a piece of its own in the end.
  [[nodiscard]] size_t cost() const { return bytes_.size() + 128 * foreign_.size(); }
  /// The text cut where its origin changes. The views live as long as this text.
  [[nodiscard]] std::vector<Run> runs() const;

  void append(const Text& other);
  void append(std::string_view own);
  /// Bytes [begin, end), which must not cut a character.
  [[nodiscard]] Text slice(size_t begin, size_t end) const;

 private:
  void add_foreign(size_t begin, size_t end);

  std::string bytes_;
  std::vector<std::pair<size_t, size_t>> foreign_;  // [begin, end), in order, apart from each other
};

/// Bytes of the character that starts at `at` in well-formed UTF-8.
[[nodiscard]] size_t character_size(std::string_view text, size_t at);
[[nodiscard]] size_t count_characters(std::string_view text);
/// Byte at which character number `index` starts; the size of the text if there are fewer.
[[nodiscard]] size_t byte_of_character(std::string_view text, size_t index);

/// Bytes of the whitespace that `text` starts or ends with, as Python's str.strip finds it.
[[nodiscard]] size_t leading_whitespace(std::string_view text);
[[nodiscard]] size_t trailing_whitespace(std::string_view text);

}  // namespace oriel::jinja
