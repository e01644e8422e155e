// Products of a few rows with a weight, as fast as the weight comes from memory.
//
// For one to eight rows a product is the reading of its weight, whatever is computed meanwhile. A block takes 16 rows
// of the weight (16 columns of the result) and all of their length, which its warps share out. What a warp reads is the
// A operand of mma.m16n8k16 as it lies: the order in which the columns of both operands are summed is free, so lane 4 g
// + t takes 8 columns in a row (16 bytes) of the weight's rows g and g + 8 and of x's row g, and these are two steps of
// the instruction. The eight columns of B are the rows of x, those there are not being zeros: one row costs what eight
// do, and no row's result depends on the others. The warps' sums meet in shared memory, where bias, activation, gate
// and residual are added.
//
// Every lane has 16 loads of 16 bytes under way, the first of them before the kernels in front have ended, since they
// never write weights. Weights pass by the L1 cache, where x stays.
//
// float32 has no such instruction: there a warp takes one column of the result, in plain multiplications.
#include "activation.cuh"
#include "decode.h"
#include "element.cuh"
#include "launch.cuh"
#include "mma.cuh"
#include "warp.cuh"

namespace oriel::kernels {
namespace {

constexpr int tile = 16;    // rows of the weight
constexpr int columns = 8;  // of the instruction: rows of x
constexpr int chunk = 32;   // columns of the weight that 4 lanes load at once

static_assert(columns == FewRowsParams::most_rows);

template <typename T>
__device__ float activate(float x, ElementwiseFunction function) {
  using F = ElementwiseFunction;
  switch (function) {
    case F::relu:
      return apply<T, F::relu>(x);
    case F::silu:
      return apply<T, F::silu>(x);
    case F::gelu_erf:
      return apply<T, F::gelu_erf>(x);
    case F::gelu_tanh:
      return apply<T, F::gelu_tanh>(x);
    case F::quick_gelu:
      return apply<T, F::quick_gelu>(x);
    case F::identity:
      break;
  }
  return x;
}

/// What becomes of the sums of one value of y; `up` is the second one of a gated product.
template <typename T>
__device__ void finish(const FewRowsParams& p, int64_t row, int64_t column, float sum, float up) {
  const T* bias = static_cast<const T*>(p.bias);
  if (bias != nullptr) sum += widen(bias[column]);
  float value = activate<T>(sum, p.function);
  if (p.gated) value *= bias != nullptr ? up + widen(bias[p.out + column]) : up;
  const int64_t at = row * p.out + column;
  if (p.residual != nullptr) value += widen(static_cast<const T*>(p.residual)[at]);
  static_cast<T*>(p.y)[at] = narrow<T>(value);
}

__device__ uint4 load_weight(const void* from) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from));
  return value;
}

/// What a lane of tensor_kernel reads of the weight: 8 neighbouring columns of rows g and g + 8 of each tile, in
/// chunks.
template <typename T, int Chunks, int Tiles>
struct WeightReader {
  const T* rows[Tiles][2];
  uint4 loaded[Chunks][Tiles][2];

  __device__ __forceinline__ WeightReader(const FewRowsParams& p, int64_t first, int g, int t) {
#pragma unroll
    for (int i = 0; i < Tiles; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = first + g + 8 * half;  // past the last one: computed in vain
        rows[i][half] = static_cast<const T*>(p.weight) + (i * p.out + (row < p.out ? row : p.out - 1)) * p.in + 8 * t;
      }
  }

  /// Zeros behind the last of the `in` columns.
  __device__ __forceinline__ void load(int base, int in, int t) {
#pragma unroll
    for (int c = 0; c < Chunks; ++c)
#pragma unroll
      for (int i = 0; i < Tiles; ++i)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int at = base + c * chunk;
          loaded[c][i][half] = at + 8 * t < in ? load_weight(rows[i][half] + at) : uint4{};
        }
  }
};

/// The same columns of x's row g, zeros where there is none.
template <typename T, int Chunks>
__device__ __forceinline__ void load_x(uint4 (&b)[Chunks], const T* x, bool has_row, int base, int in, int t) {
#pragma unroll
  for (int c = 0; c < Chunks; ++c) {
    const int at = base + c * chunk;
    b[c] = has_row && at + 8 * t < in ? *reinterpret_cast<const uint4*>(x + at) : uint4{};
  }
}

template <typename T, int Chunks, int Tiles>
__device__ __forceinline__ void multiply_chunks(float (&sums)[Tiles][4], const uint4 (&a)[Chunks][Tiles][2],
                                                const uint4 (&b)[Chunks]) {
#pragma unroll
  for (int c = 0; c < Chunks; ++c)
#pragma unroll
    for (int i = 0; i < Tiles; ++i) {
      const uint4& low = a[c][i][0];
      const uint4& high = a[c][i][1];
      multiply<T>(sums[i], low.x, high.x, low.y, high.y, b[c].x, b[c].y);
      multiply<T>(sums[i], low.z, high.z, low.w, high.w, b[c].z, b[c].w);
    }
}

