// Attention of new tokens over what the KV cache holds of their sequences: one query row a head, many keys.
//
// The keys of a token are cut into parts, so that short batches keep the chip busy too; a second kernel joins them
// (flash decoding: https://crfm.stanford.edu/2023/10/12/flashdecoding.html). How they are cut depends on the length of
// the token's own sequence, which is read from the device: parts of equal size, a multiple of part_step keys. Blocks
// whose part is empty end at once.
//
// A block takes one part, one head of keys and values, and up to 8 of the query heads that share it, so that keys and
// values are read once for these. Within a warp a key lies across `Lanes` lanes of 8 values each, the next keys beside
// it; every such group of lanes runs a softmax of its own over the keys it sees (Milakov and Gimelshein, Online
// normalizer calculation for softmax, 2018) with all heads' sums in registers. Groups meet by shuffles, warps in shared
// memory. Scores are in base 2: the scale carries 1 / ln 2.
#include <cmath>

#include "decode.h"
#include "element.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace oriel::kernels {
namespace {

constexpr int warps = 4;
constexpr int threads = warp * warps;
constexpr int piece = 8;  // values of a head that a lane holds
constexpr int most_head_dim = warp * piece;
constexpr int most_heads = 8;  // of a block
constexpr int most_splits = 128;
constexpr int part_step = 32;   // keys
constexpr int least_part = 64;  // keys
constexpr float lowest = -INFINITY;

struct Range {
  int begin = 0;
  int end = 0;
};

/// The keys that a token sees, and how many of them make a part.
struct Cut {
  Range keys;
  int part = 1;
  __device__ int parts() const { return (keys.end - keys.begin + part - 1) / part; }
};

__device__ Cut cut_of(const DecodeAttentionParams& p, int64_t token) {
  const auto length = static_cast<int>(p.lengths[token]);
  const auto window = static_cast<int>(p.window);
  Cut cut;
  cut.keys = {window > 0 ? max(0, length - window) : 0, length};
  const int share = (length - cut.keys.begin + p.splits - 1) / p.splits;
  cut.part = max(least_part, (share + part_step - 1) / part_step * part_step);
  return cut;
}

/// Where the results of a part lie: [tokens, heads, splits, head_dim], then [tokens, heads, splits, 2].
__device__ int64_t place_of(const DecodeAttentionParams& p, int64_t token, int64_t head, int split) {
  return (token * p.heads + head) * p.splits + split;
}
__device__ float* extremes_of(const DecodeAttentionParams& p) {
  return p.partial + p.tokens * p.heads * p.splits * p.head_dim;
}

/// exp2 with the weight of nothing being zero, also against nothing.
__device__ float weight_of(float score, float largest) { return score == lowest ? 0.0F : exp2f(score - largest); }

/// What one group of lanes has seen of one head: the largest score, the sum of weights, and its 8 values' weighted sum.
struct Seen {
  float largest = lowest;
  float sum = 0;
  float values[piece] = {};

  __device__ void join(float other_largest, float other_sum, const float (&other)[piece]) {
    const float both = fmaxf(largest, other_largest);
    const float own_weight = weight_of(largest, both);
    const float other_weight = weight_of(other_largest, both);
    largest = both;
    sum = sum * own_weight + other_sum * other_weight;
#pragma unroll
    for (int i = 0; i < piece; ++i) values[i] = values[i] * own_weight + other[i] * other_weight;
  }
};

/// Joins the groups of a warp: all of them hold the result.
template <int Lanes>
__device__ void join_groups(Seen& seen) {
#pragma unroll
  for (int distance = Lanes; distance < warp; distance *= 2) {
    float values[piece];
#pragma unroll
    for (int i = 0; i < piece; ++i) values[i] = __shfl_xor_sync(~0U, seen.values[i], distance);
    const float largest = __shfl_xor_sync(~0U, seen.largest, distance);
    const float sum = __shfl_xor_sync(~0U, seen.sum, distance);
    seen.join(largest, sum, values);
  }
}

/// Heads: of the block, those past the group's end being idle. Lanes: that one key takes.
template <typename T, int Heads, int Lanes>
__global__ void __launch_bounds__(threads) attend_kernel(const DecodeAttentionParams p) {
  constexpr int groups = warp / Lanes;
  constexpr int unrolled = Heads >= 8 ? 2 : 4;  // keys of a group at once
  constexpr int together = warps * groups * unrolled;
  __shared__ float sums[warps][Heads][Lanes * piece];
  __shared__ float extremes[warps][Heads][2];

  let_next_kernel_begin();
  wait_for_kernels_before();
  const int64_t token = blockIdx.z;
  const Cut cut = cut_of(p, token);
  const int begin = cut.keys.begin + static_cast<int>(blockIdx.x) * cut.part;
  const int end = min(begin + cut.part, cut.keys.end);
  if (begin >= end) return;

  const int own_warp = threadIdx.x / warp;
  const int lane = threadIdx.x % warp;
  const int column = lane % Lanes * piece;
  const int group = lane / Lanes;
  const auto head_dim = static_cast<int>(p.head_dim);
  const bool has_column = column < head_dim;  // head_dim / 8 need not be a power of two
  const auto shared_by = static_cast<int>(p.heads / p.kv_heads);
  const int blocks_a_head = (shared_by + Heads - 1) / Heads;
  const int kv_head = static_cast<int>(blockIdx.y) / blocks_a_head;
  const int first_of_group = static_cast<int>(blockIdx.y) % blocks_a_head * Heads;
  const int heads = min(Heads, shared_by - first_of_group);
  const int64_t first_head = static_cast<int64_t>(kv_head) * shared_by + first_of_group;

  float q[Heads][piece] = {};
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    if (h < heads && has_column) {
      load_wide(static_cast<const T*>(p.q) + token * p.q_stride + (first_head + h) * head_dim + column, q[h]);
#pragma unroll
      for (int i = 0; i < piece; ++i) q[h][i] *= p.scale * 1.44269504F;
    }
  }

