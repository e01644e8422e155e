#pragma once
// Tensor maps for Hopper's copy engine, and other steps that launches of its kernels share.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "kernels.h"

namespace oriel::kernels {

/// A map over 16-bit elements with boxes in a 128-byte swizzle; elements outside of the tensor read as zeros.
/// `strides` are in bytes, of all dimensions but the first. cudaErrorNotSupported where the driver is too old.
cudaError_t encode_tensor_map(Element element, const void* data, int dimensions, const cuuint64_t* sizes,
                              const cuuint64_t* strides, const cuuint32_t* box, CUtensorMap* map,
                              CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B);

/// Lets a kernel have this much shared memory. cudaErrorNotSupported if the library holds no code of it for the
/// current device: what other architectures get is limited to fewer threads a block.
cudaError_t allow_shared_memory(const void* kernel, int threads, int bytes);

}  // namespace oriel::kernels
