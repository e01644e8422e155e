#pragma once
// How decode attention cuts the keys of a token into parts, and where the results of parts lie: what its kernels share.
//
// How keys are cut depends on their number and on kv_heads alone. Few parts are enough to give every multiprocessor a
// block where one token is attended; each more costs head_dim floats a head, written and read again, so parts grow up
// to long_part keys before there are more of them.
#include <cmath>

#include "decode.h"
#include "element.cuh"
#include "warp.cuh"

namespace oriel::kernels::decode_attention_parts {

constexpr int warps = 4;  // of a block
constexpr int threads = warp * warps;
constexpr int most_head_dim = 256;
constexpr int most_splits = 128;
constexpr int part_step = 64;   // keys: 16 for each warp
constexpr int long_part = 256;  // keys
constexpr int few_blocks = 128;
constexpr int many_blocks = 256;
constexpr float lowest = -INFINITY;

/// Of one token: parts up to `few` as long as they are short, and from there on up to `many`.
struct PartLimits {
  int few = 1;
  int many = 1;
};
__host__ __device__ inline PartLimits part_limits(int64_t kv_heads) {
  const auto heads = static_cast<int>(kv_heads);
  const int few = (few_blocks + heads - 1) / heads;
  const int many = (many_blocks + heads - 1) / heads;
  return {few, many < most_splits ? many : most_splits};
}

struct Range {
  int begin = 0;
  int end = 0;
};

/// The keys that a token sees, and how many of them make a part.
struct Cut {
  Range keys;
  int part = 1;
  __device__ int parts() const { return (keys.end - keys.begin + part - 1) / part; }
  __device__ Range operator[](int i) const {
    const int begin = keys.begin + i * part;
    return {begin, min(begin + part, keys.end)};
  }
};

/// few: of part_limits.
__device__ inline Cut cut_of(const DecodeAttentionParams& p, int64_t token, int few) {
  const auto length = static_cast<int>(p.lengths[token]);
  const auto window = static_cast<int>(p.window);
  Cut cut;
  cut.keys = {window > 0 ? max(0, length - window) : 0, length};
  const int count = cut.keys.end - cut.keys.begin;
  const int wanted = max(min((count + few - 1) / few, long_part), (count + p.splits - 1) / p.splits);
  cut.part = max(1, (wanted + part_step - 1) / part_step) * part_step;
  return cut;
}

/// The heads that a block computes a part for: up to Heads query heads that share one of the keys'.
struct BlockHeads {
  int kv_head = 0;
  int64_t first = 0;
  int count = 0;
};

template <int Heads>
dim3 blocks_of(const DecodeAttentionParams& p) {
  return {static_cast<unsigned>(p.splits), static_cast<unsigned>(p.kv_heads * divide_up(p.heads / p.kv_heads, Heads)),
          static_cast<unsigned>(p.tokens)};
}

template <int Heads>
__device__ BlockHeads heads_of_block(const DecodeAttentionParams& p) {
  const int shared_by = static_cast<int>(p.heads) / static_cast<int>(p.kv_heads);
  const int blocks_a_head = (shared_by + Heads - 1) / Heads;
  const int kv_head = static_cast<int>(blockIdx.y) / blocks_a_head;
  const int first_of_group = (static_cast<int>(blockIdx.y) - kv_head * blocks_a_head) * Heads;
  return {kv_head, static_cast<int64_t>(kv_head) * shared_by + first_of_group, min(Heads, shared_by - first_of_group)};
}

/// Where the results of a part lie: [tokens, heads, splits, head_dim], then [tokens, heads, splits, 2].
__device__ inline int64_t place_of(const DecodeAttentionParams& p, int64_t token, int64_t head, int split) {
  return (token * p.heads + head) * p.splits + split;
}
__device__ inline float* extremes_of(const DecodeAttentionParams& p) {
  return p.partial + p.tokens * p.heads * p.splits * p.head_dim;
}

/// exp2 with the weight of nothing being zero, also against nothing.
__device__ inline float weight_of(float score, float largest) {
  return score == lowest ? 0.0F : exp2f(score - largest);
}

/// What the warps of a block have seen, in shared memory: of each head the weighted sums of the values, the largest
/// score and the sum of the weights. Width: room for a head's values, a multiple of 4.
template <int Heads, int Width>
struct Meeting {
  alignas(16) float sums[warps][Heads][Width];
  float extremes[warps][Heads][2];
};

/// Joins what the warps brought to the meeting and writes the part's results.
template <int Heads, int Width>
__device__ void write_part(const DecodeAttentionParams& p, const BlockHeads& heads,
                           const Meeting<Heads, Width>& meeting) {
  __syncthreads();
  const auto head_dim = static_cast<int>(p.head_dim);
  for (int i = threadIdx.x; i < heads.count * head_dim; i += threads) {
    const int h = i / head_dim;
    const int d = i - h * head_dim;
    float largest = lowest;
#pragma unroll
    for (int w = 0; w < warps; ++w) largest = fmaxf(largest, meeting.extremes[w][h][0]);
    float sum = 0;
    float value = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      const float weight = weight_of(meeting.extremes[w][h][0], largest);
      sum += weight * meeting.extremes[w][h][1];
      value += weight * meeting.sums[w][h][d];
    }
    const int64_t place = place_of(p, blockIdx.z, heads.first + h, static_cast<int>(blockIdx.x));
    p.partial[place * head_dim + d] = value;
    if (d == 0) {
      extremes_of(p)[2 * place] = largest;
      extremes_of(p)[2 * place + 1] = sum;
    }
  }
}

/// All parts on the matrix units; bfloat16 and float16 on sm_80 and newer.
cudaError_t attend_on_matrix_units(const DecodeAttentionParams& p, cudaStream_t stream);

}  // namespace oriel::kernels::decode_attention_parts