  const int64_t stride = p.kv_heads * p.head_dim;  // from key to key
  const int64_t slot = p.slots[token] * p.capacity * stride + static_cast<int64_t>(kv_head) * head_dim + column;
  const T* keys = static_cast<const T*>(p.keys) + slot;
  const T* values = static_cast<const T*>(p.values) + slot;
  Seen seen[Heads];
  for (int first = begin + (own_warp * unrolled) * groups + group; first - group < end; first += together) {
    float k[unrolled][piece] = {};
    float v[unrolled][piece] = {};
#pragma unroll
    for (int u = 0; u < unrolled; ++u) {
      const int key = first + u * groups;
      if (key < end && has_column) {
        load_wide(keys + key * stride, k[u]);
        load_wide(values + key * stride, v[u]);
      }
    }
#pragma unroll
    for (int h = 0; h < Heads; ++h) {
      float scores[unrolled];
      float largest = seen[h].largest;
#pragma unroll
      for (int u = 0; u < unrolled; ++u) {
        scores[u] = 0;
#pragma unroll
        for (int i = 0; i < piece; ++i) scores[u] += q[h][i] * k[u][i];
#pragma unroll
        for (int distance = Lanes / 2; distance > 0; distance /= 2)
          scores[u] += __shfl_xor_sync(~0U, scores[u], distance);
        if (first + u * groups >= end) scores[u] = lowest;
        largest = fmaxf(largest, scores[u]);
      }
      const float before = weight_of(seen[h].largest, largest);
      seen[h].largest = largest;
      seen[h].sum *= before;
#pragma unroll
      for (int i = 0; i < piece; ++i) seen[h].values[i] *= before;
#pragma unroll
      for (int u = 0; u < unrolled; ++u) {
        const float weight = weight_of(scores[u], largest);
        seen[h].sum += weight;
#pragma unroll
        for (int i = 0; i < piece; ++i) seen[h].values[i] += weight * v[u][i];
      }
    }
  }

#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    join_groups<Lanes>(seen[h]);
    if (group == 0) {
#pragma unroll
      for (int i = 0; i < piece; ++i) sums[own_warp][h][column + i] = seen[h].values[i];
      if (lane == 0) {
        extremes[own_warp][h][0] = seen[h].largest;
        extremes[own_warp][h][1] = seen[h].sum;
      }
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < heads * head_dim; i += threads) {
    const int h = i / head_dim;
    const int d = i - h * head_dim;
    float largest = lowest;
#pragma unroll
    for (int w = 0; w < warps; ++w) largest = fmaxf(largest, extremes[w][h][0]);
    float sum = 0;
    float value = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      const float weight = weight_of(extremes[w][h][0], largest);
      sum += weight * extremes[w][h][1];
      value += weight * sums[w][h][d];
    }
    const int64_t place = place_of(p, token, first_head + h, static_cast<int>(blockIdx.x));
    p.partial[place * head_dim + d] = value;
    if (d == 0) {
      extremes_of(p)[2 * place] = largest;
      extremes_of(p)[2 * place + 1] = sum;
    }
  }
}

