// Mistral, as Pixtral-12B and Mistral-Small-3.1 wrap it: where config.json has a window, all layers have it.
// spec/text.md 1.
#include <utility>

#include "arch/decoder_config.hpp"
#include "arch/llava_text.hpp"

namespace oriel::arch {
namespace {

constexpr DecoderDefaults class_defaults{.vocabulary = 32000,
                                         .width = 4096,
                                         .mlp_width = 14336,
                                         .depth = 32,
                                         .heads = 32,
                                         .kv_heads = 8,
                                         .norm_eps = 1e-6,
                                         .max_positions = 131072};
constexpr DecoderDefaults small_3_defaults{.vocabulary = 131072,
                                           .width = 5120,
                                           .mlp_width = 32768,
                                           .depth = 40,
                                           .heads = 32,
                                           .kv_heads = 8,
                                           .norm_eps = 1e-5,
                                           .max_positions = 131072,
                                           .head_dim = 128};

class MistralText final : public TextArchitecture {
 public:
  MistralText(const Json& text, TextWrapper wrapper, bool is_small_3) {
    traits_.family = std::move(wrapper.family);
    traits_.names = prefixed_text_names();
    traits_.tied_head = wrapper.tied_head;
    traits_.placeholder_tokens = {wrapper.image_token};
    refuse_quantised_text(text);
    read_decoder(text, is_small_3 ? small_3_defaults : class_defaults, traits_);
    nn::DecoderSpec& decoder = traits_.decoder;
    const auto window = read_window(text, is_small_3 ? std::nullopt : std::optional<int64_t>(4096));
    for (nn::DecoderLayerSpec& layer : decoder.layers) layer.window = window.value_or(0);
    set_rotary(read_rope_keys(text, is_small_3 ? 1e9 : 10000.0), traits_);
  }
};

}  // namespace

std::unique_ptr<TextArchitecture> make_mistral_text(const Json& text, TextWrapper wrapper, bool is_small_3) {
  return std::make_unique<MistralText>(text, std::move(wrapper), is_small_3);
}

}  // namespace oriel::arch
