// Attention inside windows of at most 64 tokens, sm_80 and newer: formula and inputs in attention.h.
//
// Layout. A block of four warps computes one head of one window. q, k and v [length, head_dim] come out of
// qkv [tokens, 3, heads, head_dim] by asynchronous copies into shared memory, rows padded by 16 bytes so that ldmatrix
// meets each bank once. Rows past the window are filled with zeros there and never read from memory: what lies behind,
// NaN included, does not exist for this window. head_dim 72 is filled up to 80 for Q K^T.
//
// Idea. 64 tokens are read once and need 64 products each: memory decides (8 bytes a token, head and column at 2 bytes
// an element). So nothing is clever but the number of copies in flight: five blocks a multiprocessor, each with its
// whole window under way; V arrives while Q K^T runs. A warp takes 16 queries against all keys in registers: the
// softmax is exact, its maximum the row's. The output goes through the rows of q, which no one needs any more, into
// 16-byte stores.
//
// Limits. head_dim 64, 72, 80, 128; bfloat16, float16; token_stride a multiple of 8, pointers of 16 bytes.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "attention.h"
#include "attention_dispatch.cuh"
#include "element.cuh"
#include "launch.cuh"
#include "mma.cuh"

namespace oriel::kernels {
namespace {

constexpr int kRows = kAttentionWindow;
constexpr int kWarps = kRows / 16;
constexpr int kThreads = 32 * kWarps;

template <int kHeadDim>
struct Shape {
  static constexpr int kChunks = kHeadDim / 8;                // of 16 bytes a row, as they lie in memory
  static constexpr int kColumns = (kHeadDim + 15) / 16 * 16;  // of a row in the product Q K^T
  static constexpr int kStride = kColumns + 8;                // elements from row to row: an odd number of chunks
  static constexpr int kBytes = 3 * kRows * kStride * 2;
  static constexpr int kBlocksPerMultiprocessor = kHeadDim == 128 ? 4 : 5;
};

struct KernelArguments {
  const void* qkv;
  void* out;
  const std::int32_t* cu_seqlens;
  std::int64_t token_stride;
  int heads;
  float scale_log2;
};

__device__ __forceinline__ std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// 16 bytes from global to shared memory; zeros if not `exists`.
__device__ __forceinline__ void copy_chunk(std::uint32_t to, const void* from, bool exists) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0) : "memory");
}

__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int kPending>
__device__ __forceinline__ void copies_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Four 8 x 8 matrices, or their transposes; lane i gives the address of row i % 8 of matrix i / 8.
template <bool kTransposed>
__device__ __forceinline__ void load_matrices(std::uint32_t (&m)[4], std::uint32_t address) {
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
  }
}

