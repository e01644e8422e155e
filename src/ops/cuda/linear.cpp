#include <ATen/ops/empty.h>

#include <memory>
#include <mutex>
#include <vector>

#include "core/error.hpp"
#include "decode.h"
#include "matmul_sm90.h"
#include "ops/cuda/launch.hpp"
#include "ops/linear.hpp"

namespace oriel::ops::cuda {
namespace {

const void* data_or_null(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }

/// Whether the kernel that holds the activation in its epilogue is for this product. Where bits may not depend on the
/// number of rows, neither may the answer.
bool is_inside(const kernels::MatmulSm90Params& params, const Chip& chip) {
  return kernels::matmul_sm90_supports(params, chip.major, chip.minor) &&
         (DeterministicProducts::wanted() || kernels::matmul_sm90_pays(params, chip.processors));
}

/// y = activation(..) by that kernel; false if it is not for this product.
bool activate_inside(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Activation activation,
                     bool gated, const at::Tensor& y) {
  const Chip chip = chip_of(x.device());
  const kernels::MatmulSm90Params params{.x = x.const_data_ptr(),
                                         .weight = weight.const_data_ptr(),
                                         .bias = data_or_null(bias),
                                         .y = y.mutable_data_ptr(),
                                         .rows = x.size(0),
                                         .in = weight.size(1),
                                         .out = y.size(1),
                                         .x_stride = x.size(1),
                                         .function = function_of(activation),
                                         .gated = gated,
                                         .element = element_of(x)};
  if (!is_inside(params, chip)) return false;
  const cudaError_t error = kernels::matmul_sm90(params, chip.processors, stream_of(x));
  if (error == cudaErrorNotSupported) return false;
  check(error, "linear");
  return true;
}

/// y = activation(..) + residual for a few rows, at the speed of reading the weight; undefined if that kernel is not
/// for this product. A few rows' bits would differ from many rows' otherwise.
at::Tensor multiply_few_rows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const at::Tensor& residual, Activation activation, bool gated) {
  const int64_t rows = x.size(0);
  const bool is_for_it = rows >= 1 && rows <= kernels::FewRowsParams::most_rows && weight.size(1) % 8 == 0 &&
                         reinterpret_cast<uintptr_t>(weight.const_data_ptr()) % 16 == 0 && weight.is_contiguous() &&
                         kernels::few_rows_supports(element_of(x), chip_of(x.device()).major);
  if (!is_for_it || DeterministicProducts::wanted()) return {};
  at::Tensor y = at::empty({rows, gated ? weight.size(0) / 2 : weight.size(0)}, x.options());
  check(kernels::multiply_few_rows({.x = x.const_data_ptr(),
                                    .weight = weight.const_data_ptr(),
                                    .bias = data_or_null(bias),
                                    .residual = data_or_null(residual),
                                    .y = y.mutable_data_ptr(),
                                    .rows = rows,
                                    .in = weight.size(1),
                                    .out = y.size(1),
                                    .function = function_of(activation),
                                    .gated = gated,
                                    .element = element_of(x)},
                                   stream_of(x)),
        "linear");
  return y;
}

}  // namespace

kernels::Matmul& products_of(c10::Device device) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<kernels::Matmul>> devices;
  const auto index = static_cast<size_t>(device.index());
  const std::lock_guard lock(mutex);
  if (devices.size() <= index) devices.resize(index + 1);
  if (!devices[index]) devices[index] = std::make_unique<kernels::Matmul>();
  return *devices[index];
}

bool gates_inside_product(const GateShape& shape, at::ScalarType dtype, c10::Device device) {
  if (dtype != at::kBFloat16 && dtype != at::kHalf) return false;
  return is_inside({.rows = shape.rows, .out = shape.columns, .function = function_of(shape.activation), .gated = true},
                   chip_of(device));
}

at::Tensor gated_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Activation activation) {
  if (at::Tensor few = multiply_few_rows(x, weight, bias, {}, activation, /*gated=*/true); few.defined()) return few;
  at::Tensor y = at::empty({x.size(0), weight.size(0) / 2}, x.options());
  if (activate_inside(x, weight, bias, activation, /*gated=*/true, y)) return y;
  y.reset();
  return gate(linear(x, weight, bias, {}, Activation::identity), activation);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual,
                  Activation activation) {
  if (at::Tensor few = multiply_few_rows(x, weight, bias, residual, activation, /*gated=*/false); few.defined())
    return few;
  const int64_t rows = x.size(0);
  const int64_t out = weight.size(0);
  at::Tensor y = at::empty({rows, out}, x.options());
  if (!residual.defined() && activate_inside(x, weight, bias, activation, /*gated=*/false, y)) return y;
  const at::Tensor workspace = at::empty({kernels::Matmul::workspace_bytes}, x.options().dtype(at::kByte));
  // In float32 the exact function runs apart: cuBLASLt's own is an approximation.
  const bool fused = activation == Activation::gelu_tanh && is_16_bit(x) && !residual.defined();
  check(products_of(x.device())({.x = x.const_data_ptr(),
                                 .weight = weight.const_data_ptr(),
                                 .bias = data_or_null(bias),
                                 .residual = data_or_null(residual),
                                 .y = y.mutable_data_ptr(),
                                 .rows = rows,
                                 .in = weight.size(1),
                                 .out = out,
                                 .x_stride = x.size(1),
                                 .gelu_tanh = fused,
                                 .deterministic = DeterministicProducts::wanted(),
                                 .element = element_of(x),
                                 .workspace = workspace.mutable_data_ptr(),
                                 .workspace_bytes = kernels::Matmul::workspace_bytes},
                                stream_of(x)),
        "linear");
  return fused ? y : cuda::activate_in_place(y, activation);
}

}  // namespace oriel::ops::cuda
