#include "ops/activation.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include "core/error.hpp"

namespace oriel::ops {

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
    case Activation::quick_gelu: {
      at::Tensor y = x * 1.702;  // then in place: fresh memory costs more than the arithmetic
      return y.sigmoid_().mul_(x);
    }
      return x * at::sigmoid(x * 1.702);
  }
  throw_error(ErrorCode::internal, "activate: unknown activation {}", static_cast<int>(activation));
}

}  // namespace oriel::ops
