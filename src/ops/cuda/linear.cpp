#include <ATen/ops/empty.h>

#include <memory>
#include <mutex>
#include <vector>

#include "core/error.hpp"
#include "decode.h"
#include "matmul_apart.h"
#include "matmul_sm90.h"
#include "ops/cuda/launch.hpp"
#include "ops/linear.hpp"

namespace oriel::ops::cuda {
namespace {

static_assert(product_workspace_bytes == kernels::Matmul::workspace_bytes);

const void* data_or_null(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }

enum class Inside { no, yes, if_faster };

/// Whether the kernel that holds the activation in its epilogue is for this product. Where bits may not depend on the
/// number of rows, neither may the answer.
Inside inside(const kernels::MatmulSm90Params& params, const Chip& chip) {
  if (!chip.has_sm90_code || !kernels::matmul_sm90_supports(params, chip.major, chip.minor)) return Inside::no;
  if (DeterministicProducts::wanted()) return Inside::yes;
  if (kernels::matmul_sm90_is_close(params, chip.processors)) return Inside::if_faster;
  return kernels::matmul_sm90_pays(params, chip.processors) ? Inside::yes : Inside::no;
}

at::Tensor workspace_like(const at::Tensor& x) {
  return at::empty({kernels::Matmul::workspace_bytes}, x.options().dtype(at::kByte));
}

/// Timed in memory of its own. The gate leaves its result in the workspace, which the product needs no more then.
bool is_faster(kernels::MatmulSm90Params params, const Chip& chip, const at::Tensor& x) {
  if (const auto known = kernels::matmul_sm90_was_faster(products_of(x.device()), params)) return *known;
  const at::Tensor workspace = workspace_like(x);
  const at::Tensor room = at::empty({params.rows, (params.gated ? 2 : 1) * params.out}, x.options());
  params.y = params.gated ? workspace.mutable_data_ptr() : room.mutable_data_ptr();
  return kernels::matmul_sm90_is_faster(products_of(x.device()), params,
                                        {.gate_up = params.gated ? room.mutable_data_ptr() : nullptr,
                                         .workspace = workspace.mutable_data_ptr(),
                                         .workspace_bytes = kernels::Matmul::workspace_bytes},
                                        chip.processors, stream_of(x));
}

/// activation(..) by that kernel; undefined if it is not for this product.
at::Tensor activate_inside(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Activation activation,
                           bool gated) {
  const Chip chip = chip_of(x.device());
  kernels::MatmulSm90Params params{.x = x.const_data_ptr(),
                                   .weight = weight.const_data_ptr(),
                                   .bias = data_or_null(bias),
                                   .rows = x.size(0),
                                   .in = weight.size(1),
                                   .out = gated ? weight.size(0) / 2 : weight.size(0),
                                   .x_stride = x.size(1),
                                   .function = function_of(activation),
                                   .gated = gated,
                                   .deterministic = DeterministicProducts::wanted(),
                                   .element = element_of(x)};
  const Inside answer = params.rows == 0 ? Inside::no : inside(params, chip);
  if (answer == Inside::no || (answer == Inside::if_faster && !is_faster(params, chip, x))) return {};
  at::Tensor y = at::empty({params.rows, params.out}, x.options());
  params.y = y.mutable_data_ptr();
  const cudaError_t error = kernels::matmul_sm90(params, chip.processors, stream_of(x));
  if (error == cudaErrorNotSupported) return {};
  check(error, "linear");
  return y;
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
  // Where rows are to be deterministic the answer does not depend on what else is said of them.
  return inside({.rows = shape.rows, .out = shape.columns, .function = function_of(shape.activation), .gated = true},
                chip_of(device)) == Inside::yes;
}

at::Tensor gated_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Activation activation) {
  if (at::Tensor few = multiply_few_rows(x, weight, bias, {}, activation, /*gated=*/true); few.defined()) return few;
  if (at::Tensor y = activate_inside(x, weight, bias, activation, /*gated=*/true); y.defined()) return y;
  return gate(linear(x, weight, bias, {}, Activation::identity), activation);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual,
                  Activation activation) {
  if (at::Tensor few = multiply_few_rows(x, weight, bias, residual, activation, /*gated=*/false); few.defined())
    return few;
  const int64_t rows = x.size(0);
  const int64_t out = weight.size(0);
  if (!residual.defined())
    if (at::Tensor y = activate_inside(x, weight, bias, activation, /*gated=*/false); y.defined()) return y;
  at::Tensor y = at::empty({rows, out}, x.options());
  const at::Tensor workspace = workspace_like(x);
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
