// Activations: elementwise, and as the gate of a gated MLP.
//
// Both kernels are bound by memory: a thread handles vectors of 16 bytes, neighbours side by side.
#include "activation.cuh"
#include "element.cuh"
#include "launch.cuh"

namespace oriel::kernels {
namespace {

constexpr int threads = 256;

template <typename T, ElementwiseFunction function>
__global__ void __launch_bounds__(threads) elementwise_kernel(const ElementwiseParams p) {
  constexpr int N = vector_length<T>;
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x) * N;
  const T* x = static_cast<const T*>(p.x) + at;
  T* y = static_cast<T*>(p.y) + at;
  let_next_kernel_begin();
  wait_for_kernels_before();
  if (at + N <= p.count) {
    auto vector = load<T, N>(x);
#pragma unroll
    for (int i = 0; i < N; ++i) vector.values[i] = narrow<T>(apply<T, function>(widen(vector.values[i])));
    store(y, vector);
  } else {
    for (int i = 0; at + i < p.count; ++i) y[i] = narrow<T>(apply<T, function>(widen(x[i])));
  }
}

/// One row a y-index of the grid, one vector a thread.
template <typename T, ElementwiseFunction function>
__global__ void __launch_bounds__(threads) gate_kernel(const GateParams p) {
  constexpr int N = vector_length<T>;
  const int64_t per_row = p.width / N;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const int64_t row = index / per_row;
  let_next_kernel_begin();
  wait_for_kernels_before();
  if (row >= p.rows) return;
  const int64_t column = (index - row * per_row) * N;
  const T* from = static_cast<const T*>(p.gate_up) + row * 2 * p.width + column;
  auto gate = load<T, N>(from);
  const auto up = load<T, N>(from + p.width);
#pragma unroll
  for (int i = 0; i < N; ++i)
    gate.values[i] = narrow<T>(apply<T, function>(widen(gate.values[i])) * widen(up.values[i]));
  store(static_cast<T*>(p.y) + row * p.width + column, gate);
}

}  // namespace

cudaError_t elementwise(const ElementwiseParams& p, cudaStream_t stream) {
  if (p.count < 0 || !is_aligned(p.x, 16) || !is_aligned(p.y, 16)) return cudaErrorInvalidValue;
  if (p.count == 0) return cudaSuccess;
  return dispatch(p.element, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t blocks = divide_up(p.count, threads * vector_length<T>);
    if (blocks > INT32_MAX) return cudaErrorInvalidValue;
    return with_function(p.function, [&](auto function) {
      const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(threads)};
      return launch_overlapping(elementwise_kernel<T, decltype(function)::value>, grid, stream, p);
    });
  });
}

cudaError_t gate(const GateParams& p, cudaStream_t stream) {
  if (p.rows < 0 || p.width < 1 || p.width % 8 != 0 || !is_aligned(p.gate_up, 16) || !is_aligned(p.y, 16))
    return cudaErrorInvalidValue;
  if (p.rows == 0) return cudaSuccess;
  return dispatch(p.element, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const int64_t blocks = divide_up(p.rows * (p.width / vector_length<T>), threads);
    if (blocks > INT32_MAX) return cudaErrorInvalidValue;
    return with_function(p.function, [&](auto function) {
      const Grid grid{dim3(static_cast<unsigned>(blocks)), dim3(threads)};
      return launch_overlapping(gate_kernel<T, decltype(function)::value>, grid, stream, p);
    });
  });
}

}  // namespace oriel::kernels
