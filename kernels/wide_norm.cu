// RMSNorm of wide rows, by itself or added to a residual.
//
// A block of up to 16 warps holds a row in registers, 8 values a thread and piece, so that the row is read once however
// wide it is, and a single one does not take long; the warps' sums of squares meet in shared memory. The fewer pieces a
// row has, the fewer registers a thread, and the more rows a multiprocessor has under way.
#include "decode.h"
#include "element.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace oriel::kernels {
namespace {

constexpr int threads = 512;  // at most: rows of one piece take no more than they need
constexpr int piece = 8;      // values
constexpr int most_pieces = static_cast<int>(WideNormParams::most_width) / (threads * piece);

template <typename T>
__device__ void store_piece(T* to, const float (&values)[piece]) {
  constexpr int N = vector_length<T>;
#pragma unroll
  for (int part = 0; part < piece / N; ++part) {
    Vector<T, N> vector;
#pragma unroll
    for (int i = 0; i < N; ++i) vector.values[i] = narrow<T>(values[part * N + i]);
    store(to + part * N, vector);
  }
}

__device__ float sum_over_block(float x) {
  __shared__ float sums[threads / warp];
  x = sum_over_warp(x);
  if (threadIdx.x % warp == 0) sums[threadIdx.x / warp] = x;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < threads / warp; ++i)
    if (i * warp < static_cast<int>(blockDim.x)) total += sums[i];
  return total;
}

template <typename T, int pieces>
__global__ void __launch_bounds__(threads) norm_kernel(const WideNormParams p) {
  const auto width = static_cast<int>(p.width);
  const int64_t offset = static_cast<int64_t>(blockIdx.x) * p.width;
  const T* x = static_cast<const T*>(p.x) + offset;
  const T* residual = static_cast<const T*>(p.residual);
  let_next_kernel_begin();
  wait_for_kernels_before();

  float values[pieces][piece];
  float sum = 0;
#pragma unroll
  for (int k = 0; k < pieces; ++k) {
    const int at = (k * threads + threadIdx.x) * piece;
    if (at >= width) break;
    load_wide(x + at, values[k]);
#pragma unroll
    for (int i = 0; i < piece; ++i) sum += values[k][i] * values[k][i];
  }
  const float factor = rsqrtf(sum_over_block(sum) / static_cast<float>(width) + p.eps);
#pragma unroll
  for (int k = 0; k < pieces; ++k) {
    const int at = (k * threads + threadIdx.x) * piece;
    if (at >= width) break;
    float weight[piece];
    load_wide(static_cast<const T*>(p.weight) + at, weight);
#pragma unroll
    for (int i = 0; i < piece; ++i)
      values[k][i] = values[k][i] * factor * (p.weight_plus_one ? 1.0F + weight[i] : weight[i]);
    if (residual != nullptr) {
      float before[piece];
      load_wide(residual + offset + at, before);
#pragma unroll
      for (int i = 0; i < piece; ++i) values[k][i] = before[i] + widen(narrow<T>(values[k][i]));
    }
    store_piece(static_cast<T*>(p.y) + offset + at, values[k]);
  }
}

template <typename T, int pieces>
cudaError_t launch(const WideNormParams& p, cudaStream_t stream) {
  const int64_t needed = divide_up(p.width / piece, warp) * warp;
  const Grid grid{dim3(static_cast<unsigned>(p.rows)),
                  dim3(static_cast<unsigned>(needed < threads ? needed : threads))};
  return launch_overlapping(norm_kernel<T, pieces>, grid, stream, p);
}

}  // namespace

cudaError_t rms_norm_wide(const WideNormParams& p, cudaStream_t stream) {
  if (p.rows < 0 || p.rows > INT32_MAX || p.width < piece || p.width % piece != 0 ||
      p.width > WideNormParams::most_width || !is_aligned(p.x, 16) || !is_aligned(p.y, 16) ||
      !is_aligned(p.weight, 16) || !is_aligned(p.residual, 16))
    return cudaErrorInvalidValue;
  if (p.rows == 0) return cudaSuccess;
  return dispatch(p.element, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (p.width <= threads * piece) return launch<T, 1>(p, stream);
    if (p.width <= 2 * threads * piece) return launch<T, 2>(p, stream);
    return launch<T, most_pieces>(p, stream);
  });
}

}  // namespace oriel::kernels
