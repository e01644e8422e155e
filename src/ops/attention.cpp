#include "ops/attention.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/error.hpp"
#include "ops/linear.hpp"
#ifdef ORIEL_CUDA
#include "ops/cuda/launch.hpp"
#endif

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

Segments make_segments(std::vector<int64_t> bounds, [[maybe_unused]] const AttentionShape& shape,
                       [[maybe_unused]] c10::Device device) {
  Segments result;
  result.bounds = std::move(bounds);
  result.longest_possible = shape.longest_possible;
  result.by_flash = shape.by_flash;
  for (size_t i = 1; i < result.bounds.size(); ++i)
    result.longest = std::max(result.longest, result.bounds[i] - result.bounds[i - 1]);
#ifdef ORIEL_CUDA
  if (device.is_cuda() && !result.bounds.empty()) cuda::place(result, shape, device);
#endif
  return result;
}

Segments pad_segments(const Segments& segments, int64_t rows, int64_t count,
                      [[maybe_unused]] const AttentionShape& shape, [[maybe_unused]] c10::Device device) {
  Segments result;
  result.bounds = segments.bounds;
  result.longest_possible = segments.longest_possible;
  result.by_flash = segments.by_flash;
  const int64_t longest = segments.longest_possible > 0 ? std::min(segments.longest_possible, rows) : rows;
  while (result.bounds.back() < rows) result.bounds.push_back(std::min(result.bounds.back() + longest, rows));
  if (static_cast<int64_t>(result.bounds.size()) - 1 > count)
    throw_error(ErrorCode::internal, "attention: expected at most {} segments, got {}", count,
                result.bounds.size() - 1);
  result.bounds.resize(static_cast<size_t>(count) + 1, rows);
  result.longest = longest;
#ifdef ORIEL_CUDA
  if (device.is_cuda()) cuda::place(result, shape, device, /*fixed_layout=*/true);
#endif
  return result;
}

void refill(Segments& to, const Segments& from) {
  to.bounds = from.bounds;
  to.cu_seqlens.copy_(from.cu_seqlens);
  if (to.plan.defined()) to.plan.copy_(from.plan);
}

bool attention_can_be_captured([[maybe_unused]] at::ScalarType dtype, [[maybe_unused]] c10::Device device,
                               [[maybe_unused]] const AttentionShape& shape) {
#ifdef ORIEL_CUDA
  return device.is_cuda() && (dtype == at::kBFloat16 || dtype == at::kHalf) && cuda::has_fixed_launches(shape, device);
#else
  return false;
#endif
}

at::Tensor rotary_attention(at::Tensor qkv, const Rotary& rotary, RotaryPrecision precision, const Segments& segments) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(qkv.size(3)));
  double query_scale = 1.0;
#ifdef ORIEL_CUDA
  const bool has_kernel = cuda::takes(qkv) && cuda::is_16_bit(qkv);
  if (has_kernel && cuda::wants_scaled_query(qkv, segments)) query_scale = scale * std::numbers::log2e;
#endif
  if (rotary.defined()) query_scale = rotate_query_key(qkv, rotary, precision, query_scale);
#ifdef ORIEL_CUDA
  if (has_kernel) return cuda::attention(qkv, segments, scale, query_scale != 1.0 && rotary.defined());
#endif
  return attention(qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2), segments.bounds, scale);
}

// Neighbouring segments of one length (windows, video slices, equal pictures) go into one batched call. How libtorch
// computes on a GPU may depend on the batch, so where bits are not to depend on the neighbours each has its own call.
at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::span<const int64_t> cu_seqlens,
                     double scale) {
  check(q, cu_seqlens);
  const int64_t tokens = q.size(0);
  const int64_t width = q.size(1) * q.size(2);
  const int64_t most_segments = q.is_cuda() && DeterministicProducts::wanted() ? 1 : tokens;
  at::Tensor out;
  for (size_t i = 0; i + 1 < cu_seqlens.size();) {
    const int64_t begin = cu_seqlens[i];
    const int64_t length = cu_seqlens[i + 1] - begin;
    int64_t segments = 0;
    while (segments < most_segments && i + 1 < cu_seqlens.size() && cu_seqlens[i + 1] - cu_seqlens[i] == length)
      ++i, ++segments;
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
