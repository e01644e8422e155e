#pragma once
// The one decoder-only transformer of all text models, told apart by a DecoderSpec value.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "nn/kv_cache.hpp"
#include "ops/activation.hpp"
#include "ops/causal_attention.hpp"
#include "ops/decode.hpp"
#include "ops/linear.hpp"
#include "ops/rotary.hpp"

namespace oriel::nn {

using TokenRange = ops::TokenRange;

enum class DecoderNorm {
  rms_norm,         ///< normalised, rounded, times the weight
  rms_norm_offset,  ///< times 1 + weight, rounded once
};

/// How a kind of layer turns positions into angles.
struct RotarySpec {
  at::Tensor frequencies;  ///< float32 [head_dim / 2], on the CPU
  /// Which row of the positions each pair of a head turns with; empty: all with the first.
  std::vector<int64_t> axes;
};

struct DecoderLayerSpec {
  int64_t window = 0;  ///< keys that a query sees, itself among them; 0: all
  int64_t rotary = 0;  ///< index into DecoderSpec::rotaries
};

/// What a decoder is made of. Layers are pre-norm: x += proj(attention(norm(x))); x += down(gated(norm(x))). With
/// sandwich norms what is added is normed too.
struct DecoderSpec {
  int64_t vocabulary = 0;
  int64_t width = 0;
  int64_t mlp_width = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  ///< heads / kv_heads query heads in a row share one
  int64_t head_dim = 0;
  DecoderNorm norm = DecoderNorm::rms_norm;
  double norm_eps = 1e-6;
  bool sandwich_norms = false;
  bool query_key_norms = false;  ///< of each head, before the rotation
  ops::Activation activation = ops::Activation::silu;
  double attention_scale = 1;
  double embedding_scale = 1;  ///< rounded to the dtype
  int64_t position_axes = 1;   ///< rows of the positions
  std::vector<RotarySpec> rotaries;
  std::vector<DecoderLayerSpec> layers;

  [[nodiscard]] int64_t depth() const { return static_cast<int64_t>(layers.size()); }
};

struct DecoderLayerWeights {
  at::Tensor attention_norm, mlp_norm;          ///< [width], of what a half reads
  at::Tensor attention_out_norm, mlp_out_norm;  ///< [width], sandwich norms only
  at::Tensor query_norm, key_norm;              ///< [head_dim], query_key_norms only
  ops::Linear qkv;                              ///< width -> (heads + 2 kv_heads) * head_dim: all of q, then k, v
  ops::Linear proj;                             ///< heads * head_dim -> width
  ops::Linear gate, up;                         ///< width -> mlp_width; the decoder moves them into `gated`
  ops::Linear down;                             ///< mlp_width -> width
  ops::GatedLinear gated = {};
};

struct DecoderWeights {
  at::Tensor embeddings;  ///< [vocabulary, width]
  std::vector<DecoderLayerWeights> layers;
  at::Tensor norm;   ///< [width]
  ops::Linear head;  ///< width -> vocabulary
};

/// Neighbouring tokens of one sequence: a chunk of a prompt, or one new token.
struct DecoderRun {
  int64_t slot = 0;   ///< of the cache
  int64_t begin = 0;  ///< index of the first in its sequence
  int64_t tokens = 0;
  std::vector<TokenRange> blocks;  ///< of the sequence; none may be cut by the end of the run
  /// How many of the last tokens have their results asked for; unset: all. Of the others only keys and values are made.
  std::optional<int64_t> wanted = {};
};

/// A decoder with its weights. Immutable: its methods are safe from many threads, caches are not.
class Decoder {
 public:
  Decoder(DecoderSpec spec, DecoderWeights weights);

