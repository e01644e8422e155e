#include "tokenizer_files.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "arch/tokenizer_class.hpp"
#include "core/error.hpp"

namespace oriel {
namespace {

using tokenizer::AddedToken;

// In transformers' order, which decides about the ids of tokens that are new.
constexpr const char* standard_names[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

Json read_if_there(const std::filesystem::path& directory, const char* name) {
  std::error_code error;
  return std::filesystem::exists(directory / name, error) ? Json::read(directory / name) : Json::parse("{}", name);
}

/// A token as config files write it: a string, or an object with "content".
std::optional<AddedToken> read_token(const Json& json) {
  if (json.is_object() && json["content"].is_string()) {
    AddedToken token = AddedToken::read(json);
    token.normalized = json["normalized"].boolean_or(false);
    token.special = true;
    return token;
  }
  if (!json.is_string()) return std::nullopt;
  return AddedToken{.content = AddedToken::read_content(json), .special = true};
}

/// The named tokens of tokenizer_config.json, of special_tokens_map.json where that counts, and of the class.
class NamedTokens {
 public:
  NamedTokens(const Json& config, const Json& map, const arch::TokenizerClass& defaults) {
    for (const auto& [name, token] : defaults.special_tokens) set(name, AddedToken{.content = token, .special = true});
    add_all(config);
    // transformers reads this file only where the other does not say what is added.
    if (config["added_tokens_decoder"].is_absent()) add_all(map);
  }
  [[nodiscard]] const std::vector<AddedToken>& in_order() {
    for (const char* name : standard_names)
      if (tokens_.contains(name)) ordered_.push_back(tokens_.at(name));
    for (const std::string& name : other_names_) ordered_.push_back(tokens_.at(name));
    ordered_.insert(ordered_.end(), extra_.begin(), extra_.end());
    return ordered_;
  }
  [[nodiscard]] std::optional<std::string> find(const std::string& name) const {
    const auto found = tokens_.find(name);
    return found == tokens_.end() ? std::nullopt : std::optional(found->second.content);
  }

 private:
  void set(const std::string& name, const AddedToken& token) {
    const bool is_standard = std::ranges::find(standard_names, name) != std::end(standard_names);
    if (!is_standard && !tokens_.contains(name)) other_names_.push_back(name);
    tokens_.insert_or_assign(name, token);
  }
  void add_all(const Json& file) {
    for (const auto& [name, value] : file.members()) {
      if (name == "extra_special_tokens" || name == "additional_special_tokens") {
        add_extra(value);
      } else if (name.ends_with("_token")) {
        if (const auto token = read_token(value)) {
          set(name, *token);
        } else if (value.is_null()) {
          tokens_.erase(name);
          std::erase(other_names_, name);
        }
      }
    }
  }
  void add_extra(const Json& value) {
    if (value.is_array()) {
      for (const Json& element : value.elements())
        if (const auto token = read_token(element)) extra_.push_back(*token);
    } else if (value.is_object()) {
      for (const auto& [name, element] : value.members())
        if (const auto token = read_token(element)) set(name, *token);
    }
  }

  std::map<std::string, AddedToken> tokens_;
  std::vector<std::string> other_names_;
  std::vector<AddedToken> extra_;
  std::vector<AddedToken> ordered_;
};

tokenizer::Pipeline read_pipeline(const std::filesystem::path& directory, const Json& config,
                                  const arch::TokenizerClass& kind, const std::optional<std::string>& unknown) {
  const Json file = Json::read(directory / "tokenizer.json");
  if (kind.parts == nullptr) return tokenizer::Pipeline::read(file);
  // A class that builds its own parts takes tokenizer.json's list of added tokens where tokenizer_config.json has none.
  return tokenizer::Pipeline::read(file, Json::parse(kind.parts(config, unknown), "the tokenizer's class"),
                                   /*with_added_tokens=*/config["added_tokens_decoder"].is_absent());
}

/// tokenizer_config.json's own list of added tokens, which may say more than tokenizer.json.
void add_configured_tokens(tokenizer::Pipeline& pipeline, const Json& decoder) {
  if (!decoder.has_value()) return;
  std::map<int64_t, AddedToken> by_id;
  for (const auto& [key, value] : decoder.members()) {
    int64_t id = 0;
    for (const char c : key) {
      if (c < '0' || c > '9' || id >= tokenizer::id_limit)
        throw_error(ErrorCode::malformed_model, "{}: expected ids as keys, got {}", decoder.where(),
                    quote_json(key.substr(0, 100)));
      id = id * 10 + (c - '0');
    }
    by_id.insert_or_assign(id, AddedToken::read(value));
  }
  for (const auto& [id, token] : by_id) pipeline.add_token(token);
}

}  // namespace

TokenizerFiles read_tokenizer_files(const std::filesystem::path& directory) {
  const Json config = read_if_there(directory, "tokenizer_config.json");
  const Json map = read_if_there(directory, "special_tokens_map.json");
  const Json model_type = read_if_there(directory, "config.json")["model_type"];
  const arch::TokenizerClass kind = arch::tokenizer_class(config, model_type.is_string() ? model_type.string() : "");
  NamedTokens named(config, map, kind);
  TokenizerFiles files{.pipeline = read_pipeline(directory, config, kind, named.find("unk_token"))};

  add_configured_tokens(files.pipeline, config["added_tokens_decoder"]);
  for (const AddedToken& token : named.in_order())
    if (kind.named_tokens_are_special || files.pipeline.added_tokens().find(token.content) == nullptr)
      files.pipeline.add_token(token);
  files.pipeline.finish();

  const auto id_of = [&](const char* name) -> std::optional<int64_t> {
    const auto token = named.find(name);
    return token ? files.pipeline.id(*token) : std::nullopt;
  };
  files.bos = id_of("bos_token");
  files.eos = id_of("eos_token");
  files.pad = id_of("pad_token");
  files.unknown = id_of("unk_token");
  return files;
}

}  // namespace oriel
