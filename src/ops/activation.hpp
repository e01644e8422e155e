#pragma once
#include <ATen/core/Tensor.h>

#include <string_view>

namespace oriel::ops {

enum class Activation { identity, relu, silu, gelu_erf, gelu_tanh, quick_gelu };

/// The activation that transformers calls `name` ("gelu" is the erf form); `where` names the config key for the error
/// (unsupported_model) that other names get.
[[nodiscard]] Activation parse_activation(std::string_view name, std::string_view where);

/// Elementwise, in x's dtype. quick_gelu(x) = x * sigmoid(1.702 x), rounded after each step as transformers does.
[[nodiscard]] at::Tensor activate(const at::Tensor& x, Activation activation);

/// activate(gate) * up, where gate_up [T, 2 M] holds the gate in its first and the up projection in its last M columns;
/// the activated gate is rounded to the working dtype before the product. Result [T, M].
[[nodiscard]] at::Tensor gated_activate(const at::Tensor& gate_up, Activation activation);

}  // namespace oriel::ops
