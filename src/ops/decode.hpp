#pragma once
// What a decoder's step needs besides its products and norms: one new token each of several sequences, with everything
// that changes from step to step on the GPU, so that one CUDA graph serves all steps. Prompts take the first two of the
// functions likewise. On the CPU, and for shapes without kernels, the decoder puts the same together from other ops.
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace oriel::ops {

struct DecodeShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};
/// Whether this device has kernels for the functions below.
[[nodiscard]] bool has_decode_kernels(const DecodeShape& shape, at::ScalarType dtype, c10::Device device);

/// float32 [tokens, head_dim]: cos of the angles of token_rotary, then sin, each pair's once.
[[nodiscard]] at::Tensor token_turns(const at::Tensor& positions, const at::Tensor& frequencies,
                                     const at::Tensor& axes);

/// Norms of the heads of q and k; undefined weights: none.
struct HeadNorms {
  at::Tensor query;  ///< [head_dim]
  at::Tensor key;
  double eps = 0;
  bool is_offset = false;  ///< as in rms_norm_offset
};

/// One layer's cache [slots, capacity, kv_heads, head_dim], and whose the tokens are: `places` int64 [2, tokens] holds
/// the slot of each and its sequence's length with it, or a length of 0 for nobody's. None of it is checked. Undefined
/// where there is no cache.
struct CachedTokens {
  at::Tensor keys;
  at::Tensor values;
  at::Tensor places;
};

/// qkv [tokens, heads + 2 kv_heads, head_dim]: norms and turns q where it lies (RotaryPrecision::working), and puts k,
/// likewise, and v into the cache; without one, k and v stay where they lie, too.
void rotate_and_store(const at::Tensor& qkv, const at::Tensor& turns, const HeadNorms& norms, int64_t heads,
                      const CachedTokens& cached);

/// softmax(q k^T * scale) v over the newest `window` (0: all) tokens of each token's slot: [tokens, heads * head_dim]
/// of the first `heads` of qkv. Nobody's tokens give zeros. A token's bits depend on its own sequence alone.
[[nodiscard]] at::Tensor decode_attention(const at::Tensor& qkv, int64_t heads, const CachedTokens& cached,
                                          int64_t window, double scale);

/// The first largest of each row of float32 logits [n, vocabulary] and its log_softmax, which is NaN for a row that
/// holds NaN or infinity: float64 [2, n], on any device.
[[nodiscard]] at::Tensor greedy_choices(const at::Tensor& logits);

}  // namespace oriel::ops
