#pragma once
// What transformers' tokenizer classes add to the files: names of special tokens that a file leaves out.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace oriel::arch {

struct TokenizerClass {
  /// Name ("bos_token") and token, for the names that the class sets by itself.
  std::vector<std::pair<std::string, std::string>> special_tokens = {};
  /// Tokens with a name are special whatever the file says.
  bool named_tokens_are_special = false;
};

/// The class that transformers' AutoTokenizer takes: `tokenizer_class` of tokenizer_config.json, or where that is empty
/// the one of `model_type`. Nothing is set for other classes, which obey their files.
[[nodiscard]] TokenizerClass tokenizer_class(std::string_view tokenizer_class, std::string_view model_type);

}  // namespace oriel::arch
