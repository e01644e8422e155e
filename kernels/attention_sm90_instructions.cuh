// The Hopper instructions that attention needs, one small function each: barriers in shared memory, copies by the
// tensor memory accelerator, warpgroup matrix products, and the warp's own ldmatrix (its product stands in mma.cuh).
// Addresses are 32-bit addresses of the shared window. For sm_90a alone: elsewhere it may be included, not used.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace oriel::kernels::sm90 {

// ---- barriers (mbarrier): `parity` is that of the phase waited for, 0 for the first

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

__device__ __forceinline__ void barrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/// Makes initialised barriers known to the other threads of the block and to the copy engine.
__device__ __forceinline__ void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/// Arrives, and makes the phase wait for `bytes` from the copy engine too.
__device__ __forceinline__ void barrier_arrive_expecting(std::uint32_t barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ bool barrier_passed(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t passed;
  asm volatile("{\n.reg .pred p;\nmbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
               : "=r"(passed)
               : "r"(barrier), "r"(parity)
               : "memory");
  return passed != 0;
}

__device__ __forceinline__ void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@!p bra WAIT;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}

// ---- copies

/// A box of [rows of dimension 2][1 of dimension 1][columns of dimension 0] to `destination`, counted on `barrier`.
__device__ __forceinline__ void copy_box(std::uint32_t destination, const CUtensorMap& map, int column, int slice,
                                         int row, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
      "[%5];" ::"r"(destination),
      "l"(&map), "r"(column), "r"(slice), "r"(row), "r"(barrier)
      : "memory");
}

/// Ordinary writes of this thread to shared memory before, matrix products and copies that touch it after.
__device__ __forceinline__ void shared_writes_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

__device__ __forceinline__ void store_zeros(std::uint32_t address) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(address), "r"(0) : "memory");
}

// ---- registers

template <int kCount>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}

template <int kCount>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}

// ---- warpgroup matrix products (wgmma): D[64, N] float in registers, 16 of the inner dimension an instruction
// Asynchronous: between product_fence and products_wait the registers belong to the tensor cores. `hold` before and
// after tells the compiler so, which sees no dependence of its own.

template <int kCount>
__device__ __forceinline__ void hold(float (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(registers[i])::"memory");
}

template <int kCount>
__device__ __forceinline__ void hold(std::uint32_t (&registers)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

__device__ __forceinline__ void product_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void product_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/// Until at most kPending of the last commits are unfinished.
template <int kPending>
__device__ __forceinline__ void products_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

/// Descriptors of an operand in shared memory. High word: bytes from one group of 8 rows to the next, and the swizzle.
/// Low word: address and, for an operand that lies along N, bytes from one group of 64 columns to the next.
inline constexpr std::uint32_t kSwizzle128 = 1024 / 16 | 1u << 30;
inline constexpr std::uint32_t kSwizzle32 = 256 / 16 | 3u << 30;

__device__ __forceinline__ std::uint32_t operand_low(std::uint32_t address, std::uint32_t column_group_bytes) {
  return address >> 4 | (column_group_bytes >> 4) << 16;
}

__device__ __forceinline__ std::uint64_t operand(std::uint32_t low, std::uint32_t high) {
  return static_cast<std::uint64_t>(high) << 32 | low;
}

// Operands of the assembly text: eight accumulators at a time, numbered as they stand.
#define ORIEL_ACC8(d, i)                                                                                      \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define ORIEL_ACC4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define ORIEL_ACC32(d) ORIEL_ACC8(d, 0), ORIEL_ACC8(d, 8), ORIEL_ACC8(d, 16), ORIEL_ACC8(d, 24)
#define ORIEL_NAMES32                                                                                  \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
  "%27,%28,%29,%30,%31"
#define ORIEL_NAMES64                                                                                         \
  ORIEL_NAMES32                                                                                               \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
  "%58,%59,%60,%61,%62,%63"

#define ORIEL_NAMES128                                                                                        \
  ORIEL_NAMES64                                                                                               \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89," \
  "%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,%112," \
  "%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// S[64, 64] = Q[64, 16] K[64, 16]^T, added to S if `add`; both operands in shared memory, 16 along a row.
#define ORIEL_SCORES(TYPE)                                                                                           \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\nwgmma.mma_async.sync.aligned.m64n64k16.f32." TYPE "." TYPE \
               " {" ORIEL_NAMES32 "}, %32, %33, p, 1, 1, 0, 0;\n}"                                                   \
               : ORIEL_ACC32(s)                                                                                      \
               : "l"(q), "l"(k), "r"(static_cast<int>(add)))

// O[64, N] += P[64, 16] V[16, N]: P from registers, V in shared memory as it lies in memory, along N.
#define ORIEL_VALUES(N, TYPE, NAMES, P0, P1, P2, P3, V, ACCUMULATORS)                                                  \
  asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, 0, 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE "." TYPE \
               " {" NAMES "}, {" P0 "," P1 "," P2 "," P3 "}, " V ", p, 1, 1, 1;\n}"                                    \
               : ACCUMULATORS                                                                                          \
               : "r"(p[0]), "r"(p[1]), "r"(p[2]), "r"(p[3]), "l"(v))
