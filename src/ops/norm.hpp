#pragma once
#include <ATen/core/Tensor.h>

namespace oriel::ops {

/// y = (x - mean) / sqrt(variance + eps) * weight + bias over the last dimension, computed in float32, rounded once.
[[nodiscard]] at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);

/// y = round(x / sqrt(mean(x^2) + eps)) * weight: normalised in float32, rounded to x's dtype, then multiplied
/// (transformers' order for Llama-style norms). One pass over memory on the CPU and on a GPU; there the product is
/// rounded once at the end, which is nearer to the truth.
[[nodiscard]] at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
[[nodiscard]] at::Tensor rms_norm_reference(const at::Tensor& x, const at::Tensor& weight, double eps);

/// y = x / sqrt(mean(x^2) + eps) * (1 + weight), all in float32, rounded once: the form whose weights are stored minus
/// one (spec/siglip.md 4).
[[nodiscard]] at::Tensor rms_norm_offset(const at::Tensor& x, const at::Tensor& weight_minus_one, double eps);
[[nodiscard]] at::Tensor rms_norm_offset_reference(const at::Tensor& x, const at::Tensor& weight_minus_one, double eps);

/// residual + rms_norm(x, weight, eps), or + rms_norm_offset: the norm is rounded before it is added. One launch on a
/// GPU.
[[nodiscard]] at::Tensor add_rms_norm(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight,
                                      double eps);
[[nodiscard]] at::Tensor add_rms_norm_offset(const at::Tensor& residual, const at::Tensor& x,
                                             const at::Tensor& weight_minus_one, double eps);

}  // namespace oriel::ops
