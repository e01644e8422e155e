// The host's half of attention_sm90: which block computes which tiles, in which order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

namespace oriel::kernels {

struct AttentionPlan {
  std::vector<std::byte> bytes;  ///< to be copied to the device, to a 16-byte boundary; layout in attention.h
  std::int32_t blocks = 0;       ///< grid of the launch, at most sm_count; 0 if there are no tokens
};

/// Depends on its arguments alone: the same plan serves all layers of a tower, and a replayed graph.
/// @param cu_seqlens  [sequences + 1] on the host: 0, then the end of each sequence; empty sequences are allowed
/// @param head_dim    one that attention_sm90 takes
/// @throws std::invalid_argument  cu_seqlens does not begin with 0 or falls; heads outside [1, 65535]; sm_count < 1
AttentionPlan plan_attention(const std::int32_t* cu_seqlens, std::size_t cu_seqlens_size, int heads, int head_dim,
                             int sm_count);

/// With tiles of at most `units` (and at most attention_tile_units) units of queries, as even as can be, whatever the
/// choice above would be, which is measured against this. The results are the same, bit for bit. May take more bytes
/// than attention_plan_bytes.
AttentionPlan plan_attention_of_height(const std::int32_t* cu_seqlens, std::size_t cu_seqlens_size, int heads,
                                       int head_dim, int sm_count, int units);

/// plan_attention for anything contiguous, such as std::span, which this folder's C++17 does not have.
template <class Contiguous>
AttentionPlan plan_attention(const Contiguous& cu_seqlens, int heads, int head_dim, int sm_count) {
  return plan_attention(std::data(cu_seqlens), std::size(cu_seqlens), heads, head_dim, sm_count);
}

/// Never less than plan_attention's bytes for any `sequences` sequences of `tokens` tokens together: what an arena has
/// to set aside before the lengths are known. About heads * tokens / 10 bytes, and 20 a
/// multiprocessor.
std::size_t attention_plan_bytes(std::int64_t tokens, std::int64_t sequences, int heads, int head_dim, int sm_count);

}  // namespace oriel::kernels