/// Two rounded to nearest, `low` in the lower half.
__device__ __forceinline__ std::uint32_t pack(float low, float high, __nv_bfloat16) {
  std::uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
__device__ __forceinline__ std::uint32_t pack(float low, float high, __half) {
  const __half2 packed = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&packed);
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// One of q, k, v of the window's head: `from` is its first row. Called by all threads.
template <class T, int kHeadDim>
__device__ __forceinline__ void copy_rows(T* to, const T* from, std::int64_t token_stride, int length) {
  using S = Shape<kHeadDim>;
  for (int i = threadIdx.x; i < kRows * S::kChunks; i += kThreads) {
    const int row = i / S::kChunks, chunk = i % S::kChunks;
    const bool exists = row < length;
    copy_chunk(shared_address(to + row * S::kStride + chunk * 8), from + (exists ? row * token_stride + chunk * 8 : 0),
               exists);
  }
}

/// Zeros in the columns that Q K^T takes and memory does not have.
template <class T, int kHeadDim>
__device__ __forceinline__ void clear_padding(T* rows) {
  using S = Shape<kHeadDim>;
  if constexpr (S::kColumns > kHeadDim) {
    for (int row = threadIdx.x; row < kRows; row += kThreads) {
      *reinterpret_cast<uint4*>(rows + row * S::kStride + kHeadDim) = make_uint4(0, 0, 0, 0);
    }
  }
}

/// s[16, 64] = Q K^T for the warp's 16 rows of q, in the layout of mma's accumulators: of 8 columns a lane holds two in
/// row lane / 4 and two in the row 8 below.
template <class T, int kHeadDim>
__device__ __forceinline__ void scores(float (&s)[kRows / 8][4], const T* q, const T* k, int lane) {
  using S = Shape<kHeadDim>;
#pragma unroll
  for (auto& tile : s) tile[0] = tile[1] = tile[2] = tile[3] = 0.f;
  const std::uint32_t q_lane = shared_address(q + lane % 16 * S::kStride + lane / 16 * 8);
  const std::uint32_t k_lane = shared_address(k + (lane % 8 + lane / 16 * 8) * S::kStride + lane / 8 % 2 * 8);
#pragma unroll
  for (int column = 0; column < S::kColumns; column += 16) {
    std::uint32_t a[4], b[4];
    load_matrices<false>(a, q_lane + column * 2);
#pragma unroll
    for (int n = 0; n < kRows / 16; ++n) {  // 16 keys
      load_matrices<false>(b, k_lane + (n * 16 * S::kStride + column) * 2);
      multiply<T>(s[2 * n], a[0], a[1], a[2], a[3], b[0], b[1]);
      multiply<T>(s[2 * n + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }
}

/// s becomes p = 2^(s scale - maximum) over the first `length` columns, 0 beyond; `sum` of both rows.
__device__ __forceinline__ void softmax(float (&s)[kRows / 8][4], float (&sum)[2], float scale, int length, int lane) {
  float maximum[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int n = 0; n < kRows / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (8 * n + 2 * (lane % 4) + i % 2 >= length) s[n][i] = -INFINITY;
      maximum[i / 2] = fmaxf(maximum[i / 2], s[n][i]);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    maximum[r] = fmaxf(maximum[r], __shfl_xor_sync(~0u, maximum[r], 1));
    maximum[r] = fmaxf(maximum[r], __shfl_xor_sync(~0u, maximum[r], 2)) * scale;
    sum[r] = 0.f;
  }
#pragma unroll
  for (int n = 0; n < kRows / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i / 2] += s[n][i] = exp2_fast(fmaf(s[n][i], scale, -maximum[i / 2]));
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
  }
}

/// o[16, head_dim] = P V. Packed accumulators of S are operands of this product as they stand.
template <class T, int kHeadDim>
__device__ __forceinline__ void weigh(float (&o)[kHeadDim / 8][4], const float (&s)[kRows / 8][4], const T* v,
                                      int lane) {
  using S = Shape<kHeadDim>;
#pragma unroll
  for (auto& tile : o) tile[0] = tile[1] = tile[2] = tile[3] = 0.f;
  const std::uint32_t v_lane = shared_address(v + lane % 16 * S::kStride + lane / 16 * 8);
#pragma unroll
  for (int k = 0; k < kRows / 16; ++k) {  // 16 keys
    const float(&left)[4] = s[2 * k];
    const float(&right)[4] = s[2 * k + 1];
    const std::uint32_t p[4] = {pack(left[0], left[1], T()), pack(left[2], left[3], T()), pack(right[0], right[1], T()),
                                pack(right[2], right[3], T())};
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; n += 2) {  // 16 columns; the last 8 of them may be padding
      std::uint32_t b[4];
      load_matrices<true>(b, v_lane + (k * 16 * S::kStride + n * 8) * 2);
      multiply<T>(o[n], p[0], p[1], p[2], p[3], b[0], b[1]);
      if (n + 1 < kHeadDim / 8) multiply<T>(o[n + 1], p[0], p[1], p[2], p[3], b[2], b[3]);
    }
  }
}

/// The warp's rows of out = o / sum, through its own 16 rows of shared memory.
template <class T, int kHeadDim>
__device__ __forceinline__ void store(const float (&o)[kHeadDim / 8][4], const float (&sum)[2], T* rows, T* out,
                                      std::int64_t out_stride, int count, int lane) {
  using S = Shape<kHeadDim>;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float inverse = 1.f / sum[r];
    T* const row = rows + (lane / 4 + 8 * r) * S::kStride + 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < kHeadDim / 8; ++n) {
      *reinterpret_cast<std::uint32_t*>(row + 8 * n) = pack(o[n][2 * r] * inverse, o[n][2 * r + 1] * inverse, T());
    }
  }
  __syncwarp();
  for (int i = lane; i < 16 * S::kChunks; i += 32) {
    const int row = i / S::kChunks, chunk = i % S::kChunks;
    if (row < count) {
      *reinterpret_cast<uint4*>(out + row * out_stride + chunk * 8) =
          *reinterpret_cast<const uint4*>(rows + row * S::kStride + chunk * 8);
    }
  }
}

