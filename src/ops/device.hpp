#pragma once
#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <cstdint>

namespace oriel::ops {

/// Bytes that a GPU still has for this process: free ones, and those that libtorch's allocator holds unused.
/// -1 on the CPU, where nothing is known beforehand.
[[nodiscard]] int64_t available_bytes(c10::Device device);

/// Ten times the major number and the minor one: 90 for an H100. 0 on the CPU.
[[nodiscard]] int compute_capability(c10::Device device);

/// libtorch's current stream of this thread on a GPU, or its stand-in on the CPU.
[[nodiscard]] c10::Stream current_stream(c10::Device device);

}  // namespace oriel::ops
