#include "nn/vit.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/attention.hpp"
#include "ops/norm.hpp"

namespace oriel::nn {

Vit::Vit(VitSpec spec, VitWeights weights) : spec_(std::move(spec)), weights_(std::move(weights)) {}

VitOutput Vit::forward(VitInput input, const std::vector<int64_t>& hidden_states,
                       const BlockCallback& before_block) const {
  int64_t blocks = 0;
  for (const int64_t layer : spec_.feature_layers) blocks = std::max(blocks, layer);
  for (const int64_t layer : hidden_states) blocks = std::max(blocks, layer);

  VitOutput out;
  out.hidden_states.resize(hidden_states.size());
  std::vector<at::Tensor> features(spec_.feature_layers.size());
  at::Tensor hidden = embed(std::move(input.patches), std::move(input.positions));  // [T, width]
  for (int64_t i = 0;; ++i) {
    for (size_t k = 0; k < features.size(); ++k)
      if (spec_.feature_layers[k] == i)
        features[k] = spec_.norm_after_blocks ? norm(hidden, weights_.after_blocks, spec_) : hidden;
    for (size_t k = 0; k < hidden_states.size(); ++k)
      if (hidden_states[k] == i) out.hidden_states[k] = hidden;
    if (i == blocks) break;
    if (before_block) before_block(i, blocks);
    const bool windowed = !spec_.windowed.empty() && spec_.windowed[static_cast<size_t>(i)];
    const BlockWeights& weights = weights_.blocks[static_cast<size_t>(i)];
    // Statements of their own, so that what one half was given and needed is gone before the other begins.
    hidden = attend(std::move(hidden), input.rotary, weights, windowed ? input.cu_window_seqlens : input.cu_seqlens);
    hidden = mlp(std::move(hidden), weights);
  }
  hidden.reset();
  out.features = features.size() == 1 ? features.front() : at::cat(features, 1);
  return out;
}

at::Tensor Vit::embed(at::Tensor patches, at::Tensor positions) const {
  at::Tensor hidden = weights_.patch(patches);
  if (positions.defined()) hidden.add_(positions);
  return spec_.norm_before_blocks ? norm(hidden, weights_.before_blocks, spec_) : hidden;
}

at::Tensor Vit::attend(at::Tensor hidden, const ops::Rotary& rotary, const BlockWeights& weights,
                       std::span<const int64_t> cu_seqlens) const {
  at::Tensor qkv = weights.qkv(norm(hidden, weights.norm1, spec_)).unflatten(1, {3, spec_.heads, spec_.head_dim()});
  if (rotary.defined()) ops::rotate_query_key(qkv, rotary, spec_.rotary);
  const at::Tensor attended = ops::attention(qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2), cu_seqlens,
                                             1.0 / std::sqrt(static_cast<double>(spec_.head_dim())));
  qkv.reset();
  return weights.proj.add_to(hidden, attended);
}

at::Tensor Vit::mlp(at::Tensor x, const BlockWeights& weights) const {
  at::Tensor normed = norm(x, weights.norm2, spec_);
  const at::Tensor middle = spec_.gated_mlp ? weights.up.multiply_with(weights.gate(normed, spec_.activation), normed)
                                            : weights.up(normed, spec_.activation);
  normed.reset();
  return weights.down.add_to(x, middle);
}

at::Tensor norm(const at::Tensor& x, const NormWeights& weights, const VitSpec& spec) {
  return spec.norm == NormKind::layer_norm ? ops::layer_norm(x, weights.weight, weights.bias, spec.norm_eps)
                                           : ops::rms_norm(x, weights.weight, spec.norm_eps);
}

}  // namespace oriel::nn
