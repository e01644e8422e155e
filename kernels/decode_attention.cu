// Attention of new tokens over what the KV cache holds of their sequences: one query row a head, many keys.
//
// The keys of a token are cut into parts, so that short batches keep the chip busy too; a second kernel joins them
// (flash decoding: https://crfm.stanford.edu/2023/10/12/flashdecoding.html). How they are cut depends on the length of
// the token's own sequence, which is read from the device: parts of equal size, a multiple of part_step keys
// (decode_attention_parts.cuh). Blocks whose part is empty end at once. 16-bit elements are multiplied on the matrix
// units (decode_attention_mma.cu); what follows takes all elements on all chips, and is bound by its multiplications
// where several heads share keys.
//
// A block takes one part, one head of keys and values, and up to 8 of the query heads that share it, so that keys and
// values are read once for these. Within a warp a key lies across `Lanes` lanes of 8 values each, the next keys beside
// it; every such group of lanes runs a softmax of its own over the keys it sees (Milakov and Gimelshein, Online
// normalizer calculation for softmax, 2018) with all heads' sums in registers. Groups meet by shuffles, warps in shared
// memory. Scores are in base 2: the scale carries 1 / ln 2.
#include "decode_attention_parts.cuh"
#include "launch.cuh"

namespace oriel::kernels {
namespace {

using namespace decode_attention_parts;

constexpr int piece = 8;       // values of a head that a lane holds
constexpr int most_heads = 8;  // of a block

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

/// Each group of a warp takes `Keys` keys, `warp / Lanes` apart from `first` on, and their values; those from `end` on
/// have no weight.
template <int Lanes, int Keys>
__device__ __forceinline__ void see_keys(Seen& seen, const float (&q)[piece], const float (&k)[Keys][piece],
                                         const float (&v)[Keys][piece], int first, int end) {
  float scores[Keys];
  float largest = seen.largest;
#pragma unroll
  for (int u = 0; u < Keys; ++u) {
    scores[u] = 0;
#pragma unroll
    for (int i = 0; i < piece; ++i) scores[u] += q[i] * k[u][i];
#pragma unroll
    for (int distance = Lanes / 2; distance > 0; distance /= 2) scores[u] += __shfl_xor_sync(~0U, scores[u], distance);
    if (first + u * (warp / Lanes) >= end) scores[u] = lowest;
    largest = fmaxf(largest, scores[u]);
  }
  const float before = weight_of(seen.largest, largest);
  seen.largest = largest;
  seen.sum *= before;
#pragma unroll
  for (int i = 0; i < piece; ++i) seen.values[i] *= before;
#pragma unroll
  for (int u = 0; u < Keys; ++u) {
    const float weight = weight_of(scores[u], largest);
    seen.sum += weight;
#pragma unroll
    for (int i = 0; i < piece; ++i) seen.values[i] += weight * v[u][i];
  }
}

/// What a warp has seen of one head goes to where the block's warps meet.
template <int Lanes, int Heads>
__device__ __forceinline__ void bring(Meeting<Heads, Lanes * piece>& meeting, const Seen& seen, int own_warp, int h,
                                      int lane, int column) {
#pragma unroll
  for (int i = 0; i < piece; ++i) meeting.sums[own_warp][h][column + i] = seen.values[i];
  if (lane == 0) {
    meeting.extremes[own_warp][h][0] = seen.largest;
    meeting.extremes[own_warp][h][1] = seen.sum;
  }
}

/// Heads: of the block, those past the group's end being idle. Lanes: that one key takes.
template <typename T, int Heads, int Lanes>
__global__ void __launch_bounds__(threads) attend_kernel(const DecodeAttentionParams p) {
  constexpr int groups = warp / Lanes;
  constexpr int unrolled = Heads >= 8 ? 2 : 4;  // keys of a group at once
  constexpr int together = warps * groups * unrolled;
  __shared__ Meeting<Heads, Lanes * piece> meeting;

  let_next_kernel_begin();
  const BlockHeads of = heads_of_block<Heads>(p);
  const int few = part_limits(p.kv_heads).few;
  wait_for_kernels_before();
  const int64_t token = blockIdx.z;
  const Range part = cut_of(p, token, few)[static_cast<int>(blockIdx.x)];
  if (part.begin >= part.end) return;

  const int own_warp = threadIdx.x / warp;
  const int lane = threadIdx.x % warp;
  const int column = lane % Lanes * piece;
  const int group = lane / Lanes;
  const auto head_dim = static_cast<int>(p.head_dim);
  const bool has_column = column < head_dim;  // head_dim / 8 need not be a power of two

  float q[Heads][piece] = {};
#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    if (h < of.count && has_column) {
      load_wide(static_cast<const T*>(p.q) + token * p.q_stride + (of.first + h) * head_dim + column, q[h]);
#pragma unroll
      for (int i = 0; i < piece; ++i) q[h][i] *= p.scale * 1.44269504F;
    }
  }

