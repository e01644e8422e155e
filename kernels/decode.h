#pragma once
// The launchers of a decoder's step: one new token each of a few sequences. What kernels.h says of launchers holds
// here.
//
// What changes from step to step lies on the device (positions, slots, lengths), so that one CUDA graph serves all
// steps. `slots` and `lengths` [tokens] say whose token each is: the last of the first lengths[i] tokens of slots[i]. A
// token of length 0 is nobody's: it writes nothing to the cache, and its rows are zeros or without meaning. What these
// arrays hold is not checked.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels.h"

namespace oriel::kernels {

/// y = f(x weight^T + bias) + residual; with `gated`, f(x G^T + g) * (x U^T + u), where weight is all of G, then all of
/// U, and bias likewise. A row's bits depend on nothing but that row. weight is read before earlier kernels have ended:
/// none of them may write it.
struct FewRowsParams {
  static constexpr int64_t most_rows = 8;

  const void* x = nullptr;         ///< [rows, in]
  const void* weight = nullptr;    ///< [out, in], or [2 * out, in]
  const void* bias = nullptr;      ///< [out] or [2 * out], or null
  const void* residual = nullptr;  ///< [rows, out], or null; may be y
  void* y = nullptr;               ///< [rows, out]; not x
  int64_t rows = 0;                ///< 1 to most_rows
  int64_t in = 0;                  ///< a multiple of 8
  int64_t out = 0;
  ElementwiseFunction function = ElementwiseFunction::identity;
  bool gated = false;
  Element element = Element::bfloat16;
};
/// Whether a chip's matrix units take the element (float32 needs none).
bool few_rows_supports(Element element, int major);
cudaError_t multiply_few_rows(const FewRowsParams& params, cudaStream_t stream);

/// y[r] = residual[r] + norm(x[r]), where norm is rms_norm's, rounded before it is added; without a residual, the norm.
/// A block takes a row.
struct WideNormParams {
  static constexpr int64_t most_width = 16384;

  const void* x = nullptr;         ///< [rows, width]
  const void* weight = nullptr;    ///< [width]
  const void* residual = nullptr;  ///< [rows, width], or null
  void* y = nullptr;               ///< [rows, width]; may be x or residual
  int64_t rows = 0;
  int64_t width = 0;  ///< a multiple of 8, at most most_width
  float eps = 0;
  bool weight_plus_one = false;
  Element element = Element::bfloat16;
};
cudaError_t rms_norm_wide(const WideNormParams& params, cudaStream_t stream);

/// turns[i, k] = cos, turns[i, pairs + k] = sin of positions[axes[k], i] * frequencies[k], in float32.
struct TokenTurnsParams {
  const int64_t* positions = nullptr;  ///< [*, tokens], rows position_stride apart
  const float* frequencies = nullptr;  ///< [pairs]
  const int64_t* axes = nullptr;       ///< [pairs], or null: all 0
  float* turns = nullptr;              ///< [tokens, 2 * pairs]
  int64_t tokens = 0;
  int64_t pairs = 0;
  int64_t position_stride = 0;
};
cudaError_t token_turns(const TokenTurnsParams& params, cudaStream_t stream);

/// Of each token's packed q, k and v: norms the heads of q and k where weights for that are given, turns them with cos
/// and sin rounded to the element and every step rounded, leaves q where it was and puts k and v into the cache;
/// without a cache, leaves k where it was, too, and v alone. Tokens of a prompt as well as of a step, up to 2^30 heads
/// in all.
struct RotateAndStoreParams {
  void* qkv = nullptr;               ///< [tokens, heads + 2 * kv_heads, head_dim]
  const float* turns = nullptr;      ///< [tokens, head_dim]: cos of the head_dim / 2 angles, then sin
  const void* query_norm = nullptr;  ///< [head_dim], or null
  const void* key_norm = nullptr;    ///< the same
  void* keys = nullptr;              ///< [slots, capacity, kv_heads, head_dim], or null
  void* values = nullptr;            ///< the same
  const int64_t* slots = nullptr;    ///< with a cache
  const int64_t* lengths = nullptr;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;  ///< even, at most 256
  int64_t capacity = 0;
  float eps = 0;
  bool weight_plus_one = false;
  Element element = Element::bfloat16;
};
cudaError_t rotate_and_store(const RotateAndStoreParams& params, cudaStream_t stream);

/// softmax(q k^T * scale) v of one query a token over the newest `window` of its slot's tokens.
struct DecodeAttentionParams {
  const void* q = nullptr;       ///< [tokens, heads, head_dim], tokens q_stride apart
  const void* keys = nullptr;    ///< [slots, capacity, kv_heads, head_dim]
  const void* values = nullptr;  ///< the same
  const int64_t* slots = nullptr;
  const int64_t* lengths = nullptr;
  float* partial = nullptr;  ///< scratch of decode_attention_scratch() values
  void* out = nullptr;       ///< [tokens, heads, head_dim]
  int64_t q_stride = 0;
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  ///< heads / kv_heads query heads in a row share one
  int64_t head_dim = 0;  ///< a multiple of 8, at most 256
  int64_t capacity = 0;
  int64_t window = 0;  ///< 0: all
  int32_t splits = 1;  ///< of decode_attention_splits()
  float scale = 1;
  Element element = Element::bfloat16;
  bool on_matrix_units = false;  ///< weights are rounded to the element; where decode_attention_has_units()
};
/// Whether a chip's matrix units take the element.
bool decode_attention_has_units(Element element, int major);
/// Into how many parts at most the keys of a token are cut, where it sees up to `capacity`. The cut depends on what the
/// token sees and on kv_heads alone, so that a token's bits depend on its own sequence alone.
int32_t decode_attention_splits(int64_t kv_heads, int64_t capacity);
int64_t decode_attention_scratch(int64_t tokens, int64_t heads, int64_t head_dim, int32_t splits);
bool decode_attention_supports(int64_t heads, int64_t kv_heads, int64_t head_dim);
cudaError_t decode_attention(const DecodeAttentionParams& params, cudaStream_t stream);

/// The first largest of each row and its log_softmax, which is NaN for a row that holds NaN or plus infinity.
struct GreedyParams {
  static constexpr int64_t parts = 64;

  const float* logits = nullptr;  ///< [rows, width], rows `stride` apart; 4-byte alignment will do
  void* scratch = nullptr;        ///< of rows * parts * 16 bytes
  double* choices = nullptr;      ///< [2, rows]: indices, then log_softmax
  int64_t rows = 0;
  int64_t width = 0;
  int64_t stride = 0;
};
cudaError_t choose_greedily(const GreedyParams& params, cudaStream_t stream);

}  // namespace oriel::kernels
