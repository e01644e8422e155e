#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "ops/rotary.hpp"

namespace oriel::ops {

/// The bounds of a packed sequence's segments, 0 = c[0] < c[1] < ... = T, where attention reads them.
struct Segments {
  std::vector<int64_t> bounds;
  int64_t longest = 0;           ///< rows of the longest segment
  int64_t longest_possible = 0;  ///< in any call of this layer, as the model says; 0: unbounded
  at::Tensor cu_seqlens;         ///< int32 [segments + 1] on the GPU; undefined on the CPU
  at::Tensor plan;  ///< bytes on the GPU: which block of the kernel computes what, where the kernel wants it
  int32_t plan_blocks = 0;
  bool by_flash = false;  ///< as AttentionShape says
};

/// What a layer is to its attention kernel.
struct AttentionShape {
  int64_t heads = 0;
  int64_t head_dim = 0;
  int64_t longest_possible = 0;  ///< rows of a segment, where the model bounds them (windows); else 0
  bool by_flash = false;         ///< by libtorch's flash attention, the fallback, where a kernel of ours serves it, too
};

/// Copies to a GPU what its kernels need of the bounds, behind what is enqueued on its current stream.
[[nodiscard]] Segments make_segments(std::vector<int64_t> bounds, const AttentionShape& shape, c10::Device device);

/// The same segments followed by further ones up to `rows` rows and `count` segments, which may be empty, in a layout
/// on the GPU that depends on `rows` and `count` alone: a CUDA graph that reads one can be given another. The same
/// kernel serves them.
[[nodiscard]] Segments pad_segments(const Segments& segments, int64_t rows, int64_t count, const AttentionShape& shape,
                                    c10::Device device);
/// Copies what `from` holds on the GPU to where `to` has it; both from pad_segments with equal arguments.
void refill(Segments& to, const Segments& from);
/// Whether attention over a tower's rows of the dtype and device of `x` enqueues the same launches whatever the bounds.
[[nodiscard]] bool attention_can_be_captured(at::ScalarType dtype, c10::Device device, const AttentionShape& shape);

/// softmax(q k^T * scale) v inside each segment of a packed sequence; nothing of one segment reaches another.
/// q, k, v [T, heads, head_dim] (any strides with a dense last dimension); cu_seqlens are the segment bounds
/// 0 = c[0] < c[1] < ... = T. Result [T, heads * head_dim]. Not causal; softmax in float32.
[[nodiscard]] at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   std::span<const int64_t> cu_seqlens, double scale);

/// Rotary embedding (none if `rotary` is undefined) and attention with scale 1 / sqrt(head_dim) over a packed product
/// qkv [T, 3, heads, head_dim], whose q and k are overwritten. Result [T, heads * head_dim].
[[nodiscard]] at::Tensor rotary_attention(at::Tensor qkv, const Rotary& rotary, RotaryPrecision precision,
                                          const Segments& segments);

/// The same with the scores written out, segment by segment.
[[nodiscard]] at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                             std::span<const int64_t> cu_seqlens, double scale);

}  // namespace oriel::ops
