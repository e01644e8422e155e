// From bytes to the rows of patches: the second pass of a resize (or no resize at all), the float of every byte, and
// the order of the values, in one kernel.
//
// A block makes a few adjacent patches of one row of patches. Its threads first compute every value once and put it
// where it belongs in an image of the output rows in shared memory, once for every temporal slot; then the block copies
// whole rows, padding included, to device memory, 16 bytes a thread where the rows allow it. Thus the order of the
// values costs nothing there, whatever the patch size.
//
// A thread walks down half a patch. After a horizontal first pass, the words of scratch hold four rows each: the
// thread keeps the words under its taps in registers and loads others only when the taps move on to the next word,
// which is every few rows, and the same rows for all threads.
//
// Floats are computed as image::ByteToFloat says, operation by operation, where the host has found that this gives the
// table's bits for all bytes; otherwise the table is read.
#include "pixels_device.cuh"

namespace oriel::kernels {
namespace pixels {
namespace {

constexpr int64_t most_shared = 48 << 10;
constexpr int most_held_chunks = 5;
constexpr int64_t longest_side = int64_t{1} << 20;

/// Where the bytes come from.
enum class Bytes { picture, rows_of_scratch, columns_of_scratch };

struct PatchesPass {
  PictureView picture;
  Intermediate scratch;
  AxisWeightsView axis;
  const float* values;
  ByteValues channels[3];
  int patch;
  int temporal;
  int merge;
  int grid_columns;
  int tile_patches;
  int tiles;  ///< blocks in a row of patches
  uint8_t* out;
  int64_t out_stride;  ///< bytes
  int row_values;      ///< without padding
  int row_bytes;       ///< with padding
  int stage_stride;    ///< bytes from row to row in shared memory
  int copy_bytes;      ///< how many are copied at once
  Element element;
};

__device__ float to_float(uint32_t byte, const float* table, const ByteValues& v) {
  if (!v.computable) return __ldg(table + byte);
  const float u = __uint_as_float(0x4B000000U | byte) - 8388608.0F;  // exact: 2^23 + byte, less 2^23
  const float x = __fsub_rn(__fmaf_rn(u, v.scale_high, __fmul_rn(u, v.scale_low)), v.mean);
  const float quotient = __fmul_rn(x, v.reciprocal);
  const float rest = __fmaf_rn(-quotient, v.divisor, x);
  return __fmaf_rn(rest, v.reciprocal, quotient);
}

/// Writes `value` to element `index` of `row`, and `copies` - 1 more times, `step` elements apart.
__device__ void put(uint8_t* row, int index, float value, int copies, int step, Element element) {
  if (element == Element::float32) {
    auto* to = reinterpret_cast<float*>(row) + index;
    for (int copy = 0; copy < copies; ++copy, to += step) *to = value;
    return;
  }
  const uint16_t bits = element == Element::bfloat16 ? __bfloat16_as_ushort(__float2bfloat16_rn(value))
                                                     : __half_as_ushort(__float2half_rn(value));
  auto* to = reinterpret_cast<uint16_t*>(row) + index;
  for (int copy = 0; copy < copies; ++copy, to += step) *to = bits;
}

/// The output row of a patch: spec/qwen_vl.md 2 for the order in blocks.
__device__ int64_t output_row(const PatchesPass& p, int row, int column) {
  if (p.merge == 1) return static_cast<int64_t>(row) * p.grid_columns + column;
  const int block_row = row / p.merge;
  const int block_column = column / p.merge;
  const int dy = row - block_row * p.merge;
  const int dx = column - block_column * p.merge;
  return static_cast<int64_t>(block_row) * p.merge * p.grid_columns +
         (static_cast<int64_t>(block_column) * p.merge + dy) * p.merge + dx;
}

/// The bytes of one column of the resized picture, row by row.
template <Bytes source, int digits, int held_chunks>
class Column {
 public:
  __device__ Column(const PatchesPass& p, int64_t frame, int x) : p_(p), frame_(frame), x_(x) {
    if constexpr (source == Bytes::columns_of_scratch) first_ = __ldg(p.axis.first + x);
  }

