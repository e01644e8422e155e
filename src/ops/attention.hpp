#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace oriel::ops {

/// softmax(q k^T * scale) v inside each segment of a packed sequence; nothing of one segment reaches another.
/// q, k, v [T, heads, head_dim] (any strides with a dense last dimension); cu_seqlens are the segment bounds
/// 0 = c[0] < c[1] < ... = T. Result [T, heads * head_dim]. Not causal; softmax in float32.
[[nodiscard]] at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   std::span<const int64_t> cu_seqlens, double scale);

/// The same with the scores written out, segment by segment.
[[nodiscard]] at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             std::span<const int64_t> cu_seqlens, double scale);

}  // namespace oriel::ops
