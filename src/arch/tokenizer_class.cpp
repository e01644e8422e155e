#include "arch/tokenizer_class.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace oriel::arch {
namespace {

// Their files are obeyed whatever class they name (transformers' TOKENIZER_MAPPING_NAMES: TokenizersBackend).
constexpr std::string_view obedient_models[] = {"llava",    "llava_next", "ministral", "ministral3", "mistral",
                                                "mistral3", "mixtral",    "pixtral",   "vipllava"};

std::string class_of_model(std::string_view model_type) {
  if (model_type.starts_with("qwen3_5") || model_type == "qwen4_exp") return "Qwen3_5Tokenizer";
  if (model_type.starts_with("qwen2") || model_type.starts_with("qwen3")) return "Qwen2Tokenizer";
  if (model_type.starts_with("gemma")) return "GemmaTokenizer";
  return {};
}

// The parts below are what 5.17's classes build in __init__ (tokenization_{qwen2,qwen3_5,gpt2,gemma,llama}.py).

/// null is false, as in Python.
bool adds_prefix_space(const Json& config) {
  return config["add_prefix_space"].is_bool() && config["add_prefix_space"].boolean();
}

/// Qwen's but for the pattern, which is written as JSON writes it.
std::string qwen_parts(const Json& config, std::string_view pattern) {
  return fmt::format(R"({{
    "normalizer": {{"type": "NFC"}},
    "pre_tokenizer": {{"type": "Sequence", "pretokenizers": [
      {{"type": "Split", "pattern": {{"Regex": "{}"}}, "behavior": "Isolated", "invert": false}},
      {{"type": "ByteLevel", "add_prefix_space": {}, "use_regex": false}}]}},
    "decoder": {{"type": "ByteLevel"}},
    "model": {{}}}})",
                     pattern, adds_prefix_space(config));
}

std::string qwen2_parts(const Json& config, const std::optional<std::string>& /*unknown*/) {
  return qwen_parts(config, R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|)"
                            R"( ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)");
}

std::string qwen3_5_parts(const Json& config, const std::optional<std::string>& /*unknown*/) {
  return qwen_parts(config, R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|)"
                            R"( ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+)");
}

std::string gpt2_parts(const Json& config, const std::optional<std::string>& /*unknown*/) {
  return fmt::format(R"({{
    "normalizer": null,
    "pre_tokenizer": {{"type": "ByteLevel", "add_prefix_space": {}, "use_regex": true}},
    "decoder": {{"type": "ByteLevel"}},
    "model": {{}}}})",
                     adds_prefix_space(config));
}

std::string gemma_parts(const Json& /*config*/, const std::optional<std::string>& unknown) {
  return fmt::format(R"({{
    "normalizer": {{"type": "Replace", "pattern": {{"String": " "}}, "content": "\u2581"}},
    "pre_tokenizer": {{"type": "Split", "pattern": {{"String": " "}}, "behavior": "MergedWithPrevious",
                       "invert": false}},
    "decoder": {{"type": "Sequence", "decoders": [
      {{"type": "Replace", "pattern": {{"String": "\u2581"}}, "content": " "}},
      {{"type": "ByteFallback"}}, {{"type": "Fuse"}}]}},
    "model": {{"fuse_unk": true, "byte_fallback": true, "unk_token": {}}}}})",
                     unknown ? quote_json(*unknown) : "null");
}

/// Where the released files prepend a blank to every stretch of text between special tokens, LlamaTokenizer prepends
/// one to the first alone, unless it is told to be `legacy`.
std::string llama_parts(const Json& config, const std::optional<std::string>& /*unknown*/) {
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
  if (name == "Qwen2Tokenizer" || name == "Qwen3_5Tokenizer")
    return {.special_tokens = {{"unk_token", "<|endoftext|>"},
                               {"eos_token", "<|endoftext|>"},
                               {"pad_token", "<|endoftext|>"}},
            .named_tokens_are_special = name == "Qwen2Tokenizer",
            .parts = name == "Qwen2Tokenizer" ? qwen2_parts : qwen3_5_parts};
  if (name == "GPT2Tokenizer")
    return {.special_tokens = {{"bos_token", "<|endoftext|>"},
                               {"eos_token", "<|endoftext|>"},
                               {"unk_token", "<|endoftext|>"}},
            .parts = gpt2_parts};
  if (name == "GemmaTokenizer")
    return {.special_tokens = {{"bos_token", "<bos>"},
                               {"eos_token", "<eos>"},
                               {"unk_token", "<unk>"},
                               {"pad_token", "<pad>"},
                               {"mask_token", "<mask>"}},
            .parts = gemma_parts};
  if (name == "LlamaTokenizer")
    return {.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}},
            .parts = llama_parts};
  return {};
}

}  // namespace oriel::arch
