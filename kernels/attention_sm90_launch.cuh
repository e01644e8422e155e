// What the launchers of the Hopper attention kernels share: what they take, tensor maps, shared memory, and what the
// kernels are where there is no code for them.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <initializer_list>

#include "attention.h"
#include "attention_sm90_block.cuh"
#include "attention_sm90_shape.cuh"
#include "element.cuh"
#include "launch.cuh"
#include "tensor_map.h"

namespace oriel::kernels::sm90 {

// Other architectures get kernels without a body. Their limit of threads a block tells the launcher that the device has
// these (allow_shared_memory).
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
inline constexpr bool kHasCode = true;
#else
inline constexpr bool kHasCode = false;
#endif

template <int kHeadDim>
inline constexpr int kMostThreads = kHasCode ? Shape<kHeadDim>::kThreads : 1;

/// Without head dim, strides and pointers, which differ.
inline bool is_supported(Element element, int heads, int compute_major, int compute_minor) {
  const bool is_16_bit = element == Element::bfloat16 || element == Element::float16;
  return compute_major == 9 && compute_minor == 0 && is_16_bit && heads >= 1 && heads <= 65535;
}

inline bool are_aligned(std::initializer_list<const void*> pointers) {
  for (const void* const pointer : pointers)
    if (!is_aligned(pointer, 16)) return false;
  return true;
}

/// [rows, slices, head_dim] in memory, a slice being a head of q, k or v; `stride` elements from one row to the next.
struct Rows {
  const void* data;
  std::int64_t stride;
  std::int64_t rows, slices;
};

/// Boxes of `columns` x 1 slice x 64 rows.
inline cudaError_t encode_map(Element element, const Rows& rows, int head_dim, CUtensorMap* map, int columns = 64,
                              CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B) {
  const auto size = [](std::int64_t value) { return static_cast<cuuint64_t>(value); };
  const cuuint64_t sizes[3] = {size(head_dim), size(rows.slices), size(rows.rows)};
  const cuuint64_t strides[2] = {2 * size(head_dim), 2 * size(rows.stride)};  // bytes
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(columns), 1, kAttentionUnit};
  return encode_tensor_map(element, rows.data, 3, sizes, strides, box, map, swizzle);
}

/// As allow_shared_memory, for a kernel of this head dim.
template <int kHeadDim, typename Kernel>
cudaError_t allow(Kernel kernel) {
  using S = Shape<kHeadDim>;
  return allow_shared_memory(reinterpret_cast<const void*>(kernel), S::kThreads, S::kBytes);
}

template <int kHeadDim>
Grid grid_of(int blocks) {
  using S = Shape<kHeadDim>;
  return {dim3(static_cast<unsigned>(blocks)), dim3(S::kThreads), S::kBytes};
}

}  // namespace oriel::kernels::sm90
