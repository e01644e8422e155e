#pragma once
// What transformers' tokenizer classes make of the files: names of special tokens that a file leaves out, and parts of
// tokenizer.json that a class does not obey.
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.hpp"

namespace oriel::arch {

struct TokenizerClass {
  /// Name ("bos_token") and token, for the names that the class sets by itself.
  std::vector<std::pair<std::string, std::string>> special_tokens = {};
  /// Tokens with a name are special whatever the file says.
  bool named_tokens_are_special = false;
  /// Makes a JSON object with the parts that the class builds itself, in tokenizer.json's words: "normalizer",
  /// "pre_tokenizer", "decoder", and under "model" all options beside the vocabulary and the merges. `config` is
  /// tokenizer_config.json, `unknown` the token of the name unk_token. nullptr: the class obeys the file.
  std::string (*parts)(const Json& config, const std::optional<std::string>& unknown) = nullptr;
};

/// The class that transformers' AutoTokenizer takes: `tokenizer_class` of `config`, which is tokenizer_config.json, or
/// where that is empty the one of `model_type`. Nothing is set for other classes, whose files are obeyed.
[[nodiscard]] TokenizerClass tokenizer_class(const Json& config, std::string_view model_type);

}  // namespace oriel::arch