  /// ids int64 [n] of the vocabulary -> the rows that the first layer reads, [n, width].
  [[nodiscard]] at::Tensor embed(const at::Tensor& ids) const;
  /// rows [tokens of all runs, width] and positions int64 [axes, the same], packed in the order of the runs -> what the
  /// last layer makes of those that are wanted, [wanted tokens, width]. Reads and writes the runs' slots of `cache`;
  /// without one, every run is a whole sequence.
  [[nodiscard]] at::Tensor forward(at::Tensor rows, const at::Tensor& positions, std::span<const DecoderRun> runs,
                                   const KvCache* cache) const;
  /// hidden [n, width] of forward -> float32 [n, vocabulary].
  [[nodiscard]] at::Tensor logits(const at::Tensor& hidden) const;

  /// One new token each of several sequences, from ids to logits float32 [n, vocabulary]: `ids` of the vocabulary,
  /// positions int64 [axes, n] on the CPU, runs of one token. On a GPU everything runs in kernels that take from the
  /// device what changes between steps, and up to DecoderGraphs::most_tokens of them as one CUDA graph, with the same
  /// bits; elsewhere this is embed, forward and logits.
  [[nodiscard]] at::Tensor step(std::span<const int64_t> ids, const at::Tensor& positions,
                                std::span<const DecoderRun> runs, KvCache& cache) const;

  [[nodiscard]] const DecoderSpec& spec() const { return spec_; }
  [[nodiscard]] const at::Tensor& embeddings() const { return weights_.embeddings; }
  [[nodiscard]] KvCache::Shape cache_shape(int64_t slots, int64_t capacity) const;

 private:
  struct Batch;
  [[nodiscard]] Batch make_batch(const at::Tensor& positions, std::span<const DecoderRun> runs,
                                 const KvCache* cache) const;
  [[nodiscard]] at::Tensor layers(at::Tensor hidden, const Batch& batch) const;
  /// step by kernels. `input` int64 [3 + axes, n] on the GPU: ids, slots, lengths with the token (0: nobody's),
  /// positions.
  [[nodiscard]] at::Tensor step_on_device(const at::Tensor& input, const KvCache& cache) const;
  /// Of positions int64 [axes, n] on the GPU: one a RotarySpec.
  [[nodiscard]] std::vector<at::Tensor> turns(const at::Tensor& positions) const;
  [[nodiscard]] ops::DecodeShape shape() const;
  [[nodiscard]] at::Tensor norm(const at::Tensor& x, const at::Tensor& weight) const;
  [[nodiscard]] at::Tensor add_norm(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight) const;
  [[nodiscard]] at::Tensor attend(at::Tensor hidden, const Batch& batch, size_t layer) const;
  /// Rotation, cache and attention of the packed product qkv [tokens, heads + 2 kv_heads, head_dim], which is written
  /// to: [tokens, heads * head_dim]. By our kernels, or where there are none.
  [[nodiscard]] at::Tensor attention_by_kernels(const at::Tensor& qkv, const Batch& batch, size_t layer) const;
  [[nodiscard]] at::Tensor attention_by_ops(const at::Tensor& qkv, const Batch& batch, size_t layer) const;
  /// Of rotated q [tokens, heads, head_dim] over the cache, or over k and v [tokens, kv_heads, head_dim] without one;
  /// in the last layer, of the wanted tokens alone.
  [[nodiscard]] at::Tensor attend_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                       const Batch& batch, size_t layer) const;
  [[nodiscard]] at::Tensor mlp(at::Tensor hidden, const DecoderLayerWeights& weights) const;

  DecoderSpec spec_;
  DecoderWeights weights_;
  at::Tensor embedding_scale_;  ///< [], in the dtype; undefined: 1
  struct Turn {
    at::Tensor frequencies;
    at::Tensor axes;
  };
  std::vector<Turn> turns_;   ///< RotarySpec on the weights' device
  bool has_kernels_ = false;  ///< for what lies between the products of attention
  std::shared_ptr<const void> identity_ = std::make_shared<const char>();  ///< of the weights: whose graphs a cache has
};

}  // namespace oriel::nn
