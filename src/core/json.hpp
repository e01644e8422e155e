#pragma once
// Reading configuration files: every value is checked, and an error names the file, the key, the expected and the found.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace oriel {

/// One JSON value together with the file and key path that it came from ("config.json: vision_config.patch_size").
/// A cheap value; the document lives as long as any Json that points into it. Absent and null are told apart, because
/// transformers does (spec/weights.md 3): an absent key takes the class default, null stays null.
class Json {
 public:
  /// Throws file_error if `path` can't be read or is larger than `max_bytes`, malformed_model if it is not JSON
  /// (with line and column), is not an object, nests deeper than 100, or holds NaN or Infinity.
  [[nodiscard]] static Json read(const std::filesystem::path& path, int64_t max_bytes = 512 << 20);
  /// The same from text; `name` stands for the file.
  [[nodiscard]] static Json parse(std::string_view text, std::string name);

  [[nodiscard]] bool is_absent() const;  ///< the key does not exist
  [[nodiscard]] bool is_null() const;    ///< the key exists and is null
  [[nodiscard]] bool has_value() const { return !is_absent() && !is_null(); }
  [[nodiscard]] bool is_object() const;
  [[nodiscard]] bool is_array() const;
  [[nodiscard]] bool is_string() const;
  [[nodiscard]] bool is_number() const;
  [[nodiscard]] bool is_bool() const;

  /// A member of an object. Absent if this is absent or null or has no such key; malformed_model if this is no object.
  [[nodiscard]] Json operator[](std::string_view key) const;
  /// Elements of an array; malformed_model if it is none.
  [[nodiscard]] std::vector<Json> elements() const;
  /// Members of an object in file order.
  [[nodiscard]] std::vector<std::pair<std::string, Json>> members() const;

  /// The value, or malformed_model naming file, key, expected kind and found text. Integers accept 64 and 64.0.
  [[nodiscard]] int64_t integer() const;
  [[nodiscard]] double number() const;
  [[nodiscard]] bool boolean() const;
  [[nodiscard]] std::string string() const;
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
  struct Document;
  Json(std::shared_ptr<const Document> document, const nlohmann::ordered_json* value, std::string path);
  std::shared_ptr<const Document> document_;
  const nlohmann::ordered_json* value_;
  std::string path_;
};

}  // namespace oriel