#define ORIEL_ACC36(d) ORIEL_ACC32(d), ORIEL_ACC4(d, 32)
#define ORIEL_ACC40(d) ORIEL_ACC32(d), ORIEL_ACC8(d, 32)
#define ORIEL_ACC64(d) ORIEL_ACC40(d), ORIEL_ACC8(d, 40), ORIEL_ACC8(d, 48), ORIEL_ACC8(d, 56)
#define ORIEL_ACC128(d)                                                                                          \
  ORIEL_ACC64(d), ORIEL_ACC8(d, 64), ORIEL_ACC8(d, 72), ORIEL_ACC8(d, 80), ORIEL_ACC8(d, 88), ORIEL_ACC8(d, 96), \
      ORIEL_ACC8(d, 104), ORIEL_ACC8(d, 112), ORIEL_ACC8(d, 120)
#define ORIEL_VALUES64(TYPE) ORIEL_VALUES(64, TYPE, ORIEL_NAMES32, "%32", "%33", "%34", "%35", "%36", ORIEL_ACC32(o))
#define ORIEL_VALUES72(TYPE) \
  ORIEL_VALUES(72, TYPE, ORIEL_NAMES32 ",%32,%33,%34,%35", "%36", "%37", "%38", "%39", "%40", ORIEL_ACC36(o))
#define ORIEL_VALUES80(TYPE)                                                                                  \
  ORIEL_VALUES(80, TYPE, ORIEL_NAMES32 ",%32,%33,%34,%35,%36,%37,%38,%39", "%40", "%41", "%42", "%43", "%44", \
               ORIEL_ACC40(o))
#define ORIEL_VALUES128(TYPE) ORIEL_VALUES(128, TYPE, ORIEL_NAMES64, "%64", "%65", "%66", "%67", "%68", ORIEL_ACC64(o))
#define ORIEL_VALUES256(TYPE) \
  ORIEL_VALUES(256, TYPE, ORIEL_NAMES128, "%128", "%129", "%130", "%131", "%132", ORIEL_ACC128(o))

/// What differs between bfloat16 and float16.
template <class T>
struct Instructions;

template <>
struct Instructions<__nv_bfloat16> {
  static __device__ __forceinline__ void scores(float (&s)[32], std::uint64_t q, std::uint64_t k, bool add) {
    ORIEL_SCORES("bf16");
  }
  static __device__ __forceinline__ void values(float (&o)[32], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES64("bf16");
  }
  static __device__ __forceinline__ void values(float (&o)[36], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES72("bf16");
  }
  static __device__ __forceinline__ void values(float (&o)[40], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES80("bf16");
  }
  static __device__ __forceinline__ void values(float (&o)[64], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES128("bf16");
  }
  static __device__ __forceinline__ void values(float (&o)[128], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES256("bf16");
  }
  /// Two rounded to nearest, `low` in the lower half.
  static __device__ __forceinline__ std::uint32_t pack(float low, float high) {
    std::uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
  }
};

template <>
struct Instructions<__half> {
  static __device__ __forceinline__ void scores(float (&s)[32], std::uint64_t q, std::uint64_t k, bool add) {
    ORIEL_SCORES("f16");
  }
  static __device__ __forceinline__ void values(float (&o)[32], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES64("f16");
  }
  static __device__ __forceinline__ void values(float (&o)[36], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES72("f16");
  }
  static __device__ __forceinline__ void values(float (&o)[40], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES80("f16");
  }
  static __device__ __forceinline__ void values(float (&o)[64], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES128("f16");
  }
  static __device__ __forceinline__ void values(float (&o)[128], const std::uint32_t* p, std::uint64_t v) {
    ORIEL_VALUES256("f16");
  }
  static __device__ __forceinline__ std::uint32_t pack(float low, float high) {
    std::uint32_t packed;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
  }
};

#undef ORIEL_ACC4
#undef ORIEL_ACC8
#undef ORIEL_ACC32
#undef ORIEL_ACC36
#undef ORIEL_ACC40
#undef ORIEL_ACC64
#undef ORIEL_ACC128
#undef ORIEL_NAMES32
#undef ORIEL_NAMES64
#undef ORIEL_NAMES128
#undef ORIEL_SCORES
#undef ORIEL_VALUES
#undef ORIEL_VALUES64
#undef ORIEL_VALUES72
#undef ORIEL_VALUES80
#undef ORIEL_VALUES128
#undef ORIEL_VALUES256

// ---- a warp's own

/// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void load_matrices(std::uint32_t (&matrices)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(matrices[0]), "=r"(matrices[1]), "=r"(matrices[2]), "=r"(matrices[3])
               : "r"(address)
               : "memory");
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace oriel::kernels::sm90
