#include "ops/norm.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/rsqrt.h>

#include <cmath>

#include "ops/parallel.hpp"
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
template <typename T>
inline float sum_of_squares(const T* x, int64_t width) {
  constexpr int64_t lanes = 16;
  float sums[lanes] = {};
  const int64_t whole = width / lanes * lanes;
  const auto square = [](T value) { return static_cast<float>(value) * static_cast<float>(value); };
  for (int64_t i = 0; i < whole; i += lanes)
    for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += square(x[i + lane]);
  for (int64_t i = whole; i < width; ++i) sums[i - whole] += square(x[i]);
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

/// How a norm's weight is stored: as the factor, or as the factor minus one.
enum class Stored { factor, minus_one };

/// Stored::factor: y = x / sqrt(mean(x^2) + eps), rounded to T, * weight. Stored::minus_one: the same times
/// (1 + weight), rounded once.
template <typename T>
inline void norm_values(const T* x, const T* weight, Stored stored, float eps, T* y, int64_t width) {
  const float factor = 1.0F / std::sqrt(sum_of_squares(x, width) / static_cast<float>(width) + eps);
  if (stored == Stored::minus_one) {
    for (int64_t i = 0; i < width; ++i)
      y[i] = static_cast<T>(static_cast<float>(x[i]) * factor * (1.0F + static_cast<float>(weight[i])));
    return;
  }
  for (int64_t i = 0; i < width; ++i) {
    const auto normed = static_cast<T>(static_cast<float>(x[i]) * factor);
    y[i] = static_cast<T>(static_cast<float>(normed) * static_cast<float>(weight[i]));
  }
}

ORIEL_VECTORISED void norm_row(const float* x, const float* weight, Stored stored, float eps, float* y, int64_t width) {
  norm_values(x, weight, stored, eps, y, width);
}
ORIEL_VECTORISED void norm_row(const c10::BFloat16* x, const c10::BFloat16* weight, Stored stored, float eps,
                               c10::BFloat16* y, int64_t width) {
  norm_values(x, weight, stored, eps, y, width);
}
ORIEL_VECTORISED void norm_row(const c10::Half* x, const c10::Half* weight, Stored stored, float eps, c10::Half* y,
                               int64_t width) {
  norm_values(x, weight, stored, eps, y, width);
}

/// x and weight dense and of T, in host memory.
template <typename T>
at::Tensor norm_rows(const at::Tensor& x, const at::Tensor& weight, Stored stored, float eps) {
  at::Tensor result = at::empty_like(x);
  const int64_t width = x.size(-1);
  const auto* from = x.const_data_ptr<T>();
  const auto* scale = weight.const_data_ptr<T>();
  auto* to = result.mutable_data_ptr<T>();
  parallel_for(width == 0 ? 0 : x.numel() / width, 32, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      norm_row(from + row * width, scale, stored, eps, to + row * width, width);
  });
  return result;
}

/// One pass over memory where x and weight are dense, of one dtype and in host memory; undefined elsewhere.
at::Tensor norm_in_one_pass(const at::Tensor& x, const at::Tensor& weight, Stored stored, double eps) {
  if (!x.is_cpu() || !x.is_contiguous() || !weight.is_contiguous() || x.scalar_type() != weight.scalar_type())
    return {};
  const auto small = static_cast<float>(eps);
  if (x.scalar_type() == at::kFloat) return norm_rows<float>(x, weight, stored, small);
  if (x.scalar_type() == at::kBFloat16) return norm_rows<c10::BFloat16>(x, weight, stored, small);
  if (x.scalar_type() == at::kHalf) return norm_rows<c10::Half>(x, weight, stored, small);
  return {};
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x)) return cuda::rms_norm(x, weight, eps, /*weight_plus_one=*/false);
#endif
  if (at::Tensor result = norm_in_one_pass(x, weight, Stored::factor, eps); result.defined()) return result;
  return rms_norm_reference(x, weight, eps);
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
  if (at::Tensor result = norm_in_one_pass(x, weight_minus_one, Stored::minus_one, eps); result.defined())
    return result;
  return rms_norm_offset_reference(x, weight_minus_one, eps);
}

at::Tensor rms_norm_offset_reference(const at::Tensor& x, const at::Tensor& weight_minus_one, double eps) {
  return (normalise(x, eps) * (1.0 + weight_minus_one.to(at::kFloat))).to(x.scalar_type());
}

at::Tensor add_rms_norm(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight, double eps) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x) && cuda::takes(residual)) return cuda::rms_norm(x, weight, eps, false, residual);
#endif
  return residual + rms_norm(x, weight, eps);
}

at::Tensor add_rms_norm_offset(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight_minus_one,
                               double eps) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x) && cuda::takes(residual)) return cuda::rms_norm(x, weight_minus_one, eps, true, residual);
#endif
  return residual + rms_norm_offset(x, weight_minus_one, eps);
}

}  // namespace oriel::ops