  __device__ void read(int64_t y, uint32_t (&bytes)[3]) {
    if constexpr (source == Bytes::picture) {
      const uint8_t* pixel = row_of(p_.picture, frame_, y) + x_ * p_.picture.column_stride;
#pragma unroll
      for (int c = 0; c < 3; ++c) bytes[c] = __ldg(pixel + c * p_.picture.channel_stride);
    } else {
      Sums<digits> sums[3];
      if constexpr (source == Bytes::columns_of_scratch) {
        sum_columns(y, sums);
      } else if constexpr (held_chunks == 0) {
        sum_rows(y, sums);
      } else {
        sum_held_rows(y, sums);
      }
#pragma unroll
      for (int c = 0; c < 3; ++c) bytes[c] = sums[c].byte(p_.axis.shift);
    }
  }

 private:
  __device__ void sum_columns(int64_t y, Sums<digits> (&sums)[3]) {
    for (int k = 0; k < p_.axis.chunks; ++k) {
      const Weights<digits> weights = column_weights<digits>(p_.axis, x_, k);
#pragma unroll
      for (int c = 0; c < 3; ++c) sums[c].add(__ldg(p_.scratch.row(frame_, c, y) + first_ + k), weights);
    }
  }

  __device__ void sum_rows(int64_t y, Sums<digits> (&sums)[3]) {
    const int first = __ldg(p_.axis.first + y);
    for (int k = 0; k < p_.axis.chunks; ++k) {
      const Weights<digits> weights = row_weights<digits>(p_.axis, y, k);
#pragma unroll
      for (int c = 0; c < 3; ++c) sums[c].add(__ldg(p_.scratch.row(frame_, c, first + k) + x_), weights);
    }
  }

  __device__ void sum_held_rows(int64_t y, Sums<digits> (&sums)[3]) {
    const int first = __ldg(p_.axis.first + y);
    if (first != first_) {
      first_ = first;
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        const uint32_t* from = p_.scratch.row(frame_, c, first) + x_;
#pragma unroll
        for (int k = 0; k < held_chunks; ++k) held_[c][k] = __ldg(from + k * p_.scratch.pitch);
      }
    }
    const uint32_t* words = p_.axis.words + y * (held_chunks * digits);
#pragma unroll
    for (int k = 0; k < held_chunks; ++k) {
      Weights<digits> weights;
#pragma unroll
      for (int d = 0; d < digits; ++d) weights.word[d] = __ldg(words + k * digits + d);
#pragma unroll
      for (int c = 0; c < 3; ++c) sums[c].add(held_[c][k], weights);
    }
  }

