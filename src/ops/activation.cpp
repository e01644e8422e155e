#include "ops/activation.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include <algorithm>
#include <bit>
#include <cstdint>

#include "core/error.hpp"
#include "ops/parallel.hpp"
#include "ops/vectorised.hpp"

namespace oriel::ops {
namespace {

/// e^x for finite x within [-87, 88], to two units in the last place: 2^n times a polynomial of what is left
/// (W. J. Cody and W. Waite, Software Manual for the Elementary Functions, with the minimax coefficients of Cephes).
inline float exponential(float x) {
  constexpr float round = 12582912.0F;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
  const float shifted = x * 1.44269504F + round;
  const float n = shifted - round;
  const float r = (x - n * 0.693359375F) - n * -2.12194440e-4F;
  float p = 1.9875691500e-4F;
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  return p * std::bit_cast<float>((std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(round) + 127) << 23);
}

/// x / (1 + e^(-1.702 x)) in place.
ORIEL_VECTORISED void quick_gelu_row(float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    float power = x[i] * -1.702F;
    power = power < -87.0F ? -87.0F : power;  // written so that NaN stays NaN
    power = power > 88.0F ? 88.0F : power;
    x[i] = x[i] / (1.0F + exponential(power));
  }
}

}  // namespace

Activation parse_activation(std::string_view name, std::string_view where) {
  if (name == "gelu" || name == "gelu_python") return Activation::gelu_erf;
  if (name == "gelu_pytorch_tanh" || name == "gelu_python_tanh" || name == "gelu_new") return Activation::gelu_tanh;
  if (name == "quick_gelu") return Activation::quick_gelu;
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "relu") return Activation::relu;
  if (name == "linear") return Activation::identity;
  throw_error(ErrorCode::unsupported_model,
              "{}: expected one of gelu, gelu_pytorch_tanh, gelu_new, quick_gelu, silu, relu, linear, got \"{}\"",
              where, name);
}

void quick_gelu_in_place(const at::Tensor& x) {
  const at::Tensor flat = x.view({-1});
  if (x.is_cpu() && x.scalar_type() == at::kFloat) {
    auto* values = flat.mutable_data_ptr<float>();
    parallel_for(flat.numel(), 1 << 14,
                 [&](int64_t begin, int64_t end) { quick_gelu_row(values + begin, end - begin); });
    return;
  }
  // A stretch at a time, so that the steps between do not take as much memory again.
  for (int64_t begin = 0; begin < flat.numel(); begin += quick_gelu_stretch) {
    const at::Tensor part = flat.narrow(0, begin, std::min(quick_gelu_stretch, flat.numel() - begin));
    part.mul_((part * 1.702).sigmoid_());
  }
}

at::Tensor activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::identity:
      return x;
    case Activation::relu:
      return at::relu(x);
    case Activation::silu:
      return at::silu(x);
    case Activation::gelu_erf:
      return at::gelu(x, "none");
    case Activation::gelu_tanh:
      return at::gelu(x, "tanh");
    case Activation::quick_gelu:
      return x * at::sigmoid(x * 1.702);
  }
  throw_error(ErrorCode::internal, "activate: unknown activation {}", static_cast<int>(activation));
}

at::Tensor activate_in_place(at::Tensor x, Activation activation) {
  switch (activation) {
    case Activation::identity:
      break;
    case Activation::relu:
      at::relu_(x);
      break;
    case Activation::silu:
      at::silu_(x);
      break;
    case Activation::gelu_erf:
      at::gelu_(x, "none");
      break;
    case Activation::gelu_tanh:
      at::gelu_(x, "tanh");
      break;
    case Activation::quick_gelu:
      quick_gelu_in_place(x);
      break;
  }
  return x;
}

}  // namespace oriel::ops
