#pragma once
// Launches of kernels. Their status is their own: what other code of the process left behind on this thread, such as an
// allocation that failed, is not taken for theirs, as it would be by cudaGetLastError behind a launch.
//
// Some overlap with the end of the kernel before (programmatic dependent launch, sm_90 and newer). A kernel launched so
// may begin when every block of the one before it on the stream has ended or has said let_next_kernel_begin. Until
// wait_for_kernels_before returns it may touch nothing that a kernel writes, nor write what one reads. Every block
// waits, also one without work: the next kernel waits for the end of this one alone, and so relies on it to have waited
// for those before. Stream capture makes programmatic edges of such launches. What comes from elsewhere than a kernel,
// such as a copy of bounds, is there from the beginning.
#include <cuda_runtime.h>

#include <cstddef>

namespace oriel::kernels {

/// Returns when all kernels before this one have ended and their writes are seen.
__device__ __forceinline__ void wait_for_kernels_before() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/// The next kernel's blocks may take the room that this kernel leaves.
__device__ __forceinline__ void let_next_kernel_begin() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

struct Grid {
  dim3 blocks;
  dim3 threads;
  size_t shared_bytes = 0;
};

/// Launches a kernel as the attribute says; null: behind the kernels before.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_with(cudaLaunchAttribute* attribute, void (*kernel)(Parameters...), const Grid& grid,
                        cudaStream_t stream, const Arguments&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid.blocks;
  config.blockDim = grid.threads;
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = stream;
  config.attrs = attribute;
  config.numAttrs = attribute != nullptr ? 1 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  if (error != cudaSuccess) (void)cudaGetLastError();  // returned, and not to be found again by the next one
  return error;
}

/// Launches a kernel behind those before.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_in_order(void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream,
                            const Arguments&... arguments) {
  return launch_with(nullptr, kernel, grid, stream, arguments...);
}

/// Launches a kernel that calls wait_for_kernels_before. Code for older chips has no such wait, and neither has what a
/// driver makes of it for newer ones: it is launched behind the kernels before.
template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapping(void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream,
                               const Arguments&... arguments) {
  cudaFuncAttributes code{};
  if (const cudaError_t error = cudaFuncGetAttributes(&code, kernel); error != cudaSuccess) {
    (void)cudaGetLastError();  // returned, as above
    return error;
  }
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  return launch_with(code.ptxVersion >= 90 ? &overlap : nullptr, kernel, grid, stream, arguments...);
}

}  // namespace oriel::kernels
