#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "tokenizer/flat_map.hpp"

namespace oriel::tokenizer {

/// Ids are below this: far more than any vocabulary holds, and small enough for a table of all of them.
inline constexpr int64_t id_limit = 1 << 21;

/// Tokens and their ids.
class Vocabulary {
 public:
  /// The object "vocab". Throws malformed_model for ids out of range and ids given twice.
  [[nodiscard]] static Vocabulary read(const Json& json);

  [[nodiscard]] std::optional<uint32_t> id(std::string_view token) const {
    const uint32_t* found = ids_.find(token);
    return found == nullptr ? std::nullopt : std::optional(*found);
  }
  /// Nothing for ids that no token has.
  [[nodiscard]] std::optional<std::string_view> token(uint32_t id) const {
    if (id >= entries_.size() || entries_[id] == no_entry) return std::nullopt;
    return ids_.key(ids_.entries()[entries_[id]]);
  }
  [[nodiscard]] size_t size() const { return ids_.size(); }
  /// One more than the highest id.
  [[nodiscard]] uint32_t end() const { return static_cast<uint32_t>(entries_.size()); }

 private:
  static constexpr uint32_t no_entry = ~uint32_t{0};

  StringTable ids_;
  std::vector<uint32_t> entries_;  // of each id, in ids_
};

}  // namespace oriel::tokenizer
