// Angles of tokens, and what becomes of their q, k and v in front of attention: norms of heads, rotation, and the way
// into the cache.
//
// A few lanes of a warp take one head of one token in registers, each with pairs (x[j], x[j + head_dim / 2]) of
// neighbouring j, loaded and stored 16 bytes at once where the head is a multiple of that: the sum of squares is one
// reduction over these lanes, and the rotation needs no other lane. Heads that no vector divides take a whole warp, a
// value at once. Products and sums are rounded to the element one by one, as the decoder's other path rounds them: the
// two give the same bits. Traffic: q, k and v once in, once out.
#include "decode.h"
#include "element.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace oriel::kernels {
namespace {

constexpr int threads = 128;
constexpr int most_head_dim = 256;

template <typename T>
__device__ float rounded(float x) {
  return widen(narrow<T>(x));
}

__global__ void __launch_bounds__(threads) turns_kernel(const TokenTurnsParams p) {
  let_next_kernel_begin();
  wait_for_kernels_before();
  const int64_t token = blockIdx.x;
  float* turns = p.turns + token * 2 * p.pairs;
  for (int64_t k = threadIdx.x; k < p.pairs; k += threads) {
    const int64_t axis = p.axes == nullptr ? 0 : p.axes[k];
    const float angle = __fmul_rn(static_cast<float>(p.positions[axis * p.position_stride + token]), p.frequencies[k]);
    turns[k] = cosf(angle);
    turns[p.pairs + k] = sinf(angle);
  }
}

/// V values, by vectors of at most 16 bytes.
template <typename T, int V>
struct Parts {
  static constexpr int length = V < vector_length<T> ? V : vector_length<T>;

  __device__ static void read(const T* from, float (&values)[V]) {
#pragma unroll
    for (int at = 0; at < V; at += length) {
      const auto part = load<T, length>(from + at);
#pragma unroll
      for (int i = 0; i < length; ++i) values[at + i] = widen(part.values[i]);
    }
  }
  __device__ static void write(T* to, const float (&values)[V]) {
#pragma unroll
    for (int at = 0; at < V; at += length) {
      Vector<T, length> part;
#pragma unroll
      for (int i = 0; i < length; ++i) part.values[i] = narrow<T>(values[at + i]);
      store(to + at, part);
    }
  }
};

/// V neighbouring pairs of a head.
template <int V>
struct Pairs {
  float low[V];
  float high[V];
};

template <typename T, int V>
__device__ void scale_by_norm(Pairs<V>& x, float factor, const T* weight, int half, bool plus_one) {
  Pairs<V> w;
  Parts<T, V>::read(weight, w.low);
  Parts<T, V>::read(weight + half, w.high);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    x.low[i] = rounded<T>(x.low[i] * factor * (plus_one ? 1.0F + w.low[i] : w.low[i]));
    x.high[i] = rounded<T>(x.high[i] * factor * (plus_one ? 1.0F + w.high[i] : w.high[i]));
  }
}

template <typename T, int V>
__device__ void rotate_pairs(Pairs<V>& x, const float* turns, int half) {
  float cos[V], sin[V];
  Parts<float, V>::read(turns, cos);
  Parts<float, V>::read(turns + half, sin);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const float c = rounded<T>(cos[i]);
    const float s = rounded<T>(sin[i]);
    const float low = x.low[i];
    const float high = x.high[i];
    // Not to be contracted: a fused multiplication would not round the product.
    x.low[i] = __fsub_rn(rounded<T>(__fmul_rn(low, c)), rounded<T>(__fmul_rn(high, s)));
    x.high[i] = __fadd_rn(rounded<T>(__fmul_rn(high, c)), rounded<T>(__fmul_rn(low, s)));
  }
}

/// Where k or v of a head goes; null: nowhere.
template <typename T>
__device__ T* place_in_cache(const RotateAndStoreParams& p, int token, int head, bool is_value) {
  const int64_t length = p.lengths[token];
  if (length < 1) return nullptr;
  const int64_t kv_head = (head - p.heads) % p.kv_heads;
  const int64_t place = p.slots[token] * p.capacity + length - 1;
  return static_cast<T*>(is_value ? p.values : p.keys) + (place * p.kv_heads + kv_head) * p.head_dim;
}

