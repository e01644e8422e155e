#pragma once
#include <oriel/types.hpp>

namespace oriel {

/// Throws unavailable, with the reason, unless this build and machine have the device.
void check_device(Device device);

}  // namespace oriel
