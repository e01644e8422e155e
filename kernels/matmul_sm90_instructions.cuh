// The Hopper instructions that matmul_sm90 needs beside those of attention: clusters of blocks, copies to all of a
// cluster and back to memory, and products with 128 and 256 columns. Compiles for sm_90a only.
#pragma once

#include "attention_sm90_instructions.cuh"

namespace oriel::kernels::sm90 {

// ---- clusters

__device__ __forceinline__ std::uint32_t cluster_rank() {
  std::uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

/// By all threads of all blocks: shared memory of the others is ready, or not needed any more.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// Arrives at the barrier that has this address in the block of the cluster with this rank.
__device__ __forceinline__ void barrier_arrive_at(std::uint32_t barrier, std::uint32_t rank) {
  asm volatile(
      "{\n.reg .b32 remote;\nmapa.shared::cluster.u32 remote, %0, %1;\n"
      "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier),
      "r"(rank)
      : "memory");
}

// ---- copies

/// As copy_box, to the same address in every block of the cluster in `blocks` (a bit each) and counted on the barrier
/// at the same address there.
__device__ __forceinline__ void copy_box_to_all(std::uint32_t destination, const CUtensorMap& map, int column, int row,
                                                int slice, std::uint32_t barrier, std::uint16_t blocks) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, "
      "{%2, %3, %4}], [%5], %6;" ::"r"(destination),
      "l"(&map), "r"(column), "r"(row), "r"(slice), "r"(barrier), "h"(blocks)
      : "memory");
}

/// A box to memory; what lies outside of the tensor is left out.
__device__ __forceinline__ void store_box(const CUtensorMap& map, int column, int row, std::uint32_t source) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%1, %2}], [%3];" ::"l"(&map),
               "r"(column), "r"(row), "r"(source)
               : "memory");
}
__device__ __forceinline__ void stores_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/// Until at most kPending of this thread's last commits have yet to be read from shared memory.
template <int kPending>
__device__ __forceinline__ void stores_wait() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
}

/// Four 8 x 8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
__device__ __forceinline__ void store_matrices(std::uint32_t address, const std::uint32_t (&matrices)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(matrices[0]),
               "r"(matrices[1]), "r"(matrices[2]), "r"(matrices[3])
               : "memory");
}

/// Threads of some warps meet; `count` of them in all, `barrier` from 1 to 15.
__device__ __forceinline__ void meet(int barrier, int count) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(count) : "memory");
}

/// The same without waiting for the others.
__device__ __forceinline__ void pass(int barrier, int count) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(count) : "memory");
}

// ---- products: D[64, N] = A[64, 16] B[N, 16]^T, added to D if `add`; both operands in shared memory, 16 along a row

#define ORIEL_ACC8(d, i)                                                                                      \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
      "+f"(d[i + 7])
#define ORIEL_ACC32(d, i) ORIEL_ACC8(d, i), ORIEL_ACC8(d, i + 8), ORIEL_ACC8(d, i + 16), ORIEL_ACC8(d, i + 24)
#define ORIEL_ACC64(d, i) ORIEL_ACC32(d, i), ORIEL_ACC32(d, i + 32)
#define ORIEL_NAMES64                                                                                        \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,"       \
  "%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52," \
  "%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define ORIEL_NAMES128                                                                                        \
  ORIEL_NAMES64                                                                                               \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83,%84,%85,%86,%87,%88,%89," \
  "%90,%91,%92,%93,%94,%95,%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111,"      \
  "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define ORIEL_PRODUCT(N, TYPE, NAMES, A, B, ADD, ...)                                                               \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " ADD ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k16.f32." TYPE \
               "." TYPE " {" NAMES "}, " A ", " B ", p, 1, 1, 0, 0;\n}"                                             \
               : __VA_ARGS__                                                                                        \
               : "l"(a), "l"(b), "r"(static_cast<int>(add)))
#define ORIEL_PRODUCTS(TYPE)                                                                                   \
  static __device__ __forceinline__ void product(float(&d)[64], std::uint64_t a, std::uint64_t b, bool add) {  \
    ORIEL_PRODUCT(128, TYPE, ORIEL_NAMES64, "%64", "%65", "%66", ORIEL_ACC64(d, 0));                           \
  }                                                                                                            \
  static __device__ __forceinline__ void product(float(&d)[128], std::uint64_t a, std::uint64_t b, bool add) { \
    ORIEL_PRODUCT(256, TYPE, ORIEL_NAMES128, "%128", "%129", "%130", ORIEL_ACC64(d, 0), ORIEL_ACC64(d, 64));   \
  }

template <class T>
struct WideProducts;
template <>
struct WideProducts<__nv_bfloat16> {
  ORIEL_PRODUCTS("bf16")
};
template <>
struct WideProducts<__half> {
  ORIEL_PRODUCTS("f16")
};

#undef ORIEL_ACC8
#undef ORIEL_ACC32
#undef ORIEL_ACC64
#undef ORIEL_NAMES64
#undef ORIEL_NAMES128
#undef ORIEL_PRODUCT
#undef ORIEL_PRODUCTS

}  // namespace oriel::kernels::sm90