  const int64_t stride = p.kv_heads * p.head_dim;  // from key to key
  const int64_t slot = p.slots[token] * p.capacity * stride + static_cast<int64_t>(of.kv_head) * head_dim + column;
  const T* keys = static_cast<const T*>(p.keys) + slot;
  const T* values = static_cast<const T*>(p.values) + slot;
  Seen seen[Heads];
  for (int first = part.begin + (own_warp * unrolled) * groups + group; first - group < part.end; first += together) {
    float k[unrolled][piece] = {};
    float v[unrolled][piece] = {};
#pragma unroll
    for (int u = 0; u < unrolled; ++u) {
      const int key = first + u * groups;
      if (key < part.end && has_column) {
        load_wide(keys + key * stride, k[u]);
        load_wide(values + key * stride, v[u]);
      }
    }
#pragma unroll
    for (int h = 0; h < Heads; ++h) see_keys<Lanes>(seen[h], q[h], k, v, first, part.end);
  }

#pragma unroll
  for (int h = 0; h < Heads; ++h) {
    join_groups<Lanes>(seen[h]);
    if (group == 0) bring<Lanes>(meeting, seen[h], own_warp, h, lane, column);
  }
  write_part(p, of, meeting);
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
  const Cut cut = cut_of(p, token, part_limits(p.kv_heads).few);
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
  const Grid grid{blocks_of<Heads>(p), dim3(threads)};
  if (p.head_dim <= 4 * piece) return launch_overlapping(attend_kernel<T, Heads, 4>, grid, stream, p);
  if (p.head_dim <= 8 * piece) return launch_overlapping(attend_kernel<T, Heads, 8>, grid, stream, p);
  if (p.head_dim <= 16 * piece) return launch_overlapping(attend_kernel<T, Heads, 16>, grid, stream, p);
  return launch_overlapping(attend_kernel<T, Heads, 32>, grid, stream, p);
}

template <typename T>
cudaError_t attend_by_multiplications(const DecodeAttentionParams& p, cudaStream_t stream) {
  const int64_t shared_by = p.heads / p.kv_heads;
  if (shared_by == 1) return attend<T, 1>(p, stream);
  if (shared_by == 2) return attend<T, 2>(p, stream);
  return shared_by <= 4 ? attend<T, 4>(p, stream) : attend<T, most_heads>(p, stream);
}

template <typename T>
cudaError_t attend_and_join(const DecodeAttentionParams& p, cudaStream_t stream) {
  const cudaError_t error =
      p.on_matrix_units ? attend_on_matrix_units(p, stream) : attend_by_multiplications<T>(p, stream);
  if (error != cudaSuccess) return error;
  const Grid grid{dim3(static_cast<unsigned>(p.heads), static_cast<unsigned>(p.tokens)), dim3(threads)};
  return launch_overlapping(join_kernel<T>, grid, stream, p);
}

}  // namespace

bool decode_attention_supports(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return kv_heads > 0 && heads > 0 && heads % kv_heads == 0 && heads <= UINT16_MAX && head_dim >= piece &&
         head_dim % piece == 0 && head_dim <= most_head_dim;
}

bool decode_attention_has_units(Element element, int major) { return element != Element::float32 && major >= 8; }

int32_t decode_attention_splits(int64_t kv_heads, int64_t capacity) {
  const PartLimits limits = part_limits(kv_heads);
  const int64_t most = divide_up(capacity, part_step);
  const int64_t of_long = divide_up(capacity, long_part);
  const int64_t splits = of_long < limits.few ? limits.few : of_long < limits.many ? of_long : limits.many;
  return static_cast<int32_t>(splits < most ? splits : most);
}

int64_t decode_attention_scratch(int64_t tokens, int64_t heads, int64_t head_dim, int32_t splits) {
  return tokens * heads * splits * (head_dim + 2);
}

cudaError_t decode_attention(const DecodeAttentionParams& p, cudaStream_t stream) {
  if (!decode_attention_supports(p.heads, p.kv_heads, p.head_dim) || p.tokens < 0 || p.tokens > UINT16_MAX ||
      p.capacity < 1 || p.capacity > INT32_MAX / 2 || p.window < 0 || p.window > INT32_MAX / 2 || p.splits < 1 ||
      p.splits > most_splits || !is_aligned(p.q, 16) || !is_aligned(p.keys, 16) || !is_aligned(p.values, 16) ||
      !is_aligned(p.partial, 16) || p.q_stride % piece != 0 || (p.on_matrix_units && p.element == Element::float32))
    return cudaErrorInvalidValue;
  if (p.tokens == 0) return cudaSuccess;
  return dispatch(p.element,
                  [&](auto* type) { return attend_and_join<std::remove_pointer_t<decltype(type)>>(p, stream); });
}

}  // namespace oriel::kernels