/// One block a head and token; its warps share out the parts.
template <typename T>
__global__ void __launch_bounds__(threads) join_kernel(const DecodeAttentionParams p) {
  constexpr int N = 4;  // values a lane
  constexpr int pieces = most_head_dim / (warp * N);
  __shared__ float weights[most_splits];
  __shared__ float total;
  __shared__ float sums[warps][most_head_dim];

  let_next_kernel_begin();
  wait_for_kernels_before();
  const int64_t head = blockIdx.x;
  const int64_t token = blockIdx.y;
  const Cut cut = cut_of(p, token);
  const int parts = cut.parts();
  const auto head_dim = static_cast<int>(p.head_dim);
  const int own_warp = threadIdx.x / warp;
  const int lane = threadIdx.x % warp;
  const int64_t first = place_of(p, token, head, 0);

  if (own_warp == 0) {
    const float* extremes = extremes_of(p) + 2 * first;
    float largest = lowest;
    for (int i = lane; i < parts; i += warp) largest = fmaxf(largest, extremes[2 * i]);
    for (int distance = warp / 2; distance > 0; distance /= 2)
      largest = fmaxf(largest, __shfl_xor_sync(~0U, largest, distance));
    float sum = 0;
    for (int i = lane; i < parts; i += warp) {
      weights[i] = weight_of(extremes[2 * i], largest);
      sum += weights[i] * extremes[2 * i + 1];
    }
    sum = sum_over_warp(sum);
    if (lane == 0) total = sum;
  }
  float mine[pieces][N] = {};
  __syncthreads();
#pragma unroll 4
  for (int i = own_warp; i < parts; i += warps) {
    const float* from = p.partial + (first + i) * head_dim;
#pragma unroll
    for (int k = 0; k < pieces; ++k) {
      const int d = (k * warp + lane) * N;
      if (d >= head_dim) break;
      const auto vector = load<float, N>(from + d);
#pragma unroll
      for (int j = 0; j < N; ++j) mine[k][j] += weights[i] * vector.values[j];
    }
  }
#pragma unroll
  for (int k = 0; k < pieces; ++k)
#pragma unroll
    for (int j = 0; j < N; ++j) sums[own_warp][(k * warp + lane) * N + j] = mine[k][j];
  __syncthreads();
  for (int d = threadIdx.x; d < head_dim; d += threads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) sum += sums[w][d];
    static_cast<T*>(p.out)[(token * p.heads + head) * head_dim + d] = narrow<T>(parts > 0 ? sum / total : 0.0F);
  }
}

template <typename T, int Heads>
cudaError_t attend(const DecodeAttentionParams& p, cudaStream_t stream) {
  const int64_t shared_by = p.heads / p.kv_heads;
  const dim3 blocks(static_cast<unsigned>(p.splits), static_cast<unsigned>(p.kv_heads * divide_up(shared_by, Heads)),
                    static_cast<unsigned>(p.tokens));
  const Grid grid{blocks, dim3(threads)};
  if (p.head_dim <= 4 * piece) return launch_overlapping(attend_kernel<T, Heads, 4>, grid, stream, p);
  if (p.head_dim <= 8 * piece) return launch_overlapping(attend_kernel<T, Heads, 8>, grid, stream, p);
  if (p.head_dim <= 16 * piece) return launch_overlapping(attend_kernel<T, Heads, 16>, grid, stream, p);
  return launch_overlapping(attend_kernel<T, Heads, 32>, grid, stream, p);
}

template <typename T>
cudaError_t attend_and_join(const DecodeAttentionParams& p, cudaStream_t stream) {
  const int64_t shared_by = p.heads / p.kv_heads;
  const cudaError_t error = shared_by == 1   ? attend<T, 1>(p, stream)
                            : shared_by == 2 ? attend<T, 2>(p, stream)
                            : shared_by <= 4 ? attend<T, 4>(p, stream)
                                             : attend<T, most_heads>(p, stream);
  if (error != cudaSuccess) return error;
  const Grid grid{dim3(static_cast<unsigned>(p.heads), static_cast<unsigned>(p.tokens)), dim3(threads)};
  return launch_overlapping(join_kernel<T>, grid, stream, p);
}

}  // namespace

bool decode_attention_supports(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return kv_heads > 0 && heads > 0 && heads % kv_heads == 0 && heads <= UINT16_MAX && head_dim >= piece &&
         head_dim % piece == 0 && head_dim <= most_head_dim;
}

int32_t decode_attention_splits(int64_t kv_heads, int64_t capacity, int processors) {
  const int64_t wanted = divide_up(2 * static_cast<int64_t>(processors), kv_heads);  // two blocks a processor
  const int64_t useful = divide_up(capacity, least_part);
  const int64_t splits = wanted < useful ? wanted : useful;
  return static_cast<int32_t>(splits < 1 ? 1 : splits > most_splits ? most_splits : splits);
}

int64_t decode_attention_scratch(int64_t tokens, int64_t heads, int64_t head_dim, int32_t splits) {
  return tokens * heads * splits * (head_dim + 2);
}

cudaError_t decode_attention(const DecodeAttentionParams& p, cudaStream_t stream) {
  if (!decode_attention_supports(p.heads, p.kv_heads, p.head_dim) || p.tokens < 0 || p.tokens > UINT16_MAX ||
      p.capacity < 1 || p.capacity > INT32_MAX / 2 || p.window < 0 || p.window > INT32_MAX / 2 || p.splits < 1 ||
      p.splits > most_splits || !is_aligned(p.q, 16) || !is_aligned(p.keys, 16) || !is_aligned(p.values, 16) ||
      !is_aligned(p.partial, 16) || p.q_stride % piece != 0)
    return cudaErrorInvalidValue;
  if (p.tokens == 0) return cudaSuccess;
  return dispatch(p.element,
                  [&](auto* type) { return attend_and_join<std::remove_pointer_t<decltype(type)>>(p, stream); });
}

}  // namespace oriel::kernels
