#pragma once
// Reading configuration files: every value is checked, and an error names the file, the key, the expected and the
// found.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace oriel {

/// One JSON value together with the file and key path that it came from ("config.json: vision_config.patch_size").
/// A cheap value; the document lives as long as any Json that points into it. Absent and null are told apart, because
/// transformers does (spec/weights.md 3): an absent key takes the class default, null stays null.
class Json {
 public:
  /// What happens to a key that an object holds twice: the last one wins, as in Python, or malformed_model names it.
  enum class DuplicateKeys { last_wins, refuse };

  /// Throws file_error if `path` can't be read, limit_exceeded if it is larger than `max_bytes` or holds more than
  /// eight million values, malformed_model if it is not JSON (with line and column), is not an object, nests deeper
  /// than 100, or holds NaN, Infinity or a number beyond the range of a double.
  [[nodiscard]] static Json read(const std::filesystem::path& path, int64_t max_bytes = 512 << 20);
  /// The same from text; `name` stands for the file.
  [[nodiscard]] static Json parse(std::string_view text, std::string name,
                                  DuplicateKeys duplicates = DuplicateKeys::last_wins);

  [[nodiscard]] bool is_absent() const;  ///< the key does not exist
  [[nodiscard]] bool is_null() const;    ///< the key exists and is null
  [[nodiscard]] bool has_value() const { return !is_absent() && !is_null(); }
  [[nodiscard]] bool is_object() const;
  [[nodiscard]] bool is_array() const;
  [[nodiscard]] bool is_string() const;
  [[nodiscard]] bool is_number() const;
  [[nodiscard]] bool is_integer() const;  ///< a number without fraction and exponent, in 64 bits: 64, not 64.0
  [[nodiscard]] bool is_bool() const;

  /// A member of an object. Absent if this is absent or null or has no such key; malformed_model if this is no object.
  [[nodiscard]] Json operator[](std::string_view key) const;
  /// Elements of an array; malformed_model if it is none.
  [[nodiscard]] std::vector<Json> elements() const;
  /// Members of an object in file order.
  [[nodiscard]] std::vector<std::pair<std::string, Json>> members() const;

  /// The value, or malformed_model naming file, key, expected kind and found text. Integers accept 64 and 64.0;
  /// true and false are no numbers.
  [[nodiscard]] int64_t integer() const;
  [[nodiscard]] double number() const;
  [[nodiscard]] bool boolean() const;
  [[nodiscard]] std::string string() const;
  /// The same without a copy: it lives as long as the document.
  [[nodiscard]] std::string_view text() const;
  [[nodiscard]] std::vector<int64_t> integers() const;
  [[nodiscard]] std::vector<double> numbers() const;

  /// The value if the key exists, else `fallback`. null is an error, as in transformers' strict configs.
  [[nodiscard]] int64_t integer_or(int64_t fallback) const;
  [[nodiscard]] double number_or(double fallback) const;
  [[nodiscard]] bool boolean_or(bool fallback) const;
  [[nodiscard]] std::string string_or(std::string_view fallback) const;

  /// An integer in [low, high]; malformed_model with all three values otherwise.
  [[nodiscard]] int64_t integer_in(int64_t low, int64_t high) const;
  [[nodiscard]] int64_t integer_in_or(int64_t low, int64_t high, int64_t fallback) const;

  /// "config.json: vision_config.patch_size", for messages.
  [[nodiscard]] std::string where() const;
  /// Compact text of the value, for fingerprints and messages; empty if absent.
  [[nodiscard]] std::string dump() const;

 private:
  struct Value;
  struct Object;
  struct Document;
  struct Place;
  class Builder;
  /// From a place to one of its members or elements.
  using Step = std::variant<std::monostate, std::string_view, size_t>;
  Json(std::shared_ptr<const Place> place, const Value* value, Step step = {});
  /// The place of this value itself.
  [[nodiscard]] std::shared_ptr<const Place> here() const;
  [[noreturn]] void refuse(std::string_view expected) const;

  std::shared_ptr<const Place> place_;  // of the value, or of what it is a step away from
  const Value* value_;                  // nullptr where the key is absent
  Step step_;
};

/// `text` in double quotes with JSON's escapes. `text` must be UTF-8: is_utf8 tells.
[[nodiscard]] std::string quote_json(std::string_view text);
/// Whether `text` is well-formed UTF-8: shortest forms, no surrogates, nothing above U+10FFFF.
[[nodiscard]] bool is_utf8(std::string_view text);

}  // namespace oriel
