#include "ops/cuda/launch.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <cstring>
#include <map>
#include <mutex>

#include "attention.h"
#include "core/error.hpp"
#include "decode.h"

namespace oriel::ops::cuda {

bool is_16_bit(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf; }

bool takes(const at::Tensor& x) {
  return x.is_cuda() && x.is_contiguous() && (is_16_bit(x) || x.scalar_type() == at::kFloat);
}

kernels::Element element_of(const at::Tensor& x) {
  if (x.scalar_type() == at::kBFloat16) return kernels::Element::bfloat16;
  if (x.scalar_type() == at::kHalf) return kernels::Element::float16;
  if (x.scalar_type() == at::kFloat) return kernels::Element::float32;
  throw_error(ErrorCode::internal, "kernel: expected float32, bfloat16 or float16, got {}", toString(x.scalar_type()));
}

cudaStream_t stream_of(const at::Tensor& x) { return c10::cuda::getCurrentCUDAStream(x.device().index()).stream(); }

at::Tensor to_device(const void* data, int64_t count, at::ScalarType type, c10::Device device) {
  const at::Tensor host = at::empty({count}, at::dtype(type).pinned_memory(true));
  std::memcpy(host.mutable_data_ptr(), data, static_cast<size_t>(count) * c10::elementSize(type));
  return host.to(device, /*non_blocking=*/true);
}

Chip chip_of(c10::Device device) {
  static std::mutex mutex;
  static std::map<c10::DeviceIndex, Chip> chips;
  const std::lock_guard lock(mutex);
  Chip& chip = chips[device.index()];
  if (chip.processors == 0) {
    Chip found;
    check(cudaDeviceGetAttribute(&found.major, cudaDevAttrComputeCapabilityMajor, device.index()), "device");
    check(cudaDeviceGetAttribute(&found.minor, cudaDevAttrComputeCapabilityMinor, device.index()), "device");
    check(cudaDeviceGetAttribute(&found.processors, cudaDevAttrMultiProcessorCount, device.index()), "device");
    if (found.major == 9 && found.minor == 0) {
      const c10::cuda::CUDAGuard guard(device);
      const cudaError_t code = kernels::attention_sm90_has_code();
      if (code != cudaErrorNotSupported) check(code, "device");
      found.has_sm90_code = code == cudaSuccess;
    }
    chip = found;
  }
  return chip;
}

void check(cudaError_t error, std::string_view operation) {
  if (error == cudaSuccess) return;
  (void)cudaGetLastError();  // thrown here, and not to be found again by the next launch
  throw_error(error == cudaErrorMemoryAllocation ? ErrorCode::out_of_memory : ErrorCode::internal, "{}: {}", operation,
              cudaGetErrorString(error));
}

namespace {

/// Wider rows do not fit a warp's registers.
constexpr int64_t most_bytes_of_a_warp = 4096;

/// By a block a row, if that kernel is for rows so wide: it depends on nothing else, so that rows keep their bits.
bool rms_norm_wide(const at::Tensor& x, const at::Tensor& weight, double eps, bool weight_plus_one,
                   const at::Tensor& residual, const at::Tensor& y) {
  const int64_t width = x.size(-1);
  const bool is_for_it = residual.defined() || width * x.element_size() > most_bytes_of_a_warp;
  if (!is_for_it || width % 8 != 0 || width > kernels::WideNormParams::most_width) return false;
  for (const at::Tensor& part : {x, weight, residual})
    if (part.defined() && reinterpret_cast<uintptr_t>(part.const_data_ptr()) % 16 != 0) return false;
  check(kernels::rms_norm_wide({.x = x.const_data_ptr(),
                                .weight = weight.const_data_ptr(),
                                .residual = residual.defined() ? residual.const_data_ptr() : nullptr,
                                .y = y.mutable_data_ptr(),
                                .rows = x.numel() / width,
                                .width = width,
                                .eps = static_cast<float>(eps),
                                .weight_plus_one = weight_plus_one,
                                .element = element_of(x)},
                               stream_of(x)),
        "rms_norm");
  return true;
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool weight_plus_one,
                    const at::Tensor& residual) {
  at::Tensor y = at::empty_like(x);
  if (rms_norm_wide(x, weight, eps, weight_plus_one, residual, y)) return y;
  const int64_t width = x.size(-1);
  check(kernels::rms_norm({.x = x.const_data_ptr(),
                           .weight = weight.const_data_ptr(),
                           .y = y.mutable_data_ptr(),
                           .rows = x.numel() / width,
                           .width = width,
                           .eps = static_cast<float>(eps),
                           .weight_plus_one = weight_plus_one,
                           .element = element_of(x)},
                          stream_of(x)),
        "rms_norm");
  return residual.defined() ? y.add_(residual) : y;
}

at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) {
  at::Tensor y = at::empty_like(x);
  const int64_t width = x.size(-1);
  check(kernels::layer_norm({.x = x.const_data_ptr(),
                             .weight = weight.const_data_ptr(),
                             .bias = bias.const_data_ptr(),
                             .y = y.mutable_data_ptr(),
                             .rows = x.numel() / width,
                             .width = width,
                             .eps = static_cast<float>(eps),
                             .element = element_of(x)},
                            stream_of(x)),
        "layer_norm");
  return y;
}

kernels::ElementwiseFunction function_of(Activation activation) {
  using F = kernels::ElementwiseFunction;
  switch (activation) {
    case Activation::relu:
      return F::relu;
    case Activation::silu:
      return F::silu;
    case Activation::gelu_erf:
      return F::gelu_erf;
    case Activation::gelu_tanh:
      return F::gelu_tanh;
    case Activation::quick_gelu:
      return F::quick_gelu;
    case Activation::identity:
      return F::identity;
  }
  throw_error(ErrorCode::internal, "activation {}: has no kernel", static_cast<int>(activation));
}

at::Tensor activate_in_place(const at::Tensor& x, Activation activation) {
  if (activation == Activation::identity) return x;
  check(kernels::elementwise({.x = x.const_data_ptr(),
                              .y = x.mutable_data_ptr(),
                              .count = x.numel(),
                              .function = function_of(activation),
                              .element = element_of(x)},
                             stream_of(x)),
        "activate");
  return x;
}

at::Tensor gate(const at::Tensor& gate_up, Activation activation) {
  const int64_t width = gate_up.size(1) / 2;
  at::Tensor y = at::empty({gate_up.size(0), width}, gate_up.options());
  check(kernels::gate({.gate_up = gate_up.const_data_ptr(),
                       .y = y.mutable_data_ptr(),
                       .rows = gate_up.size(0),
                       .width = width,
                       .function = function_of(activation),
                       .element = element_of(gate_up)},
                      stream_of(gate_up)),
        "gate");
  return y;
}

bool rotate_query_key(const at::Tensor& qkv, const Rotary& rotary, double query_scale) {
  if (!takes(qkv) || !rotary.turns.defined() || qkv.size(3) % 8 != 0) return false;
  check(kernels::rotate_query_key({.qkv = qkv.mutable_data_ptr(),
                                   .turns = rotary.turns.const_data_ptr<float>(),
                                   .tokens = qkv.size(0),
                                   .heads = qkv.size(2),
                                   .head_dim = qkv.size(3),
                                   .query_scale = static_cast<float>(query_scale),
                                   .element = element_of(qkv)},
                                  stream_of(qkv)),
        "rotate_query_key");
  return true;
}

namespace {

at::Tensor move_rows(const at::Tensor& x, const at::Tensor& index, bool scatter) {
  const int64_t rows = index.size(0);
  at::Tensor y = at::empty({rows, x.size(1)}, x.options());
  check(kernels::gather_rows({.x = x.const_data_ptr(),
                              .index = index.const_data_ptr<int64_t>(),
                              .y = y.mutable_data_ptr(),
                              .rows = rows,
                              .row_bytes = x.size(1) * x.element_size(),
                              .scatter = scatter},
                             stream_of(x)),
        "gather_rows");
  return y;
}

}  // namespace

at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index) { return move_rows(x, index, /*scatter=*/false); }

