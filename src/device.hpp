#pragma once
#include <optional>
#include <oriel/types.hpp>

namespace oriel {

/// Throws unavailable, with the reason, unless this build and machine have the device.
void check_device(Device device);

/// The dtype of weights: float32 on the CPU and bfloat16 on a GPU where none is wanted. Throws invalid_argument for one
/// that nothing is computed in.
[[nodiscard]] DType choose_dtype(const std::optional<DType>& wanted, Device device);

}  // namespace oriel
