// Attention of every token to all tokens of its own sequence (an image, a window), over packed sequences:
//
//   out[i, h] = sum_j softmax_j(scale * q[i, h] . k[j, h]) v[j, h]     i, j in the same sequence
//
// Two kernels: attention_sm90 for sequences of any length on Hopper, attention_window for windows of at most 64 tokens
// on sm_80 and newer. Which one a layer takes is a matter of the layer (full or windowed attention), not of the lengths
// in one call: the two round differently, and a row's bits may not depend on what it is packed with.
// Within one kernel they do not: a sequence gives the same bits alone and packed, and no value of one sequence, NaN
// and Inf included, has any effect on the rows of another.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels.h"

namespace oriel::kernels {

constexpr bool attention_has_head_dim(std::int64_t head_dim) {
  return head_dim == 64 || head_dim == 72 || head_dim == 80 || head_dim == 128;
}

/// Common to both kernels. Pointers are device pointers, aligned to 16 bytes.
struct AttentionInputs {
  const void* qkv = nullptr;  ///< [tokens, 3, heads, head_dim]: q, k and v of a token, as the merged product left them
  void* out = nullptr;        ///< [tokens, heads, head_dim], dense; every row of a sequence is written
  std::int64_t token_stride = 0;  ///< elements from one token of qkv to the next: >= 3 heads head_dim, a multiple of 8
  std::int32_t tokens = 0;        ///< of all sequences together
  std::int32_t heads = 0;
  std::int32_t head_dim = 0;            ///< one that attention_has_head_dim
  Element element = Element::bfloat16;  ///< or float16
  float scale = 0;                      ///< of the logits, usually head_dim^-1/2; not read if q_prescaled
  bool q_prescaled = false;  ///< q already holds q * scale * log2(e): what a rotary kernel can fold in for nothing
};

/// One piece of work: up to 256 queries of one head against all keys of their sequence.
struct AttentionTile {
  std::int32_t query_begin;  ///< first query, a token of the packed whole; a multiple of 64 from the sequence's begin
  std::int32_t key_begin;    ///< first token of the sequence
  std::int32_t keys;         ///< tokens of the sequence
  std::uint16_t rows;        ///< queries
  std::uint16_t head;
};
static_assert(sizeof(AttentionTile) == 16, "read as one 16-byte word");

/// Rows and keys that a warpgroup takes at a time; tiles are whole multiples of it, counted from a sequence's begin.
inline constexpr int kAttentionUnit = 64;

/// Most units of queries in a tile.
constexpr int attention_tile_units(int head_dim) { return head_dim > 128 ? 2 : head_dim > 80 ? 3 : 4; }

/// A plan lies in memory as int32 first_tile[blocks + 1], padded to 16 bytes, then the tiles, block by block.
constexpr std::int64_t attention_tiles_offset(std::int64_t blocks) { return (4 * (blocks + 1) + 15) / 16 * 16; }

struct AttentionSm90Params : AttentionInputs {
  const void* plan = nullptr;  ///< device copy of AttentionPlan::bytes (attention_plan.h), made for these sizes
  std::int32_t blocks = 0;     ///< AttentionPlan::blocks
};

/// cudaSuccess if the library holds sm_90a code that runs on the current device, cudaErrorNotSupported if not: of this
/// kernel, and so of all that are for sm_90a alone, since they are compiled alike.
cudaError_t attention_sm90_has_code();

/// True if attention_sm90 takes these sizes on a device of this compute capability. Says nothing about the build: a
/// library compiled without sm_90a code answers cudaErrorNotSupported at the launch.
bool attention_sm90_supports(const AttentionInputs& inputs, int compute_major, int compute_minor);

/// Enqueues on `stream`. cudaErrorNotSupported: other sizes, another chip or alignment, an old driver; nothing was
/// launched and another path can be taken. cudaErrorInvalidValue: parameters that contradict themselves. Without
/// tokens: success, nothing launched.
cudaError_t attention_sm90(const AttentionSm90Params& params, cudaStream_t stream);

inline constexpr int kAttentionWindow = 64;

struct AttentionWindowParams : AttentionInputs {
  const std::int32_t* cu_seqlens = nullptr;  ///< device, [windows + 1]: token offsets from 0 to tokens
  std::int32_t windows = 0;
  std::int32_t longest = 0;  ///< tokens of the longest window, at most kAttentionWindow
};

/// Enqueues on `stream`; errors as attention_sm90. Any mix of lengths from 0 to 64.
cudaError_t attention_window(const AttentionWindowParams& params, cudaStream_t stream);

}  // namespace oriel::kernels
