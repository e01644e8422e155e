#include "arch/tokenizer_class.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace oriel::arch {
namespace {

// Their files are obeyed whatever class they name (transformers' TOKENIZER_MAPPING_NAMES: TokenizersBackend).
constexpr std::string_view obedient_models[] = {"llava",    "llava_next", "ministral", "ministral3", "mistral",
                                                "mistral3", "mixtral",    "pixtral",   "vipllava"};

std::string class_of_model(std::string_view model_type) {
  if (model_type.starts_with("qwen2") || model_type.starts_with("qwen3")) return "Qwen2Tokenizer";
  if (model_type.starts_with("gemma")) return "GemmaTokenizer";
  return {};
}

/// What LlamaTokenizer makes itself (transformers, tokenization_llama.py). Where the released files prepend a blank to
/// every stretch of text between special tokens, it prepends one to the first alone, unless it is told to be `legacy`.
std::string llama_parts(const Json& config) {
  const bool adds_space = !config["add_prefix_space"].is_bool() || config["add_prefix_space"].boolean();
  const bool is_legacy = config["legacy"].is_bool() && config["legacy"].boolean();
  const char* scheme = !adds_space ? "never" : is_legacy ? "always" : "first";
  const char* strip = adds_space ? R"(, {"type": "Strip", "content": " ", "start": 1, "stop": 0})" : "";
  return fmt::format(R"({{
    "normalizer": null,
    "pre_tokenizer": {{"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "{}", "split": false}},
    "decoder": {{"type": "Sequence", "decoders": [
      {{"type": "Replace", "pattern": {{"String": "\u2581"}}, "content": " "}},
      {{"type": "ByteFallback"}}, {{"type": "Fuse"}}{}]}},
    "model": {{"fuse_unk": true, "byte_fallback": true}}}})",
                     scheme, strip);
}

}  // namespace

TokenizerClass tokenizer_class(const Json& config, std::string_view model_type) {
  if (std::ranges::find(obedient_models, model_type) != std::end(obedient_models)) return {};
  std::string name = config["tokenizer_class"].is_string() ? config["tokenizer_class"].string() : "";
  if (name.empty()) name = class_of_model(model_type);
  if (name.ends_with("Fast")) name.resize(name.size() - 4);
  if (name == "Qwen2Tokenizer")
    return {.special_tokens = {{"unk_token", "<|endoftext|>"},
                               {"eos_token", "<|endoftext|>"},
                               {"pad_token", "<|endoftext|>"}},
            .named_tokens_are_special = true};
  if (name == "GemmaTokenizer")
    return {.special_tokens = {{"bos_token", "<bos>"},
                               {"eos_token", "<eos>"},
                               {"unk_token", "<unk>"},
                               {"pad_token", "<pad>"},
                               {"mask_token", "<mask>"}}};
  if (name == "LlamaTokenizer")
    return {.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}},
            .parts = llama_parts(config)};
  return {};
}

}  // namespace oriel::arch
