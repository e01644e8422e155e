#pragma once
// Normalization form C with Unicode 9's tables, which is what the `tokenizers` package computes.
#include <cstdint>
#include <string_view>
#include <vector>

namespace oriel::tokenizer {

/// Whether `text` is certainly composed already. False may be a false alarm.
[[nodiscard]] bool is_composed(std::string_view text);

struct ComposedCharacter {
  uint32_t code_point;
  /// Characters of the old text less those of the new: 0 takes the place of one, -1 of two, and so on; 1 is one more.
  int change;
};
void compose_text(std::string_view text, std::vector<ComposedCharacter>& result);

}  // namespace oriel::tokenizer
