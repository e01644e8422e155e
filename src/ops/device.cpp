#include "ops/device.hpp"

#include <c10/core/impl/VirtualGuardImpl.h>

#ifdef ORIEL_CUDA
#include <c10/cuda/CUDACachingAllocator.h>

#include "ops/cuda/launch.hpp"
#endif

namespace oriel::ops {

int64_t available_bytes([[maybe_unused]] c10::Device device) {
#ifdef ORIEL_CUDA
  if (device.is_cuda()) {
    size_t free = 0;
    size_t total = 0;
    cuda::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return static_cast<int64_t>(free) + stats.reserved_bytes[all].current - stats.allocated_bytes[all].current;
  }
#endif
  return -1;
}

int compute_capability([[maybe_unused]] c10::Device device) {
#ifdef ORIEL_CUDA
  if (device.is_cuda()) {
    const cuda::Chip chip = cuda::chip_of(device);
    return 10 * chip.major + chip.minor;
  }
#endif
  return 0;
}

c10::Stream current_stream(c10::Device device) { return c10::impl::VirtualGuardImpl(device.type()).getStream(device); }

}  // namespace oriel::ops
