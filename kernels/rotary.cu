// Rotary embedding of q and k inside the packed product qkv [tokens, 3, heads, head_dim], in place.
//
// A block takes one token; a thread turns 4 values of the lower half of one head of q or k together with the 4 of the
// upper half that belong to them. 4, since half a head (32, 36, 40, 64 values) is a multiple of 4 for every tower, and
// 8 bytes of a 16-bit type still make whole sectors of a warp. The token's angles are the same for all heads, so all
// but the first read of them hit the cache. v is not touched. Traffic: q and k once in, once out.
#include "element.cuh"
#include "launch.cuh"

namespace oriel::kernels {
namespace {

constexpr int values = 4;
constexpr int most_threads = 512;

template <typename T>
__global__ void __launch_bounds__(most_threads) rotate(const RotaryParams p) {
  const int half = static_cast<int>(p.head_dim) / 2;
  const int pieces = half / values;  // of half a head
  const int work = 2 * static_cast<int>(p.heads) * pieces;
  const int64_t token = blockIdx.x;
  T* qk = static_cast<T*>(p.qkv) + token * 3 * p.heads * p.head_dim;
  const float* turns = p.turns + token * p.head_dim;
  let_next_kernel_begin();
  wait_for_kernels_before();
  for (int i = threadIdx.x; i < work; i += blockDim.x) {
    const int head = i / pieces;  // all of q's, then all of k's
    const int j = (i - head * pieces) * values;
    T* low_at = qk + head * p.head_dim + j;
    const auto low = load<T, values>(low_at);
    const auto high = load<T, values>(low_at + half);
    const auto cos = load<float, values>(turns + j);
    const auto sin = load<float, values>(turns + half + j);
    const float scale = head < p.heads ? p.query_scale : 1.0F;
    Vector<T, values> new_low;
    Vector<T, values> new_high;
#pragma unroll
    for (int k = 0; k < values; ++k) {
      const float a = widen(low.values[k]);
      const float b = widen(high.values[k]);
      new_low.values[k] = narrow<T>((a * cos.values[k] - b * sin.values[k]) * scale);
      new_high.values[k] = narrow<T>((b * cos.values[k] + a * sin.values[k]) * scale);
    }
    store(low_at, new_low);
    store(low_at + half, new_high);
  }
}

}  // namespace

cudaError_t rotate_query_key(const RotaryParams& p, cudaStream_t stream) {
  if (p.tokens < 0 || p.tokens > INT32_MAX || p.heads < 1 || p.head_dim < 8 || p.head_dim % 8 != 0 ||
      p.heads * p.head_dim > (1 << 24) || !is_aligned(p.qkv, 16) || !is_aligned(p.turns, 16))
    return cudaErrorInvalidValue;
  if (p.tokens == 0) return cudaSuccess;
  const int64_t work = p.heads * p.head_dim / values;
  const auto threads = static_cast<unsigned>(work < most_threads ? divide_up(work, 32) * 32 : most_threads);
  return dispatch(p.element, [&](auto* type) {
    const Grid grid{dim3(static_cast<unsigned>(p.tokens)), dim3(threads)};
    return launch_overlapping(rotate<std::remove_pointer_t<decltype(type)>>, grid, stream, p);
  });
}

}  // namespace oriel::kernels
