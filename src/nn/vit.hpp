#pragma once
// The one vision transformer of all architectures, told apart by a VitSpec value.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "ops/activation.hpp"
#include "ops/attention.hpp"
#include "ops/linear.hpp"
#include "ops/rotary.hpp"

namespace oriel::nn {

enum class NormKind { layer_norm, rms_norm };

/// What a tower is made of. Blocks are pre-norm: x += proj(attention(norm1(x))); x += mlp(norm2(x)).
struct VitSpec {
  int64_t patch_values = 0;  ///< inputs of the patch embedding
  int64_t width = 0;
  int64_t heads = 0;      ///< head_dim = width / heads
  int64_t mlp_width = 0;  ///< hidden columns of the MLP (of the gate, where gated)
  int64_t depth = 0;      ///< blocks in the checkpoint
  NormKind norm = NormKind::layer_norm;
  double norm_eps = 1e-6;
  bool norm_before_blocks = false;
  bool norm_after_blocks = false;
  bool gated_mlp = false;
  ops::Activation activation = ops::Activation::gelu_tanh;
  ops::RotaryPrecision rotary = ops::RotaryPrecision::float32;
  std::vector<bool> windowed;  ///< [depth]: which blocks attend inside windows only; empty: none
  /// Which hidden states make the output, side by side: 0 is the input of the first block, i the output of block i - 1.
  /// norm_after_blocks applies to them. Blocks after the last one listed do not run.
  std::vector<int64_t> feature_layers;

  [[nodiscard]] int64_t head_dim() const { return width / heads; }
};

struct NormWeights {
  at::Tensor weight;
  at::Tensor bias;  ///< layer_norm only
};

/// The norm of a tower, of the kind and with the eps that `spec` names, over the last dimension.
[[nodiscard]] at::Tensor norm(const at::Tensor& x, const NormWeights& weights, const VitSpec& spec);

struct BlockWeights {
  NormWeights norm1, norm2;
  ops::Linear qkv;   ///< width -> 3 * width: all of q, then k, then v
  ops::Linear proj;  ///< width -> width
  ops::Linear gate;  ///< width -> mlp_width, where gated; the tower moves it and `up` into `gated`
  ops::Linear up;    ///< width -> mlp_width
  ops::Linear down;  ///< mlp_width -> width
  ops::GatedLinear gated = {};
};

struct VitWeights {
  ops::Linear patch;  ///< patch_values -> width
  NormWeights before_blocks, after_blocks;
  std::vector<BlockWeights> blocks;
};

/// The patches of one call, of any number of pictures, packed: rows of all pictures one after the other.
struct VitInput {
  at::Tensor patches;             ///< [T, patch_values]
  at::Tensor positions;           ///< [T, width], added to the patch embedding; undefined: none
  ops::Rotary rotary;             ///< [T, head_dim], or undefined
  ops::Segments segments;         ///< where pictures (or temporal slots) begin and end
  ops::Segments window_segments;  ///< the same for windowed blocks; empty if there are none
};

struct VitOutput {
  at::Tensor features;                    ///< [T, width * feature_layers]
  std::vector<at::Tensor> hidden_states;  ///< those asked for, in the order asked for, [T, width] each
};

/// The rows, rounded up, that a call of so many patches runs over as a CUDA graph; nothing where it is launched
/// plainly.
[[nodiscard]] std::optional<int64_t> graph_rows(const VitSpec& spec, int64_t patches, at::ScalarType dtype,
                                                c10::Device device);

/// Called before every block with its index and the number of blocks that run; may throw to stop.
using BlockCallback = std::function<void(int64_t block, int64_t blocks)>;

class VitGraphs;

/// A tower with its weights. Immutable but for what it remembers to launch faster: forward is safe from many threads.
class Vit {
 public:
  Vit(VitSpec spec, VitWeights weights);
  ~Vit();
  Vit(Vit&&) = delete;

  /// Runs the tower; small inputs on a GPU from CUDA graphs, with one call of before_block for the whole.
  /// `hidden_states` lists further states to return, numbered as VitSpec::feature_layers. Moving the input in lets go
  /// of its patches and positions when they are not needed any more.
  [[nodiscard]] VitOutput forward(VitInput input, const std::vector<int64_t>& hidden_states = {},
                                  const BlockCallback& before_block = {}) const;
  /// Whether forward, asked for no hidden states, would replay a graph for so many patches of this arrangement: all
  /// that the tower itself takes is held then. Never on the CPU.
  [[nodiscard]] bool has_graph(int64_t patches, const VitInput& arrangement) const;
  [[nodiscard]] const VitSpec& spec() const { return spec_; }

 private:
  [[nodiscard]] VitOutput run(VitInput input, const std::vector<int64_t>& hidden_states,
                              const BlockCallback& before_block) const;
  [[nodiscard]] at::Tensor embed(at::Tensor patches, at::Tensor positions) const;
  [[nodiscard]] at::Tensor attend(at::Tensor hidden, const ops::Rotary& rotary, const BlockWeights& weights,
                                  const ops::Segments& segments) const;
  [[nodiscard]] at::Tensor mlp(at::Tensor x, const BlockWeights& weights) const;

  VitSpec spec_;
  VitWeights weights_;
  std::unique_ptr<VitGraphs> graphs_;  ///< on a GPU only
};

}  // namespace oriel::nn
