#include "arch/text_architecture.hpp"

#include <ATen/ops/arange.h>
#include <fmt/format.h>

namespace oriel::arch {

at::Tensor TextArchitecture::positions(int64_t tokens, std::span<const VisionRun>) const {
  return at::arange(tokens, at::kLong).unsqueeze(0);
}

std::vector<nn::TokenRange> TextArchitecture::blocks(std::span<const int64_t>, std::span<const VisionRun>) const {
  return {};
}

namespace {

nn::DecoderLayerWeights load_layer(WeightReader& reader, const TextTraits& traits, const std::string& layer) {
  const nn::DecoderSpec& spec = traits.decoder;
  const std::string attention = layer + "self_attn.";
  const auto norm = [&](const char* name) { return reader.tensor(layer + name, {spec.width}); };
  nn::DecoderLayerWeights weights;
  weights.attention_norm = norm("input_layernorm.weight");
  if (spec.sandwich_norms) {
    weights.attention_out_norm = norm("post_attention_layernorm.weight");
    weights.mlp_norm = norm("pre_feedforward_layernorm.weight");
    weights.mlp_out_norm = norm("post_feedforward_layernorm.weight");
  } else {
    weights.mlp_norm = norm("post_attention_layernorm.weight");
  }
  const int64_t kv_width = spec.kv_heads * spec.head_dim;
  weights.qkv =
      reader.linear({attention + "q_proj", attention + "k_proj", attention + "v_proj"},
                    {spec.heads * spec.head_dim, kv_width, kv_width}, spec.width, traits.query_key_value_bias);
  if (spec.query_key_norms) {
    weights.query_norm = reader.tensor(attention + "q_norm.weight", {spec.head_dim});
    weights.key_norm = reader.tensor(attention + "k_norm.weight", {spec.head_dim});
  }
  weights.proj = reader.linear(attention + "o_proj", spec.width, spec.heads * spec.head_dim, traits.projection_bias);
  weights.gate = reader.linear(layer + "mlp.gate_proj", spec.mlp_width, spec.width, traits.mlp_bias);
  weights.up = reader.linear(layer + "mlp.up_proj", spec.mlp_width, spec.width, traits.mlp_bias);
  weights.down = reader.linear(layer + "mlp.down_proj", spec.width, spec.mlp_width, traits.mlp_bias);
  return weights;
}

/// Embeddings and head, which are one tensor where config.json asks for it and the files do not hold two.
void load_ends(WeightReader& reader, const TextTraits& traits, nn::DecoderWeights& weights) {
  const nn::DecoderSpec& spec = traits.decoder;
  const std::string table = "language_model.embed_tokens.weight";
  const std::string head = "lm_head.weight";
  const bool one_is_enough = traits.tied_head && reader.has(table) != reader.has(head);
  const bool equal = traits.tied_head && reader.has(table) && reader.has(head) && reader.are_equal(table, head);
  if (equal) reader.skip(head);
  weights.embeddings = reader.tensor(one_is_enough && reader.has(head) ? head : table, {spec.vocabulary, spec.width});
  if (!one_is_enough && !equal)
    weights.head = reader.linear("lm_head", spec.vocabulary, spec.width, /*bias=*/false);
  else if (weights.embeddings.defined())
    weights.head = ops::Linear::sharing(weights.embeddings);
}

}  // namespace

nn::DecoderWeights load_decoder(WeightReader& reader, const TextTraits& traits) {
  nn::DecoderWeights weights;
  load_ends(reader, traits, weights);
  const int64_t depth = traits.decoder.depth();
  for (int64_t i = 0; i < depth; ++i)
    weights.layers.push_back(load_layer(reader, traits, fmt::format("language_model.layers.{}.", i)));
  weights.norm = reader.tensor("language_model.norm.weight", {traits.decoder.width});
  reader.expect_nothing_under(fmt::format("language_model.layers.{}.", depth),
                              fmt::format("a layer beyond num_hidden_layers = {}", depth));
  return weights;
}

}  // namespace oriel::arch
