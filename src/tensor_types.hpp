#pragma once
// The public dtypes and devices in libtorch's terms.
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <oriel/types.hpp>

#include "core/error.hpp"

namespace oriel {

[[nodiscard]] inline at::ScalarType to_scalar_type(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return at::kFloat;
    case DType::bfloat16:
      return at::kBFloat16;
    case DType::float16:
      return at::kHalf;
    case DType::int64:
      return at::kLong;
    case DType::uint8:
      return at::kByte;
  }
  throw_error(ErrorCode::invalid_argument, "dtype: unknown value {}", static_cast<int>(dtype));
}

[[nodiscard]] inline DType from_scalar_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return DType::float32;
    case at::kBFloat16:
      return DType::bfloat16;
    case at::kHalf:
      return DType::float16;
    case at::kLong:
      return DType::int64;
    case at::kByte:
      return DType::uint8;
    default:
      throw_error(ErrorCode::invalid_argument,
                  "tensor: expected float32, bfloat16, float16, int64 or uint8, got torch's {}", c10::toString(type));
  }
}

[[nodiscard]] inline c10::Device to_torch_device(Device device) {
  if (device.kind == Device::Kind::cpu) return c10::Device(c10::kCPU);
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device.index));
}

[[nodiscard]] inline Device from_torch_device(c10::Device device) {
  if (device.is_cpu()) return Device::cpu();
  if (device.is_cuda()) return Device::cuda(device.has_index() ? device.index() : 0);
  throw_error(ErrorCode::invalid_argument, "tensor: expected a CPU or CUDA tensor, got {}", device.str());
}

}  // namespace oriel
