// The parts of decode attention on the matrix units, for bfloat16 and float16: as fast as keys and values come from
// memory.
//
// A block takes one part, one head of keys and values, and up to 8 of the query heads that share it; its warps take 16
// keys in turn. Keys are the rows and heads the columns of mma.m16n8k16, so that nothing is computed for heads past
// the instruction's 8:
//
//   scores [16 keys, 8 heads] = K [16 keys, head_dim] Q^T,   sums [head_dim, 8 heads] += V^T [head_dim, 16 keys] P
//
// All operands come from memory into the registers in which they are multiplied, 16 bytes a load, since the order in
// which an instruction numbers what it sums, and the rows of a result, is free. Lane 4 g + t holds
//   - of K, 8 columns in a row (from 32 c + 8 t on) of keys g and g + 8, and the same columns of Q's head g: the A and
//     B operands of two steps;
//   - of the scores, keys g and g + 8 of heads 2 t and 2 t + 1;
//   - of V, 8 columns in a row (from 64 c + 8 g on) of keys 2 t, 2 t + 1, 2 t + 8 and 2 t + 9: pairs of keys of one
//     column are put side by side by byte permutation and are the A operand, whose rows g and g + 8 are columns
//     64 c + 8 g + 2 i and the next one;
//   - of the sums, these 8 columns of heads 2 t and 2 t + 1, the heads whose softmax it knows.
// The weights become the B operand by a transposition of 8 x 8 matrices between lanes. They are rounded to the element
// first; the sum that divides them is that of the rounded ones.
//
// The next keys are on their way while the softmax runs, the next values while scores are computed. What lies past a
// part's end or past head_dim is not read and counts as zeros; its scores are masked.
#include <type_traits>

#include "decode_attention_parts.cuh"
#include "launch.cuh"
#include "mma.cuh"

namespace oriel::kernels::decode_attention_parts {
namespace {

constexpr int tile = 16;         // keys that a warp takes at once
constexpr int heads = 8;         // of a block
constexpr int key_chunk = 32;    // columns that 4 lanes load at once
constexpr int value_chunk = 64;  // columns that 8 lanes load at once
constexpr int piece = 8;         // columns that a lane loads at once

static_assert(part_step == warps * tile);

/// Of an 8 x 8 matrix of 16-bit elements that lies across the warp: lane 4 g + t has columns 2 t and 2 t + 1 of row g.
__device__ __forceinline__ uint32_t transpose(uint32_t row) {
  uint32_t column = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(column) : "r"(row));
#endif
  return column;
}

/// Rounded; `low` lies in the lower half. The arguments become what was stored.
template <typename T>
__device__ __forceinline__ uint32_t round_pair(float& low, float& high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    low = __low2float(pair);
    high = __high2float(pair);
    return *reinterpret_cast<const uint32_t*>(&pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    low = __low2float(pair);
    high = __high2float(pair);
    return *reinterpret_cast<const uint32_t*>(&pair);
  }
}

/// Zeros where there is nothing to be read. Volatile, so that it stays behind the wait for earlier kernels.
__device__ __forceinline__ uint4 load_if(bool exists, const void* from) {
  uint4 value = {0, 0, 0, 0};
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "{\n"
      ".reg .pred exists;\n"
      "setp.ne.s32 exists, %5, 0;\n"
      "@exists ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];\n"
      "}\n"
      : "+r"(value.x), "+r"(value.y), "+r"(value.z), "+r"(value.w)
      : "l"(from), "r"(static_cast<int>(exists)));
#endif
  return value;
}

/// A piece of Q. It is read anew for each tile where three blocks of short heads are to have room in the registers; for
/// long heads the compiler may keep it, which leaves nothing to spill.
template <int Chunks>
__device__ __forceinline__ uint4 load_query(const uint4* from) {
  if constexpr (Chunks > 2) return *from;
  uint4 value;
  asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(from))));
  return value;
}

/// Rows of 16-bit elements, from the column on where a lane's first piece begins.
struct Rows {
  const char* first;
  unsigned stride;  ///< bytes from row to row
  int end;          ///< rows
  int columns;      ///< from `first` to the row's end

  __device__ __forceinline__ uint4 load(int row, int column) const {
    return load_if(row < end && column < columns,
                   first + static_cast<uint64_t>(static_cast<unsigned>(row)) * stride + 2 * column);
  }
};

template <typename T>
__device__ const char* at(const void* first, int64_t element) {
  return reinterpret_cast<const char*>(static_cast<const T*>(first) + element);
}