at::Tensor scatter_rows(const at::Tensor& x, const at::Tensor& index) { return move_rows(x, index, /*scatter=*/true); }

at::Tensor average_pool(const at::Tensor& x, int64_t side, int64_t k) {
  const int64_t pictures = x.size(0) / (side * side);
  const int64_t pooled = side / k;
  at::Tensor y = at::empty({pictures * pooled * pooled, x.size(1)}, x.options());
  check(kernels::average_pool({.x = x.const_data_ptr(),
                               .y = y.mutable_data_ptr(),
                               .pictures = pictures,
                               .side = side,
                               .k = k,
                               .width = x.size(1),
                               .element = element_of(x)},
                              stream_of(x)),
        "average_pool");
  return y;
}

at::Tensor merge_raster_patches(const at::Tensor& x, int64_t h, int64_t w, int64_t m) {
  at::Tensor y = at::empty({(h / m) * (w / m), x.size(1) * m * m}, x.options());
  check(kernels::merge_patches({.x = x.const_data_ptr(),
                                .y = y.mutable_data_ptr(),
                                .height = h,
                                .width = w,
                                .m = m,
                                .channels = x.size(1),
                                .element = element_of(x)},
                               stream_of(x)),
        "merge_patches");
  return y;
}

}  // namespace oriel::ops::cuda