/// `lanes` hold a head, a power of two of them, each up to P times V pairs that lie `lanes` * V apart.
template <typename T, int V, int P>
__global__ void __launch_bounds__(threads) rotate_kernel(const RotateAndStoreParams p, const int lanes) {
  let_next_kernel_begin();
  wait_for_kernels_before();
  const int all_heads = static_cast<int>(p.heads + 2 * p.kv_heads);
  const int item = static_cast<int>(blockIdx.x) * (threads / lanes) + static_cast<int>(threadIdx.x) / lanes;
  const int token = item / all_heads;
  const int head = item - token * all_heads;
  const bool is_query = head < p.heads;
  const bool is_value = head >= p.heads + p.kv_heads;
  if (token >= p.tokens || (is_value && p.values == nullptr)) return;
  const auto head_dim = static_cast<int>(p.head_dim);
  const int half = head_dim / 2;
  const int first = static_cast<int>(threadIdx.x) % lanes * V;
  T* from = static_cast<T*>(p.qkv) + static_cast<int64_t>(item) * head_dim;

  Pairs<V> x[P] = {};
#pragma unroll
  for (int k = 0; k < P; ++k) {
    const int j = first + k * lanes * V;
    if (j >= half) break;
    Parts<T, V>::read(from + j, x[k].low);
    Parts<T, V>::read(from + j + half, x[k].high);
  }
  float factor = 1;
  if (p.query_norm != nullptr || p.key_norm != nullptr) {  // for v in vain: all lanes of a warp are needed
    float sum = 0;
#pragma unroll
    for (int k = 0; k < P; ++k)
#pragma unroll
      for (int i = 0; i < V; ++i) sum += x[k].low[i] * x[k].low[i] + x[k].high[i] * x[k].high[i];
    for (int distance = lanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0U, sum, distance);
    factor = rsqrtf(sum / static_cast<float>(head_dim) + p.eps);
  }
  const T* weight = static_cast<const T*>(is_query ? p.query_norm : p.key_norm);
  T* to = is_query || p.keys == nullptr ? from : place_in_cache<T>(p, token, head, is_value);
  if (to == nullptr) return;
#pragma unroll
  for (int k = 0; k < P; ++k) {
    const int j = first + k * lanes * V;
    if (j >= half) break;
    if (!is_value) {
      if (weight != nullptr) scale_by_norm<T, V>(x[k], factor, weight + j, half, p.weight_plus_one);
      rotate_pairs<T, V>(x[k], p.turns + static_cast<int64_t>(token) * head_dim + j, half);
    }
    Parts<T, V>::write(to + j, x[k].low);
    Parts<T, V>::write(to + j + half, x[k].high);
  }
}

template <typename T, int V, int P>
cudaError_t launch(const RotateAndStoreParams& p, cudaStream_t stream) {
  int lanes = 1;
  while (lanes * V * P < p.head_dim / 2) lanes *= 2;
  const int64_t heads = p.tokens * (p.heads + 2 * p.kv_heads);
  const Grid grid{dim3(static_cast<unsigned>(divide_up(heads, threads / lanes))), dim3(threads)};
  return launch_overlapping(rotate_kernel<T, V, P>, grid, stream, p, lanes);
}

template <typename T>
cudaError_t launch(const RotateAndStoreParams& p, cudaStream_t stream) {
  constexpr int longest = vector_length<T>;
  const bool aligned = is_aligned(p.qkv, 16) && is_aligned(p.turns, 16) && is_aligned(p.query_norm, 16) &&
                       is_aligned(p.key_norm, 16) && is_aligned(p.keys, 16) && is_aligned(p.values, 16);
  const int64_t half = p.head_dim / 2;
  if (aligned && half % longest == 0) return launch<T, longest, 1>(p, stream);
  if (aligned && half % 4 == 0) return launch<T, 4, 1>(p, stream);
  return launch<T, 1, most_head_dim / 2 / warp>(p, stream);
}

}  // namespace

cudaError_t token_turns(const TokenTurnsParams& p, cudaStream_t stream) {
  if (p.tokens < 0 || p.tokens > INT32_MAX || p.pairs < 1) return cudaErrorInvalidValue;
  if (p.tokens == 0) return cudaSuccess;
  return launch_overlapping(turns_kernel, Grid{dim3(static_cast<unsigned>(p.tokens)), dim3(threads)}, stream, p);
}

cudaError_t rotate_and_store(const RotateAndStoreParams& p, cudaStream_t stream) {
  constexpr int64_t most_heads = int64_t{1} << 30;  // of all tokens
  if (p.tokens < 0 || p.heads < 1 || p.kv_heads < 1 || p.heads > most_heads || p.kv_heads > most_heads ||
      p.tokens > most_heads / (p.heads + 2 * p.kv_heads) || p.head_dim < 2 || p.head_dim % 2 != 0 ||
      p.head_dim > most_head_dim || (p.keys == nullptr) != (p.values == nullptr) ||
      (p.keys != nullptr && p.capacity < 1))
    return cudaErrorInvalidValue;
  if (p.tokens == 0) return cudaSuccess;
  return dispatch(p.element, [&](auto* type) { return launch<std::remove_pointer_t<decltype(type)>>(p, stream); });
}

}  // namespace oriel::kernels