template <int Chunks>
__device__ __forceinline__ void load_keys(uint4 (&keys)[2 * Chunks][2], const Rows& rows, int first, int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int c = 0; c < 2 * Chunks; ++c) keys[c][half] = rows.load(first + lane / 4 + 8 * half, key_chunk * c);
}

template <int Chunks>
__device__ __forceinline__ void load_values(uint4 (&values)[Chunks][4], const Rows& rows, int first, int lane) {
#pragma unroll
  for (int k = 0; k < 4; ++k)
#pragma unroll
    for (int c = 0; c < Chunks; ++c)
      values[c][k] = rows.load(first + 2 * (lane % 4) + k % 2 + k / 2 * 8, value_chunk * c);
}

/// scores: [2 * half + j] is that of key g + 8 * half and head 2 t + j.
template <typename T, int Chunks>
__device__ __forceinline__ void score(float (&scores)[4], const uint4 (&keys)[2 * Chunks][2],
                                      const uint4 (*queries)[warp], int lane) {
  float others[4] = {};  // two chains of instructions instead of one
#pragma unroll
  for (int c = 0; c < 2 * Chunks; ++c) {
    const uint4 q = load_query<Chunks>(&queries[c][lane]);
    multiply<T>(scores, keys[c][0].x, keys[c][1].x, keys[c][0].y, keys[c][1].y, q.x, q.y);
    multiply<T>(others, keys[c][0].z, keys[c][1].z, keys[c][0].w, keys[c][1].w, q.z, q.w);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) scores[i] += others[i];
}

/// The softmax of a lane's two heads over the keys that its warp has seen; `sum` is over the lane's own keys.
struct Softmax {
  float largest[2] = {lowest, lowest};
  float sum[2] = {};

  /// Makes weights of scores, rounded and transposed to the B operand, and says what the sums before are worth now.
  template <typename T>
  __device__ __forceinline__ void see(float (&scores)[4], uint32_t (&weights)[2], float (&before)[2]) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      float now = fmaxf(largest[j], fmaxf(scores[j], scores[2 + j]));
#pragma unroll
      for (int distance = 4; distance < warp; distance *= 2) now = fmaxf(now, __shfl_xor_sync(~0U, now, distance));
      before[j] = weight_of(largest[j], now);
      scores[j] = weight_of(scores[j], now);
      scores[2 + j] = weight_of(scores[2 + j], now);
      largest[j] = now;
    }
#pragma unroll
    for (int half = 0; half < 2; ++half)
      weights[half] = transpose(round_pair<T>(scores[2 * half], scores[2 * half + 1]));
#pragma unroll
    for (int j = 0; j < 2; ++j) sum[j] = sum[j] * before[j] + (scores[j] + scores[2 + j]);
  }
};

/// sums += V^T P of one tile: [c][i][2 * r + j] is column 64 c + 8 g + 2 i + r of head 2 t + j.
template <typename T, int Chunks>
__device__ __forceinline__ void add_values(float (&sums)[Chunks][4][4], const uint4 (&values)[Chunks][4],
                                           const uint32_t (&weights)[2]) {
  constexpr uint32_t lower_halves = 0x5410;
  constexpr uint32_t upper_halves = 0x7632;
#pragma unroll
  for (int c = 0; c < Chunks; ++c)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const auto word = [&](int k) {
        const uint4& v = values[c][k];
        return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
      };
      multiply<T>(sums[c][i], __byte_perm(word(0), word(1), lower_halves), __byte_perm(word(0), word(1), upper_halves),
                  __byte_perm(word(2), word(3), lower_halves), __byte_perm(word(2), word(3), upper_halves), weights[0],
                  weights[1]);
    }
}

/// A row's bytes are spread over other banks than those of the rows that other lanes write at the same time.
template <int Chunks>
using TileMeeting = Meeting<heads, Chunks * value_chunk + 4>;

template <int Chunks>
__device__ __forceinline__ void bring(TileMeeting<Chunks>& meeting, const float (&sums)[Chunks][4][4], Softmax softmax,
                                      int own_warp, int lane) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int head = 2 * (lane % 4) + j;
#pragma unroll
    for (int distance = 4; distance < warp; distance *= 2)
      softmax.sum[j] += __shfl_xor_sync(~0U, softmax.sum[j], distance);
    if (lane < 4) {
      meeting.extremes[own_warp][head][0] = softmax.largest[j];
      meeting.extremes[own_warp][head][1] = softmax.sum[j];
    }
#pragma unroll
    for (int c = 0; c < Chunks; ++c)
