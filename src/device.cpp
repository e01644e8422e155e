#include "device.hpp"

#include <ATen/Context.h>

#include "core/error.hpp"
#include "ops/device.hpp"
#include "tensor_types.hpp"

namespace oriel {

void check_device(Device device) {
  if (device.kind == Device::Kind::cpu) return;
  const int count = at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
  if (count == 0) throw_error(ErrorCode::unavailable, "device {}: {}", to_string(device), ops::why_no_gpu());
  if (device.index < 0 || device.index >= count)
    throw_error(ErrorCode::unavailable, "device {}: expected an index from 0 to {}", to_string(device), count - 1);
  const int capability = ops::compute_capability(to_torch_device(device));
  if (capability < 80)
    throw_error(ErrorCode::unavailable, "device {}: expected compute capability 8.0 or higher, got {}.{}",
                to_string(device), capability / 10, capability % 10);
  if (!ops::has_code_for(to_torch_device(device)))
    throw_error(ErrorCode::unavailable,
                "device {}: this build of oriel has no kernels for compute capability {}.{} (ORIEL_CUDA_ARCHITECTURES)",
                to_string(device), capability / 10, capability % 10);
}

DType choose_dtype(const std::optional<DType>& wanted, Device device) {
  const DType dtype = wanted.value_or(device.kind == Device::Kind::cpu ? DType::float32 : DType::bfloat16);
  if (dtype != DType::float32 && dtype != DType::bfloat16 && dtype != DType::float16)
    throw_error(ErrorCode::invalid_argument, "dtype: expected float32, bfloat16 or float16, got {}", to_string(dtype));
  return dtype;
}

}  // namespace oriel
