#pragma once
// A warp's product on the matrix units of sm_80 and newer, for bfloat16 and float16.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace oriel::kernels {

/// sums [16, 8] += A [16, 16] B [16, 8], a word of the operands being two neighbours in what is summed. Lane 4 g + t
/// holds, with a0 and a1, columns 2 t and 2 t + 1 of A's rows g and g + 8, with a2 and a3 those 8 columns on; with b0
/// and b1 rows 2 t and 2 t + 1, and those 8 on, of B's column g; of the four sums, columns 2 t and 2 t + 1 of row g,
/// then of row g + 8. Nothing on older chips, where nobody calls it.
template <typename T>
__device__ __forceinline__ void multiply(float* sums, uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                                         uint32_t b1) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (std::is_same_v<T, __half>)
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
  else
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}

}  // namespace oriel::kernels
