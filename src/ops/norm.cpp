#include "ops/norm.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>

namespace oriel::ops {
namespace {

/// x / sqrt(mean(x^2) + eps) in float32.
at::Tensor normalise(const at::Tensor& x, double eps) {
  const at::Tensor wide = x.to(at::kFloat);
  return wide * at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
}

}  // namespace

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, eps);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  return normalise(x, eps).to(x.scalar_type()) * weight;
}

at::Tensor rms_norm_offset(const at::Tensor& x, const at::Tensor& weight_minus_one, double eps) {
  return (normalise(x, eps) * (1.0 + weight_minus_one.to(at::kFloat))).to(x.scalar_type());
}

}  // namespace oriel::ops