template <class T, int kHeadDim>
__global__ void __launch_bounds__(kThreads, Shape<kHeadDim>::kBlocksPerMultiprocessor)
    attention_window_kernel(const KernelArguments arguments) {
  using S = Shape<kHeadDim>;
  extern __shared__ __align__(16) std::uint8_t memory[];
  T* const q = reinterpret_cast<T*>(memory);  // [64, kStride]
  T* const k = q + kRows * S::kStride;
  T* const v = k + kRows * S::kStride;

  const int window = blockIdx.x / arguments.heads, head = blockIdx.x % arguments.heads;
  const int begin = arguments.cu_seqlens[window];
  const int length = min(arguments.cu_seqlens[window + 1] - begin, kRows);
  let_next_kernel_begin();
  wait_for_kernels_before();
  if (length <= 0) return;
  const std::int64_t part = static_cast<std::int64_t>(arguments.heads) * kHeadDim;  // of q in a token, of k, of v
  const T* const from = static_cast<const T*>(arguments.qkv) + begin * arguments.token_stride + head * kHeadDim;
  copy_rows<T, kHeadDim>(q, from, arguments.token_stride, length);
  copy_rows<T, kHeadDim>(k, from + part, arguments.token_stride, length);
  copies_commit();
  copy_rows<T, kHeadDim>(v, from + 2 * part, arguments.token_stride, length);
  copies_commit();
  clear_padding<T, kHeadDim>(q);
  clear_padding<T, kHeadDim>(k);
  clear_padding<T, kHeadDim>(v);

  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16;
  float s[kRows / 8][4], o[kHeadDim / 8][4], sum[2];
  copies_wait<1>();
  __syncthreads();
  scores<T, kHeadDim>(s, q + row * S::kStride, k, lane);
  softmax(s, sum, arguments.scale_log2, length, lane);
  copies_wait<0>();
  __syncthreads();
  weigh<T, kHeadDim>(o, s, v, lane);
  T* const out = static_cast<T*>(arguments.out) + (static_cast<std::int64_t>(begin) + row) * part + head * kHeadDim;
  store<T, kHeadDim>(o, sum, q + row * S::kStride, out, part, length - row, lane);
}

template <class T, int kHeadDim>
cudaError_t launch(const AttentionWindowParams& params, cudaStream_t stream) {
  using S = Shape<kHeadDim>;
  const auto kernel = attention_window_kernel<T, kHeadDim>;
  if constexpr (S::kBytes > 48 * 1024) {  // what a block gets without asking
    const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::kBytes);
    if (status != cudaSuccess) return status;
  }
  constexpr float kLog2E = 1.4426950408889634f;
  const KernelArguments arguments{params.qkv,          params.out,   params.cu_seqlens,
                                  params.token_stride, params.heads, params.q_prescaled ? 1.f : params.scale * kLog2E};
  const auto blocks = static_cast<unsigned>(std::int64_t{params.windows} * params.heads);
  return launch_overlapping(kernel, Grid{dim3(blocks), dim3(kThreads), S::kBytes}, stream, arguments);
}

}  // namespace

cudaError_t attention_window(const AttentionWindowParams& params, cudaStream_t stream) {
  if (params.windows == 0 || params.tokens == 0) return cudaSuccess;
  const bool fits = params.longest <= kAttentionWindow && params.token_stride % 8 == 0 && is_aligned(params.qkv, 16) &&
                    is_aligned(params.out, 16) &&
                    (params.element == Element::bfloat16 || params.element == Element::float16) &&
                    std::int64_t{params.windows} * params.heads <= INT32_MAX;
  if (!fits) return cudaErrorNotSupported;
  const bool sizes = params.windows > 0 && params.tokens > 0 && params.heads > 0 &&
                     params.token_stride >= std::int64_t{3} * params.heads * params.head_dim;
  if (!sizes || params.qkv == nullptr || params.out == nullptr || params.cu_seqlens == nullptr) {
    return cudaErrorInvalidValue;
  }
  int device = 0, major = 0;
  if (const cudaError_t status = cudaGetDevice(&device); status != cudaSuccess) return status;
  const cudaError_t status = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (status != cudaSuccess) return status;
  if (major < 8) return cudaErrorNotSupported;
  return dispatch_attention<64, 72, 80, 128>(params.element, params.head_dim, [&](auto* type, auto head_dim) {
    return launch<std::remove_pointer_t<decltype(type)>, decltype(head_dim)::value>(params, stream);
  });
}

}  // namespace oriel::kernels
