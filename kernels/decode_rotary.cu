// Angles of new tokens, and what becomes of their q, k and v in front of attention: norms of heads, rotation, and the
// way into the cache.
//
// A warp takes one head of one token in registers. A lane holds up to four pairs (x[j], x[j + head_dim / 2]), so that
// the sum of squares is one reduction and the rotation needs no other lane. Products and sums are rounded to the
// element one by one, as the decoder's other path rounds them: the two give the same bits.
#include "decode.h"
#include "element.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace oriel::kernels {
namespace {

constexpr int warps = 4;
constexpr int most_pairs = 4;  // a lane
constexpr int most_head_dim = 2 * most_pairs * warp;
constexpr int turn_threads = 128;

template <typename T>
__device__ float rounded(float x) {
  return widen(narrow<T>(x));
}

__global__ void __launch_bounds__(turn_threads) turns_kernel(const TokenTurnsParams p) {
  let_next_kernel_begin();
  wait_for_kernels_before();
  const int64_t token = blockIdx.x;
  float* turns = p.turns + token * 2 * p.pairs;
  for (int64_t k = threadIdx.x; k < p.pairs; k += turn_threads) {
    const int64_t axis = p.axes == nullptr ? 0 : p.axes[k];
    const float angle = __fmul_rn(static_cast<float>(p.positions[axis * p.position_stride + token]), p.frequencies[k]);
    turns[k] = cosf(angle);
    turns[p.pairs + k] = sinf(angle);
  }
}

/// The halves of a head, spread over a warp.
struct Pairs {
  float low[most_pairs];
  float high[most_pairs];
};

template <typename T>
__device__ void norm_head(Pairs& x, const T* weight, int head_dim, const RotateAndStoreParams& p) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) sum += x.low[i] * x.low[i] + x.high[i] * x.high[i];
  sum = sum_over_warp(sum);
  const float factor = rsqrtf(sum / static_cast<float>(head_dim) + p.eps);
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) {
    const int j = static_cast<int>(threadIdx.x) + i * warp;
    if (j >= head_dim / 2) break;
    const float low = widen(weight[j]);
    const float high = widen(weight[j + head_dim / 2]);
    x.low[i] = rounded<T>(x.low[i] * factor * (p.weight_plus_one ? 1.0F + low : low));
    x.high[i] = rounded<T>(x.high[i] * factor * (p.weight_plus_one ? 1.0F + high : high));
  }
}

template <typename T>
__device__ void rotate_head(Pairs& x, const float* turns, int half) {
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) {
    const int j = static_cast<int>(threadIdx.x) + i * warp;
    if (j >= half) break;
    const float cos = rounded<T>(turns[j]);
    const float sin = rounded<T>(turns[half + j]);
    const float low = x.low[i];
    const float high = x.high[i];
    // Not to be contracted: a fused multiplication would not round the product.
    x.low[i] = __fsub_rn(rounded<T>(__fmul_rn(low, cos)), rounded<T>(__fmul_rn(high, sin)));
    x.high[i] = __fadd_rn(rounded<T>(__fmul_rn(high, cos)), rounded<T>(__fmul_rn(low, sin)));
  }
}

template <typename T>
__global__ void __launch_bounds__(warp* warps) rotate_kernel(const RotateAndStoreParams p) {
  let_next_kernel_begin();
  wait_for_kernels_before();
  const int64_t head = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.y;
  const int64_t all_heads = p.heads + 2 * p.kv_heads;
  if (head >= all_heads) return;
  const int64_t token = blockIdx.y;
  const auto head_dim = static_cast<int>(p.head_dim);
  const int half = head_dim / 2;
  T* from = static_cast<T*>(p.qkv) + (token * all_heads + head) * head_dim;

  Pairs x{};
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) {
    const int j = static_cast<int>(threadIdx.x) + i * warp;
    if (j >= half) break;
    x.low[i] = widen(from[j]);
    x.high[i] = widen(from[j + half]);
  }
  const bool is_query = head < p.heads;
  const bool is_value = head >= p.heads + p.kv_heads;
  if (!is_value) {
    const T* weight = static_cast<const T*>(is_query ? p.query_norm : p.key_norm);
    if (weight != nullptr) norm_head(x, weight, head_dim, p);
    rotate_head<T>(x, p.turns + token * head_dim, half);
  }

  T* to = from;
  if (!is_query) {
    const int64_t length = p.lengths[token];
    if (length < 1) return;
    const int64_t kv_head = (head - p.heads) % p.kv_heads;
    const int64_t place = p.slots[token] * p.capacity + length - 1;
    to = static_cast<T*>(is_value ? p.values : p.keys) + (place * p.kv_heads + kv_head) * head_dim;
  }
#pragma unroll
  for (int i = 0; i < most_pairs; ++i) {
    const int j = static_cast<int>(threadIdx.x) + i * warp;
    if (j >= half) break;
    to[j] = narrow<T>(x.low[i]);
    to[j + half] = narrow<T>(x.high[i]);
  }
}

}  // namespace

cudaError_t token_turns(const TokenTurnsParams& p, cudaStream_t stream) {
  if (p.tokens < 0 || p.tokens > INT32_MAX || p.pairs < 1) return cudaErrorInvalidValue;
  if (p.tokens == 0) return cudaSuccess;
  return launch_overlapping(turns_kernel, Grid{dim3(static_cast<unsigned>(p.tokens)), dim3(turn_threads)}, stream, p);
}

cudaError_t rotate_and_store(const RotateAndStoreParams& p, cudaStream_t stream) {
  if (p.tokens < 0 || p.tokens > UINT16_MAX || p.heads < 1 || p.kv_heads < 1 || p.head_dim < 2 || p.head_dim % 2 != 0 ||
      p.head_dim > most_head_dim || p.capacity < 1 || p.heads + 2 * p.kv_heads > INT32_MAX)
    return cudaErrorInvalidValue;
  if (p.tokens == 0) return cudaSuccess;
  return dispatch(p.element, [&](auto* type) {
    const dim3 blocks(static_cast<unsigned>(divide_up(p.heads + 2 * p.kv_heads, warps)),
                      static_cast<unsigned>(p.tokens));
    return launch_overlapping(rotate_kernel<std::remove_pointer_t<decltype(type)>>, Grid{blocks, dim3(warp, warps)},
                              stream, p);
  });
}

}  // namespace oriel::kernels
