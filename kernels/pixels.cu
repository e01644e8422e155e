// The launcher of the pixel kernels: what it accepts, and how scratch is divided.
#include "pixels_device.cuh"

namespace oriel::kernels {
namespace pixels {
namespace {

Intermediate intermediate_of(const PatchesParams& params) {
  const Grid grid = grid_of(params);
  auto* words = static_cast<uint32_t*>(params.scratch);
  if (params.rows_first) {
    return {words, grid.rows * params.patch, divide_up(divide_up(params.picture.width, quad), quad) * quad};
  }
  return {words, divide_up(params.picture.height, quad), divide_up(grid.columns * params.patch, quad) * quad};
}

bool is_side(int64_t value) { return value >= 1 && value <= longest_picture_side; }

bool fits(const AxisWeightsView& axis, int64_t in, int64_t out) {
  return axis.first != nullptr && axis.words != nullptr && axis.in == in && axis.out == out && axis.chunks >= 1 &&
         axis.chunks <= divide_up(in, quad) && (axis.digits == 2 || axis.digits == 3) && axis.shift >= 1 &&
         axis.shift < 32 && axis.span >= axis.chunks && axis.span <= divide_up(in, quad);
}

bool has_sizes(const PatchesParams& p) {
  constexpr int64_t most = 4096;
  if (!is_side(p.picture.height) || !is_side(p.picture.width)) return false;
  if (!is_side(p.target_height) || !is_side(p.target_width)) return false;
  for (const int64_t value : {p.patch, p.temporal, p.merge})
    if (value < 1 || value > most) return false;
  if (p.picture.frames != 1 && p.picture.frames != p.temporal) return false;
  const Grid grid = grid_of(p);
  if (grid.rows * grid.columns > INT32_MAX) return false;
  return grid.rows >= 1 && grid.columns >= 1 && grid.rows % p.merge == 0 && grid.columns % p.merge == 0;
}

bool is_valid(const PatchesParams& p) {
  if (!has_sizes(p) || p.picture.pixels == nullptr || p.values == nullptr || p.out == nullptr) return false;
  const int64_t size = element_bytes(p.element);
  if (p.out_columns < 3 * p.temporal * p.patch * p.patch || p.out_stride < p.out_columns) return false;
  if (p.out_columns > INT32_MAX / size || !is_aligned(p.out, size)) return false;
  if (!p.resize) return p.picture.height == p.target_height && p.picture.width == p.target_width;
  return p.scratch != nullptr && is_aligned(p.scratch, 16) && fits(p.rows, p.picture.height, p.target_height) &&
         fits(p.columns, p.picture.width, p.target_width);
}

}  // namespace
}  // namespace pixels

size_t patches_scratch_bytes(const PatchesParams& params) {
  if (!params.resize || !pixels::has_sizes(params)) return 0;
  const pixels::Intermediate words = pixels::intermediate_of(params);
  return static_cast<size_t>(params.picture.frames * 3 * words.rows * words.pitch) * sizeof(uint32_t);
}

cudaError_t write_patches(const PatchesParams& params, cudaStream_t stream) {
  using namespace pixels;
  if (!is_valid(params)) return cudaErrorInvalidValue;
  if (!params.resize) return launch_second_pass(params, {}, stream);
  const Intermediate scratch = intermediate_of(params);
  if (scratch.rows * scratch.pitch > INT32_MAX) return cudaErrorInvalidValue;  // indices into a plane are int
  const Grid grid = grid_of(params);
  const int64_t covered = (params.rows_first ? grid.rows : grid.columns) * params.patch;
  if (const cudaError_t error = launch_first_pass(params, scratch, covered, stream); error != cudaSuccess) return error;
  return launch_second_pass(params, scratch, stream);
}

}  // namespace oriel::kernels
