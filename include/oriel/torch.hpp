#pragma once
// Opt-in: the only public header that includes libtorch.
#include <ATen/core/Tensor.h>

#include <oriel/export.hpp>
#include <oriel/tensor.hpp>

namespace oriel {

/// The same storage as an at::Tensor. Writing to it changes every copy of `tensor`. Throws invalid_argument for an
/// empty tensor.
[[nodiscard]] ORIEL_API at::Tensor to_torch(const Tensor& tensor);
/// The same storage if `tensor` is contiguous, else a contiguous copy; an empty tensor for an undefined one.
/// Throws invalid_argument for dtypes other than those of DType and devices other than CPU and CUDA.
[[nodiscard]] ORIEL_API Tensor from_torch(const at::Tensor& tensor);

}  // namespace oriel
