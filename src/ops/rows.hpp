#pragma once
#include <ATen/core/Tensor.h>

namespace oriel::ops {

/// y[r] = x[index[r]]: rows of x [*, C] in another order, or some of them. index int64 [R] on x's device, not checked
/// on a GPU.
[[nodiscard]] at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index);

/// y[index[r]] = x[r]: what gather_rows does, undone. index [T] names each of x's rows [T, C] once.
[[nodiscard]] at::Tensor scatter_rows(const at::Tensor& x, const at::Tensor& index);

}  // namespace oriel::ops
