// Moving and joining whole rows: another order, average pooling, merging of neighbouring patches.
//
// These run once a call, on the tower's input or output, and are bound by memory; none is worth more than coalesced
// accesses.
#include "element.cuh"
#include "launch.cuh"

namespace oriel::kernels {
namespace {

constexpr int threads = 256;

Grid grid_of(int64_t blocks) { return {dim3(static_cast<unsigned>(blocks)), dim3(threads)}; }

/// Piece: what a thread moves at once.
template <typename Piece>
__global__ void __launch_bounds__(threads) gather(const GatherParams p) {
  const int64_t per_row = p.row_bytes / static_cast<int64_t>(sizeof(Piece));
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const int64_t row = i / per_row;
  if (row >= p.rows) return;
  const int64_t column = i - row * per_row;
  const int64_t from = p.scatter ? row : p.index[row];
  const int64_t to = p.scatter ? p.index[row] : row;
  static_cast<Piece*>(p.y)[to * per_row + column] = static_cast<const Piece*>(p.x)[from * per_row + column];
}

template <typename Piece>
cudaError_t launch_gather(const GatherParams& p, cudaStream_t stream) {
  const int64_t blocks = divide_up(p.rows * (p.row_bytes / static_cast<int64_t>(sizeof(Piece))), threads);
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  return launch_in_order(gather<Piece>, grid_of(blocks), stream, p);
}

template <typename T>
__global__ void __launch_bounds__(threads) pool(const AveragePoolParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const int64_t pooled_side = p.side / p.k;
  const int64_t channel = i % p.width;
  const int64_t cell = i / p.width;
  const int64_t column = cell % pooled_side;
  const int64_t row = cell / pooled_side % pooled_side;
  const int64_t picture = cell / pooled_side / pooled_side;
  if (picture >= p.pictures) return;
  const T* from =
      static_cast<const T*>(p.x) + ((picture * p.side + row * p.k) * p.side + column * p.k) * p.width + channel;
  float sum = 0;
  for (int64_t dy = 0; dy < p.k; ++dy)
    for (int64_t dx = 0; dx < p.k; ++dx) sum += widen(from[(dy * p.side + dx) * p.width]);
  static_cast<T*>(p.y)[i] = narrow<T>(sum / static_cast<float>(p.k * p.k));
}

template <typename T>
__global__ void __launch_bounds__(threads) merge(const MergeParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const int64_t area = p.m * p.m;
  const int64_t per_block = p.channels * area;
  const int64_t block = i / per_block;
  const int64_t blocks_per_row = p.width / p.m;
  if (block >= blocks_per_row * (p.height / p.m)) return;
  const int64_t value = i - block * per_block;
  const int64_t channel = value / area;
  const int64_t dy = value % area / p.m;
  const int64_t dx = value % p.m;
  const int64_t y = block / blocks_per_row * p.m + dy;
  const int64_t x = block % blocks_per_row * p.m + dx;
  static_cast<T*>(p.y)[i] = static_cast<const T*>(p.x)[(y * p.width + x) * p.channels + channel];
}

}  // namespace

cudaError_t has_code() {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, gather<uint4>);
  if (error != cudaSuccess) (void)cudaGetLastError();  // returned, and not to be found again by the next launch
  for (const cudaError_t missing :
       {cudaErrorNoKernelImageForDevice, cudaErrorInvalidDeviceFunction, cudaErrorUnsupportedPtxVersion,
        cudaErrorJitCompilerNotFound, cudaErrorJitCompilationDisabled})
    if (error == missing) return cudaErrorNotSupported;
  return error;
}

cudaError_t gather_rows(const GatherParams& p, cudaStream_t stream) {
  if (p.rows < 0 || p.row_bytes < 1) return cudaErrorInvalidValue;
  if (p.rows == 0) return cudaSuccess;
  const auto fits = [&](int64_t bytes) {
    return p.row_bytes % bytes == 0 && is_aligned(p.x, bytes) && is_aligned(p.y, bytes);
  };
  if (fits(16)) return launch_gather<uint4>(p, stream);
  if (fits(4)) return launch_gather<uint32_t>(p, stream);
  return launch_gather<uint8_t>(p, stream);
}

cudaError_t average_pool(const AveragePoolParams& p, cudaStream_t stream) {
  if (p.pictures < 0 || p.k < 1 || p.side < p.k || p.width < 1) return cudaErrorInvalidValue;
  const int64_t count = p.pictures * (p.side / p.k) * (p.side / p.k) * p.width;
  if (count == 0) return cudaSuccess;
  if (divide_up(count, threads) > INT32_MAX) return cudaErrorInvalidValue;
  return dispatch(p.element, [&](auto* type) {
    return launch_in_order(pool<std::remove_pointer_t<decltype(type)>>, grid_of(divide_up(count, threads)), stream, p);
  });
}

cudaError_t merge_patches(const MergeParams& p, cudaStream_t stream) {
  if (p.m < 1 || p.height < 0 || p.width < 0 || p.height % p.m != 0 || p.width % p.m != 0 || p.channels < 1)
    return cudaErrorInvalidValue;
  const int64_t count = p.height * p.width * p.channels;
  if (count == 0) return cudaSuccess;
  if (divide_up(count, threads) > INT32_MAX) return cudaErrorInvalidValue;
  return dispatch(p.element, [&](auto* type) {
    return launch_in_order(merge<std::remove_pointer_t<decltype(type)>>, grid_of(divide_up(count, threads)), stream, p);
  });
}

}  // namespace oriel::kernels
