#include "device.hpp"

#include <ATen/Context.h>

#include "core/error.hpp"
#include "ops/device.hpp"
#include "tensor_types.hpp"
#include "torch_errors.hpp"

namespace oriel {

void check_device(Device device) {
  if (device.kind == Device::Kind::cpu) return;
  const std::string name = "device " + to_string(device);
  with_torch_errors(name, [&] {
    const int count = at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
    if (count == 0) throw_error(ErrorCode::unavailable, "{}: {}", name, ops::why_no_gpu());
    if (device.index < 0 || device.index >= count)
      throw_error(ErrorCode::unavailable, "{}: expected an index from 0 to {}", name, count - 1);
    if (const std::string why = ops::why_unusable(to_torch_device(device)); !why.empty())
      throw_error(ErrorCode::unavailable, "{}: {}", name, why);
  });
}

DType choose_dtype(const std::optional<DType>& wanted, Device device) {
  const DType dtype = wanted.value_or(device.kind == Device::Kind::cpu ? DType::float32 : DType::bfloat16);
  if (dtype != DType::float32 && dtype != DType::bfloat16 && dtype != DType::float16)
    throw_error(ErrorCode::invalid_argument, "dtype: expected float32, bfloat16 or float16, got {}", to_string(dtype));
  return dtype;
}

}  // namespace oriel