#pragma unroll
      for (int i = 0; i < 4; i += 2)
        store<float, 4>(&meeting.sums[own_warp][head][value_chunk * c + piece * (lane / 4) + 2 * i],
                        {sums[c][i][j], sums[c][i][2 + j], sums[c][i + 1][j], sums[c][i + 1][2 + j]});
  }
}

/// Blocks of a multiprocessor that have room in its registers.
constexpr int resident(int chunks) { return chunks == 1 ? 4 : chunks == 2 ? 3 : 2; }

/// Chunks: of 64 columns, that make a head.
template <typename T, int Chunks>
__global__ void __launch_bounds__(threads, resident(Chunks)) attend_kernel(const DecodeAttentionParams p) {
  __shared__ uint4 queries[2 * Chunks][warp];
  __shared__ TileMeeting<Chunks> meeting;

  let_next_kernel_begin();
  const BlockHeads of = heads_of_block<heads>(p);
  const int few = part_limits(p.kv_heads).few;
  const int own_warp = threadIdx.x / warp;
  const int lane = threadIdx.x % warp;
  const auto head_dim = static_cast<int>(p.head_dim);
  const auto stride = static_cast<unsigned>(p.kv_heads * p.head_dim);
  const int key_column = piece * (lane % 4);
  const int value_column = piece * (lane / 4);
  wait_for_kernels_before();
  const int64_t token = blockIdx.z;
  const int64_t slot = p.slots[token];
  const Range part = cut_of(p, token, few)[static_cast<int>(blockIdx.x)];
  if (part.begin >= part.end) return;

  const int64_t place = slot * p.capacity * stride + of.kv_head * head_dim;
  const Rows query_rows{at<T>(p.q, token * p.q_stride + of.first * head_dim + key_column),
                        2U * static_cast<unsigned>(head_dim), of.count, head_dim - key_column};
  const Rows key_rows{at<T>(p.keys, place + key_column), 2U * stride, part.end, head_dim - key_column};
  const Rows value_rows{at<T>(p.values, place + value_column), 2U * stride, part.end, head_dim - value_column};
  int first = part.begin + own_warp * tile;
  uint4 keys[2 * Chunks][2];
  uint4 values[Chunks][4];
  for (int c = own_warp; c < 2 * Chunks; c += warps) queries[c][lane] = query_rows.load(lane / 4, key_chunk * c);
  load_keys<Chunks>(keys, key_rows, first, lane);
  load_values<Chunks>(values, value_rows, first, lane);
  __syncthreads();

  const float scale = p.scale * 1.44269504F;  // scores in base 2
  Softmax softmax;
  float sums[Chunks][4][4] = {};
  for (; first < part.end; first += warps * tile) {
    float scores[4] = {};
    score<T, Chunks>(scores, keys, queries, lane);
    load_keys<Chunks>(keys, key_rows, first + warps * tile, lane);
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[i] = first + lane / 4 + i / 2 * 8 < part.end ? scores[i] * scale : lowest;
    uint32_t weights[2];
    float before[2];
    softmax.see<T>(scores, weights, before);
#pragma unroll
    for (int i = 0; i < 16 * Chunks; ++i) sums[i / 16][i / 4 % 4][i % 4] *= before[i % 2];
    add_values<T, Chunks>(sums, values, weights);
    load_values<Chunks>(values, value_rows, first + warps * tile, lane);
  }
  bring<Chunks>(meeting, sums, softmax, own_warp, lane);
  write_part(p, of, meeting);
}

template <typename T>
cudaError_t attend(const DecodeAttentionParams& p, cudaStream_t stream) {
  const Grid grid{blocks_of<heads>(p), dim3(threads)};
  switch (divide_up(p.head_dim, value_chunk)) {
    case 1:
      return launch_overlapping(attend_kernel<T, 1>, grid, stream, p);
    case 2:
      return launch_overlapping(attend_kernel<T, 2>, grid, stream, p);
    case 3:
      return launch_overlapping(attend_kernel<T, 3>, grid, stream, p);
    default:
      return launch_overlapping(attend_kernel<T, 4>, grid, stream, p);
  }
}

}  // namespace

cudaError_t attend_on_matrix_units(const DecodeAttentionParams& p, cudaStream_t stream) {
  switch (p.element) {
    case Element::bfloat16:
      return attend<__nv_bfloat16>(p, stream);
    case Element::float16:
      return attend<__half>(p, stream);
    case Element::float32:
      break;
  }
  return cudaErrorInvalidValue;
}

}  // namespace oriel::kernels::decode_attention_parts
