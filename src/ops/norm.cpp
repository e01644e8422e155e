#include "ops/norm.hpp"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>

#include <algorithm>
#include <cmath>

#include "ops/vectorised.hpp"
#ifdef ORIEL_CUDA
#include "ops/cuda/launch.hpp"
#endif

namespace oriel::ops {
namespace {

/// x / sqrt(mean(x^2) + eps) in float32.
at::Tensor normalise(const at::Tensor& x, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  return wide * at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
}

/// Sum of squares in 16 running sums, so that the order of additions does not depend on the instruction set.
ORIEL_VECTORISED float sum_of_squares(const float* x, int64_t width) {
  constexpr int64_t lanes = 16;
  float sums[lanes] = {};
  const int64_t whole = width / lanes * lanes;
  for (int64_t i = 0; i < whole; i += lanes)
    for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  for (int64_t i = whole; i < width; ++i) sums[i - whole] += x[i] * x[i];
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

ORIEL_VECTORISED void scale_row(const float* x, const float* weight, float offset, float factor, float* y,
                                int64_t width) {
  for (int64_t i = 0; i < width; ++i) y[i] = x[i] * factor * (offset + weight[i]);
}

/// Whether rms_norm_rows takes them.
bool has_rows(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous() && weight.is_contiguous() &&
         weight.scalar_type() == at::kFloat;
}

/// x / sqrt(mean(x^2) + eps) * (offset + weight) in one pass over float32 rows on the CPU.
at::Tensor rms_norm_rows(const at::Tensor& x, const at::Tensor& weight, float offset, double eps) {
  at::Tensor result = at::empty_like(x);
  const int64_t width = x.size(-1);
  const auto* from = x.const_data_ptr<float>();
  const auto* scale = weight.const_data_ptr<float>();
  auto* to = result.mutable_data_ptr<float>();
  at::parallel_for(0, width == 0 ? 0 : x.numel() / width, 32, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float mean = sum_of_squares(from + row * width, width) / static_cast<float>(width);
      const float factor = 1.0F / std::sqrt(mean + static_cast<float>(eps));
      scale_row(from + row * width, scale, offset, factor, to + row * width, width);
    }
  });
  return result;
}

/// The reference, some rows at a time: its steps in float32 take a multiple of what they norm.
at::Tensor rms_norm_in_stretches(const at::Tensor& x, const at::Tensor& weight, double eps) {
  constexpr int64_t stretch = 256;
  if (x.dim() != 2 || x.size(0) <= stretch) return rms_norm_reference(x, weight, eps);
  at::Tensor result = at::empty_like(x);
  for (int64_t begin = 0; begin < x.size(0); begin += stretch) {
    const int64_t count = std::min(stretch, x.size(0) - begin);
    result.narrow(0, begin, count).copy_(rms_norm_reference(x.narrow(0, begin, count), weight, eps));
  }
  return result;
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x)) return cuda::rms_norm(x, weight, eps, /*weight_plus_one=*/false);
#endif
  if (!x.is_cpu()) return rms_norm_reference(x, weight, eps);
  return has_rows(x, weight) ? rms_norm_rows(x, weight, 0.0F, eps) : rms_norm_in_stretches(x, weight, eps);
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x)) return cuda::layer_norm(x, weight, bias, eps);
#endif
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return normalise(x, eps).to(x.scalar_type()) * weight;
}

at::Tensor rms_norm_offset(const at::Tensor& x, const at::Tensor& weight_minus_one, double eps) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x)) return cuda::rms_norm(x, weight_minus_one, eps, /*weight_plus_one=*/true);
#endif
  if (has_rows(x, weight_minus_one)) return rms_norm_rows(x, weight_minus_one, 1.0F, eps);
  return rms_norm_offset_reference(x, weight_minus_one, eps);
}

at::Tensor rms_norm_offset_reference(const at::Tensor& x, const at::Tensor& weight_minus_one, double eps) {
  return (normalise(x, eps) * (1.0 + weight_minus_one.to(at::kFloat))).to(x.scalar_type());
}

}  // namespace oriel::ops