/// The block's sum of one value of y, of those of its warps.
template <int Warps, int Tiles>
__device__ __forceinline__ float join_warps(const float (&partial)[Warps][Tiles][columns][tile], int i, int row) {
  float total = 0;
#pragma unroll
  for (int w = 0; w < Warps; ++w) total += partial[w][i][row][threadIdx.x % tile];
  return total;
}

/// Tiles: 1, or 2 for a gated product. Loads: of each lane, under way at once. Threads: that a multiprocessor has room
/// for, registers permitting.
template <typename T, int Warps, int Tiles, int Loads, int Threads>
__global__ void __launch_bounds__(Warps* warp, Threads / (Warps * warp)) tensor_kernel(const FewRowsParams p) {
  constexpr int chunks = Loads / (2 * Tiles);
  constexpr int step = chunk * chunks;  // columns that a warp takes at once
  __shared__ float partial[Warps][Tiles][columns][tile];

  const int lane = threadIdx.x % warp;
  const int own = threadIdx.x / warp;
  const int g = lane / 4;
  const int t = lane % 4;
  const auto in = static_cast<int>(p.in);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * tile;
  WeightReader<T, chunks, Tiles> weight(p, first, g, t);
  const T* x = static_cast<const T*>(p.x) + static_cast<int64_t>(g) * p.in + 8 * t;

  let_next_kernel_begin();
  int base = own * step;
  weight.load(base, in, t);  // all zeros for a warp that has no columns
  wait_for_kernels_before();

  float sums[Tiles][4] = {};
  while (base < in) {
    uint4 b[chunks];
    load_x(b, x, g < p.rows, base, in, t);
    multiply_chunks<T>(sums, weight.loaded, b);
    base += Warps * step;
    if (base < in) weight.load(base, in, t);
  }

#pragma unroll
  for (int i = 0; i < Tiles; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) partial[own][i][2 * t + j % 2][g + 8 * (j / 2)] = sums[i][j];
  __syncthreads();

  const int row = threadIdx.x / tile;
  const int64_t column = first + threadIdx.x % tile;
  if (row >= p.rows || column >= p.out) return;
  float total[Tiles];
#pragma unroll
  for (int i = 0; i < Tiles; ++i) total[i] = join_warps(partial, i, row);
  finish<T>(p, row, column, total[0], total[Tiles - 1]);
}

constexpr int plain_warps = 8;

__global__ void __launch_bounds__(plain_warps* warp) plain_kernel(const FewRowsParams p) {
  const int lane = threadIdx.x % warp;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * plain_warps + threadIdx.x / warp;
  let_next_kernel_begin();
  wait_for_kernels_before();
  if (column >= p.out) return;
  const auto* x = static_cast<const float*>(p.x);
  float sums[2][columns] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (i == 1 && !p.gated) break;
    const float* weight = static_cast<const float*>(p.weight) + (i * p.out + column) * p.in;
    for (int64_t at = 4 * lane; at < p.in; at += 4 * warp) {
      const auto w = load<float, 4>(weight + at);
#pragma unroll
      for (int row = 0; row < columns; ++row) {
        if (row >= p.rows) break;
        const auto value = load<float, 4>(x + row * p.in + at);
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][row] += w.values[j] * value.values[j];
      }
    }
  }
#pragma unroll
  for (int row = 0; row < columns; ++row) {
    if (row >= p.rows) break;
    float total[2] = {sums[0][row], sums[1][row]};
    for (int distance = warp / 2; distance > 0; distance /= 2)
      for (float& value : total) value += __shfl_xor_sync(~0U, value, distance);
    if (lane == 0) finish<float>(p, row, column, total[0], total[1]);
  }
}

/// Eight warps with sixteen loads each under way: of the shapes in decode_bench the fastest or within 3 % of it.
template <typename T, int Tiles>
cudaError_t launch(const FewRowsParams& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(divide_up(p.out, tile)));
  return launch_overlapping(tensor_kernel<T, 8, Tiles, 16, 512>, Grid{grid, dim3(8 * warp)}, stream, p);
}

}  // namespace

bool few_rows_supports(Element element, int major) { return element == Element::float32 || major >= 8; }

cudaError_t multiply_few_rows(const FewRowsParams& p, cudaStream_t stream) {
  if (p.rows < 1 || p.rows > FewRowsParams::most_rows || p.in < 8 || p.in % 8 != 0 || p.in > INT32_MAX / 2 ||
      p.out < 1 || divide_up(p.out, plain_warps) > INT32_MAX || !is_aligned(p.x, 16) || !is_aligned(p.weight, 16))
    return cudaErrorInvalidValue;
  return dispatch(p.element, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if constexpr (std::is_same_v<T, float>) {
      const dim3 grid(static_cast<unsigned>(divide_up(p.out, plain_warps)));
      return launch_overlapping(plain_kernel, Grid{grid, dim3(plain_warps * warp)}, stream, p);
    } else {
      return p.gated ? launch<T, 2>(p, stream) : launch<T, 1>(p, stream);
    }
  });
}

}  // namespace oriel::kernels