  const PatchesPass& p_;
  int64_t frame_;
  int x_;
  int first_ = -1;
  uint32_t held_[3][held_chunks == 0 ? 1 : held_chunks];
};

template <typename Unit>
__device__ void copy_rows(const PatchesPass& p, const uint8_t* stage, int patch_row, int first_patch, int patches) {
  const int units = p.row_bytes / static_cast<int>(sizeof(Unit));
  int at = static_cast<int>(threadIdx.y) * tile_columns + static_cast<int>(threadIdx.x);
  int patch = 0;
  while (true) {
    while (at >= units) {
      at -= units;
      ++patch;
    }
    if (patch >= patches) return;
    const auto* from = reinterpret_cast<const Unit*>(stage + patch * p.stage_stride);
    auto* to = reinterpret_cast<Unit*>(p.out + output_row(p, patch_row, first_patch + patch) * p.out_stride);
    to[at] = from[at];
    at += threads;
  }
}

/// `staged`: rows are put together in shared memory; else, for patches too large for that, in `out` itself.
template <Bytes source, int digits, int held_chunks, bool staged>
__global__ void __launch_bounds__(threads) make_patches(const PatchesPass p) {
  extern __shared__ uint4 shared[];
  auto* stage = reinterpret_cast<uint8_t*>(shared);
  const int patch_row = static_cast<int>(blockIdx.x) / p.tiles;
  const int first_patch = (static_cast<int>(blockIdx.x) - patch_row * p.tiles) * p.tile_patches;
  const int patches = min(p.tile_patches, p.grid_columns - first_patch);
  const auto row_at = [&](int i) {
    return staged ? stage + i * p.stage_stride : p.out + output_row(p, patch_row, first_patch + i) * p.out_stride;
  };

  const int slot = p.patch * p.patch;
  const int copies = p.picture.frames == 1 ? p.temporal : 1;
  const int half = (p.patch + tile_rows - 1) / tile_rows;
  const int begin = static_cast<int>(threadIdx.y) * half;
  const int end = min(begin + half, p.patch);
  for (int frame = 0; frame < p.picture.frames; ++frame) {
    for (int x = static_cast<int>(threadIdx.x); x < patches * p.patch; x += tile_columns) {
      const int patch = x / p.patch;
      uint8_t* row = row_at(patch);
      Column<source, digits, held_chunks> column(p, frame, first_patch * p.patch + x);
      for (int y = begin; y < end; ++y) {
        uint32_t bytes[3];
        column.read(static_cast<int64_t>(patch_row) * p.patch + y, bytes);
        const int index = frame * slot + y * p.patch + (x - patch * p.patch);
#pragma unroll
        for (int c = 0; c < 3; ++c) {
          const float value = to_float(bytes[c], p.values + 256 * c, p.channels[c]);
          put(row, c * p.temporal * slot + index, value, copies, slot, p.element);
        }
      }
    }
  }
  const int element_bytes = p.element == Element::float32 ? 4 : 2;
  const int padding = p.row_bytes / element_bytes - p.row_values;
  if (padding > 0) {
    for (int patch = static_cast<int>(threadIdx.y); patch < patches; patch += tile_rows) {
      uint8_t* row = row_at(patch);
      for (int i = static_cast<int>(threadIdx.x); i < padding; i += tile_columns)
        put(row, p.row_values + i, 0.0F, 1, 0, p.element);
    }
  }
  if constexpr (staged) {
    __syncthreads();
    switch (p.copy_bytes) {
      case 16:
        return copy_rows<uint4>(p, stage, patch_row, first_patch, patches);
      case 8:
        return copy_rows<uint2>(p, stage, patch_row, first_patch, patches);
      case 4:
        return copy_rows<uint32_t>(p, stage, patch_row, first_patch, patches);
      default:
        return copy_rows<uint16_t>(p, stage, patch_row, first_patch, patches);
    }
  }
}

struct Launch {
  unsigned blocks;
  size_t shared;  ///< 0: not staged
  cudaStream_t stream;
};

template <Bytes source, int digits, int held_chunks>
cudaError_t launch(const PatchesPass& p, const Launch& l) {
  const dim3 block(tile_columns, tile_rows);
  if (l.shared > 0) {
    make_patches<source, digits, held_chunks, true><<<l.blocks, block, l.shared, l.stream>>>(p);
  } else {
    make_patches<source, digits, 0, false><<<l.blocks, block, 0, l.stream>>>(p);
  }
  return cudaGetLastError();
}

template <int digits>
cudaError_t launch(const PatchesPass& p, bool rows_first, const Launch& l) {
  if (rows_first) return launch<Bytes::columns_of_scratch, digits, 0>(p, l);
  switch (p.axis.chunks) {
    case 1:
      return launch<Bytes::rows_of_scratch, digits, 1>(p, l);
    case 2:
      return launch<Bytes::rows_of_scratch, digits, 2>(p, l);
    case 3:
      return launch<Bytes::rows_of_scratch, digits, 3>(p, l);
    case 4:
      return launch<Bytes::rows_of_scratch, digits, 4>(p, l);
    case most_held_chunks:
      return launch<Bytes::rows_of_scratch, digits, most_held_chunks>(p, l);
    default:
      return launch<Bytes::rows_of_scratch, digits, 0>(p, l);
  }
}

int64_t element_bytes(Element element) { return element == Element::float32 ? 4 : 2; }

/// What is used of the target: whole patches.
struct Grid {
  int64_t rows;
  int64_t columns;
};
Grid grid_of(const PatchesParams& params) {
  return {params.target_height / params.patch, params.target_width / params.patch};
}

Intermediate intermediate_of(const PatchesParams& params) {
  const Grid grid = grid_of(params);
  auto* words = static_cast<uint32_t*>(params.scratch);
  if (params.rows_first) {
    return {words, grid.rows * params.patch, divide_up(divide_up(params.picture.width, quad), quad) * quad};
  }
  return {words, divide_up(params.picture.height, quad), divide_up(grid.columns * params.patch, quad) * quad};
}

bool is_side(int64_t value) { return value >= 1 && value <= longest_side; }

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

/// The widest unit that rows of `row_bytes`, `stride` bytes apart, can be copied in.
int copy_unit(const void* out, int64_t row_bytes, int64_t stride) {
  for (const int unit : {16, 8, 4}) {
    if (row_bytes % unit == 0 && stride % unit == 0 && is_aligned(static_cast<const uint8_t*>(out), unit)) return unit;
  }
  return 2;
}

PatchesPass second_pass(const PatchesParams& params, const Intermediate& scratch) {
  const Grid grid = grid_of(params);
  const int64_t size = element_bytes(params.element);
  PatchesPass p{};
  p.picture = params.picture;
  p.scratch = scratch;
  p.axis = params.rows_first ? params.columns : params.rows;
  p.values = params.values;
  for (int c = 0; c < 3; ++c) p.channels[c] = params.channels[c];
  p.patch = static_cast<int>(params.patch);
  p.temporal = static_cast<int>(params.temporal);
  p.merge = static_cast<int>(params.merge);
  p.grid_columns = static_cast<int>(grid.columns);
  p.out = static_cast<uint8_t*>(params.out);
  p.out_stride = params.out_stride * size;
  p.row_values = static_cast<int>(3 * params.temporal * params.patch * params.patch);
  p.row_bytes = static_cast<int>(params.out_columns * size);
  p.copy_bytes = copy_unit(params.out, p.row_bytes, p.out_stride);
  p.element = params.element;
  const int64_t stage_stride = divide_up(p.row_bytes, 16) * 16;
  const int64_t by_room = stage_stride <= most_shared ? most_shared / stage_stride : grid.columns;
  int64_t patches = tile_columns / params.patch;
  patches = patches < by_room ? patches : by_room;
  patches = patches < 1 ? 1 : patches;
  p.tiles = static_cast<int>(divide_up(grid.columns, patches));
  p.tile_patches = static_cast<int>(divide_up(grid.columns, p.tiles));
  p.stage_stride = stage_stride <= most_shared ? static_cast<int>(stage_stride) : 0;
  return p;
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
  const Intermediate scratch = params.resize ? intermediate_of(params) : Intermediate{};
  const PatchesPass p = second_pass(params, scratch);
  const Grid grid = grid_of(params);
  const int64_t blocks = grid.rows * p.tiles;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  const Launch l{static_cast<unsigned>(blocks), static_cast<size_t>(p.stage_stride) * p.tile_patches, stream};
  if (!params.resize) return launch<Bytes::picture, 2, 0>(p, l);

  const int64_t covered = (params.rows_first ? grid.rows : grid.columns) * params.patch;
  if (const cudaError_t error = launch_first_pass(params, scratch, covered, stream); error != cudaSuccess) return error;
  return p.axis.digits == 2 ? launch<2>(p, params.rows_first, l) : launch<3>(p, params.rows_first, l);
}

}  // namespace oriel::kernels
