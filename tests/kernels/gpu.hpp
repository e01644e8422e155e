#pragma once
// Whether there is a GPU to test on: if (!has_gpu()) GTEST_SKIP() << no_gpu; and what another library may leave behind.
#include <ATen/Context.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <cstddef>

namespace oriel {

inline constexpr const char* no_gpu = "no GPU with a working driver was found";

inline bool has_gpu() { return at::hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0; }

/// Leaves on this thread what an allocation that fails leaves there: cudaErrorMemoryAllocation.
inline void fail_elsewhere() {
  void* memory = nullptr;
  ASSERT_EQ(cudaMalloc(&memory, size_t{1} << 60), cudaErrorMemoryAllocation);
}

}  // namespace oriel
