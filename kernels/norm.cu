// RMSNorm and LayerNorm over the rows of a matrix.
//
// One warp holds one row in registers: every lane loads up to 8 vectors of 16 bytes, 32 lanes apart, so that the row is
// read once, coalesced, and both sums of LayerNorm (the mean, then the squares of the differences from it) run over
// registers. That is one read and one write of memory; the weights stay in the caches. Rows that do not fit (wider than
// 32 x 8 vectors, or no whole number of vectors) go to a plain kernel that reads the row once a sum.
#include "element.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace oriel::kernels {
namespace {

constexpr int rows_per_block = 4;
constexpr int most_vectors = 8;  // a lane

enum class Kind { rms, rms_plus_one, layer };

struct Row {
  const void* x;
  const void* weight;
  const void* bias;
  void* y;
  int64_t rows;
  int width;
  float eps;
};

template <Kind kind>
__device__ float finish(float x, float mean, float factor, float weight, float bias) {
  if constexpr (kind == Kind::layer) return (x - mean) * factor * weight + bias;
  if constexpr (kind == Kind::rms_plus_one) return x * factor * (1.0F + weight);
  return x * factor * weight;
}

/// V: vectors a lane. The last ones may lie past the row's end for some lanes.
template <typename T, Kind kind, int V>
__global__ void __launch_bounds__(warp* rows_per_block) norm_in_registers(const Row p) {
  constexpr int N = vector_length<T>;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * rows_per_block + threadIdx.y;
  let_next_kernel_begin();
  wait_for_kernels_before();
  if (row >= p.rows) return;
  const T* x = static_cast<const T*>(p.x) + row * p.width;
  const int first = threadIdx.x * N;

  float values[V][N];
  float sum = 0;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int at = first + v * warp * N;
    if (at < p.width) {
      const auto loaded = load<T, N>(x + at);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        values[v][i] = widen(loaded.values[i]);
        sum += kind == Kind::layer ? values[v][i] : values[v][i] * values[v][i];
      }
    }
  }
  float mean = sum_over_warp(sum) / p.width;
  float square = mean;
  if constexpr (kind == Kind::layer) {
    sum = 0;
#pragma unroll
    for (int v = 0; v < V; ++v)
      if (first + v * warp * N < p.width)
#pragma unroll
        for (int i = 0; i < N; ++i) sum += (values[v][i] - mean) * (values[v][i] - mean);
    square = sum_over_warp(sum) / p.width;
  }
  const float factor = rsqrtf(square + p.eps);

  T* y = static_cast<T*>(p.y) + row * p.width;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int at = first + v * warp * N;
    if (at < p.width) {
      const auto weight = load<T, N>(static_cast<const T*>(p.weight) + at);
      Vector<T, N> bias{};
      if constexpr (kind == Kind::layer) bias = load<T, N>(static_cast<const T*>(p.bias) + at);
      Vector<T, N> result;
#pragma unroll
      for (int i = 0; i < N; ++i)
        result.values[i] =
            narrow<T>(finish<kind>(values[v][i], mean, factor, widen(weight.values[i]), widen(bias.values[i])));
      store(y + at, result);
    }
  }
}

template <typename T, Kind kind>
__global__ void __launch_bounds__(warp* rows_per_block) norm_any_width(const Row p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * rows_per_block + threadIdx.y;
  let_next_kernel_begin();
  wait_for_kernels_before();
  if (row >= p.rows) return;
  const T* x = static_cast<const T*>(p.x) + row * p.width;
  T* y = static_cast<T*>(p.y) + row * p.width;
  float sum = 0;
  for (int i = threadIdx.x; i < p.width; i += warp) {
    const float value = widen(x[i]);
    sum += kind == Kind::layer ? value : value * value;
  }
  const float mean = sum_over_warp(sum) / p.width;
  float square = mean;
  if constexpr (kind == Kind::layer) {
    sum = 0;
    for (int i = threadIdx.x; i < p.width; i += warp) sum += (widen(x[i]) - mean) * (widen(x[i]) - mean);
    square = sum_over_warp(sum) / p.width;
  }
  const float factor = rsqrtf(square + p.eps);
  for (int i = threadIdx.x; i < p.width; i += warp) {
    const float weight = widen(static_cast<const T*>(p.weight)[i]);
    const float bias = kind == Kind::layer ? widen(static_cast<const T*>(p.bias)[i]) : 0.0F;
    y[i] = narrow<T>(finish<kind>(widen(x[i]), mean, factor, weight, bias));
  }
}

template <typename T, Kind kind>
cudaError_t launch(const Row& p, cudaStream_t stream) {
  const Grid grid{dim3(static_cast<unsigned>(divide_up(p.rows, rows_per_block))), dim3(warp, rows_per_block)};
  constexpr int N = vector_length<T>;
  const bool aligned = p.width % N == 0 && is_aligned(p.x, 16) && is_aligned(p.y, 16) && is_aligned(p.weight, 16) &&
                       (kind != Kind::layer || is_aligned(p.bias, 16));
  const int64_t vectors = aligned ? divide_up(p.width, int64_t{warp} * N) : most_vectors + 1;
  switch (vectors) {
    case 1:
      return launch_overlapping(norm_in_registers<T, kind, 1>, grid, stream, p);
    case 2:
      return launch_overlapping(norm_in_registers<T, kind, 2>, grid, stream, p);
    case 3:
      return launch_overlapping(norm_in_registers<T, kind, 3>, grid, stream, p);
    case 4:
      return launch_overlapping(norm_in_registers<T, kind, 4>, grid, stream, p);
    case 5:
      return launch_overlapping(norm_in_registers<T, kind, 5>, grid, stream, p);
    case 6:
    case 7:
    case 8:
      return launch_overlapping(norm_in_registers<T, kind, 8>, grid, stream, p);
    default:
      return launch_overlapping(norm_any_width<T, kind>, grid, stream, p);
  }
}

template <Kind kind>
cudaError_t launch(const Row& p, Element element, cudaStream_t stream) {
  if (p.rows < 0 || p.width < 1 || divide_up(p.rows, rows_per_block) > INT32_MAX) return cudaErrorInvalidValue;
  if (p.rows == 0) return cudaSuccess;
  return dispatch(element, [&](auto* type) { return launch<std::remove_pointer_t<decltype(type)>, kind>(p, stream); });
}

}  // namespace

cudaError_t rms_norm(const RmsNormParams& p, cudaStream_t stream) {
  const Row row{p.x, p.weight, nullptr, p.y, p.rows, static_cast<int>(p.width), p.eps};
  return p.weight_plus_one ? launch<Kind::rms_plus_one>(row, p.element, stream)
                           : launch<Kind::rms>(row, p.element, stream);
}

cudaError_t layer_norm(const LayerNormParams& p, cudaStream_t stream) {
  return launch<Kind::layer>({p.x, p.weight, p.bias, p.y, p.rows, static_cast<int>(p.width), p.eps}, p.element, stream);
}

}  // namespace oriel::kernels
