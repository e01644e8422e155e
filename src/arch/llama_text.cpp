// Llama, as LLaVA wraps it: plain causal attention, rotary frequencies that may be stretched. spec/text.md 1.
#include <utility>

#include "arch/decoder_config.hpp"
#include "arch/llava_text.hpp"

namespace oriel::arch {
namespace {

class LlamaText final : public TextArchitecture {
 public:
  LlamaText(const Json& text, TextWrapper wrapper) {
    traits_.family = std::move(wrapper.family);
    traits_.names = prefixed_text_names();
    traits_.tied_head = wrapper.tied_head;
    traits_.placeholder_tokens = {wrapper.image_token};
    refuse_quantised_text(text);
    read_decoder(text,
                 {.vocabulary = 32000,
                  .width = 4096,
                  .mlp_width = 11008,
                  .depth = 32,
                  .heads = 32,
                  .kv_heads = std::nullopt,
                  .norm_eps = 1e-6,
                  .max_positions = 2048},
                 traits_);
    traits_.query_key_value_bias = traits_.projection_bias = text["attention_bias"].boolean_or(false);
    traits_.mlp_bias = text["mlp_bias"].boolean_or(false);
    set_rotary(read_rope_keys(text, 10000.0), traits_);
  }
};

}  // namespace

std::unique_ptr<TextArchitecture> make_llama_text(const Json& text, TextWrapper wrapper) {
  return std::make_unique<LlamaText>(text, std::move(wrapper));
}

}  // namespace oriel::arch
