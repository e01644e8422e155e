#include "nn/vit.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include <algorithm>
#include <utility>

#include "ops/norm.hpp"
#ifdef ORIEL_CUDA
#include "nn/cuda/vit_graphs.hpp"
#endif

namespace oriel::nn {

#ifndef ORIEL_CUDA
class VitGraphs {};
#endif

Vit::~Vit() = default;

Vit::Vit(VitSpec spec, VitWeights weights) : spec_(std::move(spec)), weights_(std::move(weights)) {
#ifdef ORIEL_CUDA
  graphs_ = std::make_unique<VitGraphs>();
#endif
  if (!spec_.gated_mlp) return;
  for (BlockWeights& block : weights_.blocks)
    block.gated = ops::GatedLinear(std::exchange(block.gate, {}), std::exchange(block.up, {}));
}

VitOutput Vit::forward(VitInput input, const std::vector<int64_t>& hidden_states,
                       const BlockCallback& before_block) const {
#ifdef ORIEL_CUDA
  if (hidden_states.empty() && input.patches.is_cuda()) {
    const int64_t blocks = *std::max_element(spec_.feature_layers.begin(), spec_.feature_layers.end());
    const auto plainly = [&](VitInput small) { return run(std::move(small), {}, {}).features; };
    if (auto features = graphs_->run(spec_, input, plainly)) {
      if (before_block && blocks > 0) before_block(0, blocks);
      return {std::move(*features), {}};
    }
  }
#endif
  return run(std::move(input), hidden_states, before_block);
}

bool Vit::has_graph([[maybe_unused]] int64_t patches, [[maybe_unused]] const VitInput& arrangement) const {
#ifdef ORIEL_CUDA
  return graphs_->has_graph(patches, arrangement);
#else
  return false;
#endif
}

VitOutput Vit::run(VitInput input, const std::vector<int64_t>& hidden_states, const BlockCallback& before_block) const {
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
    hidden = attend(std::move(hidden), input.rotary, weights, windowed ? input.window_segments : input.segments);
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
                       const ops::Segments& segments) const {
  at::Tensor qkv = weights.qkv(norm(hidden, weights.norm1, spec_)).unflatten(1, {3, spec_.heads, spec_.head_dim()});
  // A statement of its own, so that qkv is gone before the product begins: an argument stays until its statement ends.
  const at::Tensor attended = ops::rotary_attention(std::move(qkv), rotary, spec_.rotary, segments);
  return weights.proj.add_to(hidden, attended);
}

at::Tensor Vit::mlp(at::Tensor x, const BlockWeights& weights) const {
  at::Tensor normed = norm(x, weights.norm2, spec_);
  const at::Tensor middle =
      spec_.gated_mlp ? weights.gated(normed, spec_.activation) : weights.up(normed, spec_.activation);
  normed.reset();
  return weights.down.add_to(x, middle);
}

std::optional<int64_t> graph_rows([[maybe_unused]] const VitSpec& spec, [[maybe_unused]] int64_t patches,
                                  [[maybe_unused]] at::ScalarType dtype, [[maybe_unused]] c10::Device device) {
#ifdef ORIEL_CUDA
  // How long segments get decides which kernel runs, not whether it can be captured.
  const ops::AttentionShape shape{spec.heads, spec.head_dim(), 0};
  if (patches > 0 && patches <= VitGraphs::most_patches && ops::attention_can_be_captured(dtype, device, shape))
    return VitGraphs::rounded_rows(patches);
#endif
  return std::nullopt;
}

at::Tensor norm(const at::Tensor& x, const NormWeights& weights, const VitSpec& spec) {
  return spec.norm == NormKind::layer_norm ? ops::layer_norm(x, weights.weight, weights.bias, spec.norm_eps)
                                           : ops::rms_norm(x, weights.weight, spec.norm_eps);
}

}  // namespace oriel::nn
