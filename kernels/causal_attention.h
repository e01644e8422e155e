// Attention of a decoder's prompts on Hopper: every query to the keys of its own sequence that it may see, by tiles.
//
//   out[i, h] = sum_j softmax_j(scale * q[i, h] . k[j, h / group]) v[j, h / group]     j seen by i; group = heads /
//   kv_heads
//
// Keys and values lie where a cache has them, several query heads share one of theirs. What each query sees comes from
// the plan (causal_attention_plan.h): the keys before it and its own, cut by a window; or all of a stretch's keys.
//
// A row's bits depend on its own sequence alone, and no value of another sequence, nor one behind a sequence's keys,
// NaN and Inf included, has an effect on it. Of its own sequence, NaN and Inf among the values of keys that it does not
// see may reach it, if the 64 queries it is computed with see some key within 64 of them.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels.h"

namespace oriel::kernels {

constexpr bool causal_attention_has_head_dim(std::int64_t head_dim) {
  return head_dim == 64 || head_dim == 128 || head_dim == 256;
}

/// Pointers are device pointers, aligned to 16 bytes. Strides are in elements, from one token to the next, multiples
/// of 8; heads are dense.
struct CausalAttentionParams {
  const void* queries = nullptr;  ///< [tokens, heads, head_dim]
  const void* keys = nullptr;     ///< [key_rows, kv_heads, head_dim]: all slots of a cache, one behind the other
  const void* values = nullptr;   ///< as keys
  void* out = nullptr;            ///< [tokens, heads, head_dim], dense; rows of no run are not written
  std::int64_t query_stride = 0;
  std::int64_t key_stride = 0;
  std::int64_t value_stride = 0;
  std::int32_t tokens = 0;
  std::int32_t key_rows = 0;  ///< all that may be read, whoever's they are
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;            ///< divides heads
  std::int32_t head_dim = 0;            ///< one that causal_attention_has_head_dim
  Element element = Element::bfloat16;  ///< or float16
  float scale = 0;                      ///< of the logits, usually head_dim^-1/2, not negative; not read if q_prescaled
  bool q_prescaled = false;             ///< q already holds q * scale * log2(e)
  const void* plan = nullptr;           ///< device copy of AttentionPlan::bytes of plan_causal_attention
  std::int32_t blocks = 0;              ///< AttentionPlan::blocks
};

/// One piece of work: queries of one head, 64 for each of causal_tile_units warpgroups. Row r of it is the query
/// query_begin + r, and sees the keys [max(0, begin + r), min(keys, end + r)) of its sequence.
struct CausalTile {
  std::int32_t query_begin;  ///< of row 0, which stands at a multiple of 64 in its sequence, perhaps before its run
  std::int32_t key_begin;    ///< row of the sequence's first key
  std::int32_t keys;         ///< as far as its last query sees
  std::int32_t begin;
  std::int32_t end;
  std::uint16_t first_row;  ///< rows [first_row, rows) are of the run
  std::uint16_t rows;
  std::uint16_t head;
  std::uint16_t kv_head;
  std::int32_t unused;
};
static_assert(sizeof(CausalTile) == 32, "read as two 16-byte words");

/// True if causal_attention takes these sizes on a device of this compute capability. Says nothing about the build, as
/// attention_sm90_supports.
bool causal_attention_supports(const CausalAttentionParams& params, int compute_major, int compute_minor);

/// Enqueues on `stream`. cudaErrorNotSupported: other sizes, another chip or alignment, an old driver; nothing was
/// launched and another path can be taken. cudaErrorInvalidValue: parameters that contradict themselves. Without
/// tokens: success, nothing launched.
cudaError_t causal_attention(const CausalAttentionParams& params, cudaStream_t stream);

}  // namespace oriel::kernels
