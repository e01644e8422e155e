#include <ATen/ops/empty.h>

#include <memory>
#include <mutex>
#include <vector>

#include "core/error.hpp"
#include "ops/cuda/launch.hpp"
#include "ops/linear.hpp"

namespace oriel::ops::cuda {
namespace {

/// The products of a device, shared by all towers on it: equal shapes of two towers are timed once.
kernels::Matmul& products(const at::Tensor& x) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<kernels::Matmul>> devices;
  const auto index = static_cast<size_t>(x.device().index());
  const std::lock_guard lock(mutex);
  if (devices.size() <= index) devices.resize(index + 1);
  if (!devices[index]) devices[index] = std::make_unique<kernels::Matmul>();
  return *devices[index];
}

const void* data_or_null(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, const at::Tensor& residual,
                  Activation activation) {
  const int64_t rows = x.size(0);
  const int64_t out = weight.size(0);
  at::Tensor y = at::empty({rows, out}, x.options());
  const at::Tensor workspace = at::empty({kernels::Matmul::workspace_bytes}, x.options().dtype(at::kByte));
  // In float32 the exact function runs apart: cuBLASLt's own is an approximation.
  const bool fused = activation == Activation::gelu_tanh && is_16_bit(x) && !residual.defined();
  check(products(x)({.x = x.const_data_ptr(),
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
  return fused ? y : activate_in_place(y, activation);
}

}  // namespace oriel::ops::cuda
