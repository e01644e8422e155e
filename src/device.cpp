#include "device.hpp"

#include <ATen/Context.h>

#include "core/error.hpp"

namespace oriel {

void check_device(Device device) {
  if (device.kind == Device::Kind::cpu) return;
  const int count = at::hasCUDA() ? static_cast<int>(at::detail::getCUDAHooks().deviceCount()) : 0;
  if (count == 0)
    throw_error(ErrorCode::unavailable, "device {}: {}", to_string(device),
                at::hasCUDA() ? "no GPU with a working driver was found" : "this build of oriel runs on the CPU only");
  if (device.index < 0 || device.index >= count)
    throw_error(ErrorCode::unavailable, "device {}: expected an index from 0 to {}", to_string(device), count - 1);
}

}  // namespace oriel
