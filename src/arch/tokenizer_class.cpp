#include "arch/tokenizer_class.hpp"

namespace oriel::arch {
namespace {

std::string_view class_of_model(std::string_view model_type) {
  if (model_type.starts_with("qwen2") || model_type.starts_with("qwen3")) return "Qwen2Tokenizer";
  if (model_type.starts_with("gemma")) return "GemmaTokenizer";
  return {};
}

}  // namespace

TokenizerClass tokenizer_class(std::string_view tokenizer_class, std::string_view model_type) {
  std::string_view name = tokenizer_class.empty() ? class_of_model(model_type) : tokenizer_class;
  if (name.ends_with("Fast")) name.remove_suffix(4);
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
  // llava obeys its file although the file names this class.
  if (name == "LlamaTokenizer" && model_type != "llava")
    return {.special_tokens = {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}}};
  return {};
}

}  // namespace oriel::arch
