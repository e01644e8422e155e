#include "ops/attention.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include "core/error.hpp"

namespace oriel::ops {
namespace {

void check(const at::Tensor& q, std::span<const int64_t> cu_seqlens) {
  bool rising = cu_seqlens.size() >= 2 && cu_seqlens.front() == 0 && cu_seqlens.back() == q.size(0);
  for (size_t i = 1; rising && i < cu_seqlens.size(); ++i) rising = cu_seqlens[i - 1] < cu_seqlens[i];
  if (!rising)
    throw_error(ErrorCode::internal, "attention: cu_seqlens must rise from 0 to {} (the rows of q)", q.size(0));
}

/// [segments * length, heads, head_dim] -> [segments, heads, length, head_dim].
at::Tensor by_segment(const at::Tensor& x, int64_t begin, int64_t segments, int64_t length) {
  return x.narrow(0, begin, segments * length).unflatten(0, {segments, length}).transpose(1, 2);
}

}  // namespace

// Neighbouring segments of one length (windows, video slices, equal pictures) go into one batched call.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::span<const int64_t> cu_seqlens,
                     double scale) {
  check(q, cu_seqlens);
  const int64_t tokens = q.size(0);
  const int64_t width = q.size(1) * q.size(2);
  at::Tensor out;
  for (size_t i = 0; i + 1 < cu_seqlens.size();) {
    const int64_t begin = cu_seqlens[i];
    const int64_t length = cu_seqlens[i + 1] - begin;
    int64_t segments = 0;
    while (i + 1 < cu_seqlens.size() && cu_seqlens[i + 1] - cu_seqlens[i] == length) ++i, ++segments;
    const at::Tensor part =
        at::scaled_dot_product_attention(by_segment(q, begin, segments, length), by_segment(k, begin, segments, length),
                                         by_segment(v, begin, segments, length), {}, 0.0, /*is_causal=*/false, scale)
            .transpose(1, 2)
            .reshape({segments * length, width});
    if (segments * length == tokens) return part;
    if (!out.defined()) out = at::empty({tokens, width}, q.options());
    out.narrow(0, begin, segments * length).copy_(part);
  }
  return out;
}

at::Tensor attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               std::span<const int64_t> cu_seqlens, double scale) {
  check(q, cu_seqlens);
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  for (size_t i = 0; i + 1 < cu_seqlens.size(); ++i) {
    const int64_t begin = cu_seqlens[i];
    const int64_t length = cu_seqlens[i + 1] - begin;
    const auto heads_first = [&](const at::Tensor& x) { return x.narrow(0, begin, length).transpose(0, 1); };
    const at::Tensor scores = at::matmul(heads_first(q), heads_first(k).transpose(1, 2)) * scale;  // [heads, n, n]
    const at::Tensor weights = at::softmax(scores, -1, at::kFloat).to(q.scalar_type());
    out.narrow(0, begin, length).copy_(at::matmul(weights, heads_first(v)).transpose(0, 1).flatten(1));
  }
  return out;
}

}  // namespace oriel::ops
