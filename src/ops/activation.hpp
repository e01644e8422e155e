#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace oriel::ops {

enum class Activation { identity, relu, silu, gelu_erf, gelu_tanh, quick_gelu };

/// The activation that transformers calls `name` ("gelu" is the erf form); `where` names the config key for the error
/// (unsupported_model) that other names get.
[[nodiscard]] Activation parse_activation(std::string_view name, std::string_view where);

/// Elementwise, in x's dtype. quick_gelu(x) = x * sigmoid(1.702 x), rounded after each step as transformers does.
[[nodiscard]] at::Tensor activate(const at::Tensor& x, Activation activation);

/// The same for quick_gelu where x lies (contiguous), in one pass over memory for float32 on the CPU; otherwise with
/// scratch for quick_gelu_stretch values of x's dtype.
constexpr int64_t quick_gelu_stretch = 1 << 17;
void quick_gelu_in_place(const at::Tensor& x);

/// activate, written over x, which must be contiguous; returns x.
at::Tensor activate_in_place(at::Tensor x, Activation activation);

}  // namespace oriel::ops
