// From bytes to the rows of patches: the second pass of a resize (or no resize at all), the float of every byte, and
// the order of the values, in one kernel.
//
// A block makes a few adjacent patches of one row of patches. Its threads first compute every value once and put it
// where it belongs in an image of the output rows in shared memory, once for every temporal slot; then the block copies
// whole rows, padding included, to device memory, 16 bytes a thread where the rows allow it. Thus the order of the
// values costs nothing there, whatever the patch size.
//
// A thread walks down a few rows of two adjacent columns. After a horizontal first pass, the words of scratch hold four
// rows each: the thread keeps the words under its taps in registers and loads others only when the taps move on to the
// next word, which is every few rows, and the same rows for all threads.
//
// Floats are computed as image::ByteToFloat says, operation by operation, where the host has found that this gives the
// table's bits for all bytes; otherwise the table is read.
#include "launch.cuh"
#include "pixels_device.cuh"

namespace oriel::kernels::pixels {
namespace {

constexpr int columns_per_thread = 2;
constexpr int most_tile_columns = 128;
constexpr int64_t enough_blocks = 256;  // fewer do not fill a large GPU
constexpr int64_t many_blocks = 2048;   // so many fill it with half the threads each
constexpr int64_t most_shared = (48 << 10) - most_tile_columns * static_cast<int64_t>(sizeof(int64_t));
constexpr int most_held_chunks = 5;

/// Where the bytes come from.
enum class Bytes { picture, rows_of_scratch, columns_of_scratch };

struct PatchesPass {
  PictureView picture;
  Intermediate scratch;
  AxisWeightsView axis;
  const float* values;
  ByteValues channels[3];
  bool computable;  ///< all channels are
  bool unscaled;    ///< scale_high is 1 and scale_low 0 in all channels, and a multiplication by them can be left out
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

template <bool unscaled>
__device__ float compute(uint32_t byte, const ByteValues& v) {
  const float u = __uint2float_rn(byte);
  const float scaled = unscaled ? u : __fmaf_rn(u, v.scale_high, __fmul_rn(u, v.scale_low));
  const float x = __fsub_rn(scaled, v.mean);
  const float quotient = __fmul_rn(x, v.reciprocal);
  const float rest = __fmaf_rn(-quotient, v.divisor, x);
  return __fmaf_rn(rest, v.reciprocal, quotient);
}

/// Bytes and values of two adjacent pixels.
using Bytes2 = uint32_t[3][columns_per_thread];
using Values2 = float[3][columns_per_thread];

/// values[c][i] = f(bytes[c][i], c)
template <typename F>
__device__ void map(const Bytes2& bytes, Values2& values, F&& f) {
#pragma unroll
  for (int c = 0; c < 3; ++c)
#pragma unroll
    for (int i = 0; i < columns_per_thread; ++i) values[c][i] = f(bytes[c][i], c);
}

__device__ void to_floats(const PatchesPass& p, const Bytes2& bytes, Values2& values) {
  if (p.unscaled) {
    map(bytes, values, [&](uint32_t byte, int c) { return compute<true>(byte, p.channels[c]); });
  } else if (p.computable) {
    map(bytes, values, [&](uint32_t byte, int c) { return compute<false>(byte, p.channels[c]); });
  } else {
    map(bytes, values, [&](uint32_t byte, int c) { return __ldg(p.values + 256 * c + byte); });
  }
}

__device__ uint16_t narrowed(float value, Element element) {
  return element == Element::bfloat16 ? __bfloat16_as_ushort(__float2bfloat16_rn(value))
                                      : __half_as_ushort(__float2half_rn(value));
}
__device__ void put(uint8_t* row, int index, float value, Element element) {
  if (element == Element::float32) {
    reinterpret_cast<float*>(row)[index] = value;
  } else {
    reinterpret_cast<uint16_t*>(row)[index] = narrowed(value, element);
  }
}

template <typename Pair>
__device__ void put_copies(uint8_t* row, int index, const Pair (&pairs)[3], int channel_step, int copies, int step) {
  auto* to = reinterpret_cast<Pair*>(row) + index / 2;
#pragma unroll 1
  for (int copy = 0; copy < copies; ++copy, to += step / 2)
#pragma unroll
    for (int c = 0; c < 3; ++c) to[c * (channel_step / 2)] = pairs[c];
}

/// Both pixels at once: an even patch size keeps pairs together, and aligned.
__device__ void put_pair(const PatchesPass& p, uint8_t* row, int index, const Values2& values, int copies) {
  const int slot = p.patch * p.patch;
  if (p.element == Element::float32) {
    const float2 pairs[3] = {{values[0][0], values[0][1]}, {values[1][0], values[1][1]}, {values[2][0], values[2][1]}};
    put_copies(row, index, pairs, p.temporal * slot, copies, slot);
  } else if (p.element == Element::bfloat16) {
    __nv_bfloat162 pairs[3];
#pragma unroll
    for (int c = 0; c < 3; ++c) pairs[c] = __floats2bfloat162_rn(values[c][0], values[c][1]);
    put_copies(row, index, pairs, p.temporal * slot, copies, slot);
  } else {
    __half2 pairs[3];
#pragma unroll
    for (int c = 0; c < 3; ++c) pairs[c] = __floats2half2_rn(values[c][0], values[c][1]);
    put_copies(row, index, pairs, p.temporal * slot, copies, slot);
  }
}

/// One of the pixels, for patches of an odd size.
template <int which>
__device__ void put_single(const PatchesPass& p, uint8_t* row, int index, const Values2& values, int copies) {
  const int slot = p.patch * p.patch;
#pragma unroll 1
  for (int copy = 0; copy < copies; ++copy)
#pragma unroll
    for (int c = 0; c < 3; ++c) put(row, (c * p.temporal + copy) * slot + index, values[c][which], p.element);
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

/// The bytes of columns x and x + 1 of the resized picture, row by row. Those of a column behind `last` may be
/// anything.
template <Bytes source, int digits, int held_chunks>
class ColumnPair {
 public:
  __device__ ColumnPair(const PatchesPass& p, int64_t frame, int x, int last) : p_(p), none_(p.axis.shift) {
    x_[0] = x;
    x_[1] = min(x + 1, last);
    if constexpr (source == Bytes::picture) {
      picture_ = p.picture.pixels + frame * p.picture.frame_stride;
    } else {
#pragma unroll
      for (int c = 0; c < 3; ++c) planes_[c] = p.scratch.row(frame, c, 0) + (source == Bytes::rows_of_scratch ? x : 0);
    }
    if constexpr (source == Bytes::columns_of_scratch) {
#pragma unroll
      for (int i = 0; i < columns_per_thread; ++i) first_[i] = __ldg(p.axis.first + x_[i]);
    }
  }

  __device__ void read(int y, Bytes2& bytes) {
    if constexpr (source == Bytes::picture) {
      const uint8_t* row = picture_ + int64_t{y} * p_.picture.row_stride;
#pragma unroll
      for (int i = 0; i < columns_per_thread; ++i)
#pragma unroll
        for (int c = 0; c < 3; ++c)
          bytes[c][i] = __ldg(row + x_[i] * p_.picture.column_stride + c * p_.picture.channel_stride);
    } else {
      Sums<digits> sums[3][columns_per_thread] = {{none_, none_}, {none_, none_}, {none_, none_}};
      if constexpr (source == Bytes::columns_of_scratch) {
        sum_columns(y, sums);
      } else if constexpr (held_chunks == 0) {
        sum_rows(y, sums);
      } else {
        sum_held_rows(y, sums);
      }
#pragma unroll
      for (int c = 0; c < 3; ++c)
#pragma unroll
        for (int i = 0; i < columns_per_thread; ++i) bytes[c][i] = sums[c][i].byte(p_.axis.shift);
    }
  }

 private:
  using Sums2 = Sums<digits>[3][columns_per_thread];

  /// The words of both columns. Rows of scratch begin at multiples of 16 bytes, even patches at even columns.
  __device__ uint2 load_pair(int c, int row) const {
    return __ldg(reinterpret_cast<const uint2*>(planes_[c] + row * static_cast<int>(p_.scratch.pitch)));
  }
  __device__ uint2 load_two(int c, int row) const {
    const uint32_t* words = planes_[c] + row * static_cast<int>(p_.scratch.pitch);
    return {__ldg(words), __ldg(words + (x_[1] - x_[0]))};
  }

  __device__ void sum_columns(int y, Sums2& sums) {
    for (int k = 0; k < p_.axis.chunks; ++k) {
#pragma unroll
      for (int i = 0; i < columns_per_thread; ++i) {
        const Weights<digits> weights = column_weights<digits>(p_.axis, x_[i], k);
#pragma unroll
        for (int c = 0; c < 3; ++c)
          sums[c][i].add(__ldg(planes_[c] + y * static_cast<int>(p_.scratch.pitch) + first_[i] + k), weights);
      }
    }
  }

  __device__ void sum_rows(int y, Sums2& sums) {
    const int first = __ldg(p_.axis.first + y);
#pragma unroll 2
    for (int k = 0; k < p_.axis.chunks; ++k) {
      const Weights<digits> weights = row_weights<digits>(p_.axis, y, k);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        const uint2 words = p_.patch % 2 == 0 ? load_pair(c, first + k) : load_two(c, first + k);
        sums[c][0].add(words.x, weights);
        sums[c][1].add(words.y, weights);
      }
    }
  }

  __device__ void sum_held_rows(int y, Sums2& sums) {
    const int first = first_[1] < 0 ? __ldg(p_.axis.first + y) : first_[1];
    first_[1] = __ldg(p_.axis.first + min(y + 1, static_cast<int>(p_.axis.out) - 1));  // ahead, for the next row
    if (first != first_[0]) {
      first_[0] = first;
#pragma unroll
      for (int c = 0; c < 3; ++c)
#pragma unroll
        for (int k = 0; k < held_chunks; ++k) held_[c][k] = load_pair(c, first + k);
    }
#pragma unroll
    for (int k = 0; k < held_chunks; ++k) {
      const Weights<digits> weights = row_weights<digits>(p_.axis, y, k);
#pragma unroll
      for (int c = 0; c < 3; ++c) {
        sums[c][0].add(held_[c][k].x, weights);
        sums[c][1].add(held_[c][k].y, weights);
      }
    }
  }

  const PatchesPass& p_;
  const uint8_t* picture_ = nullptr;
  const uint32_t* planes_[3];
  const Sums<digits> none_;
  int x_[columns_per_thread];
  int first_[columns_per_thread] = {-1, -1};
  uint2 held_[3][held_chunks == 0 ? 1 : held_chunks];
};

template <typename Unit>
__device__ void copy_rows(const PatchesPass& p, const uint8_t* stage, const int64_t* offsets, int patches) {
  const int units = p.row_bytes / static_cast<int>(sizeof(Unit));
  int at = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  int patch = 0;
  while (true) {
    while (at >= units) {
      at -= units;
      ++patch;
    }
    if (patch >= patches) return;
    const auto* from = reinterpret_cast<const Unit*>(stage + patch * p.stage_stride);
    reinterpret_cast<Unit*>(p.out + offsets[patch])[at] = from[at];
    at += static_cast<int>(blockDim.x * blockDim.y);
  }
}

__device__ void copy_rows(const PatchesPass& p, const uint8_t* stage, const int64_t* offsets, int patches) {
  switch (p.copy_bytes) {
    case 16:
      return copy_rows<uint4>(p, stage, offsets, patches);
    case 8:
      return copy_rows<uint2>(p, stage, offsets, patches);
    case 4:
      return copy_rows<uint32_t>(p, stage, offsets, patches);
    default:
      return copy_rows<uint16_t>(p, stage, offsets, patches);
  }
}

/// The block's patches.
struct Tile {
  int patch_row;
  int first_patch;
  int patches;

  __device__ explicit Tile(const PatchesPass& p) {
    patch_row = static_cast<int>(blockIdx.x) / p.tiles;
    first_patch = (static_cast<int>(blockIdx.x) - patch_row * p.tiles) * p.tile_patches;
    patches = min(p.tile_patches, p.grid_columns - first_patch);
  }
};

/// The values of one frame. row_at(i) is where patch i of the tile is put together.
template <Bytes source, int digits, int held_chunks, bool staged, typename RowAt>
__device__ void put_frame(const PatchesPass& p, const Tile& tile, int frame, const RowAt& row_at) {
  const int slot = p.patch * p.patch;
  const int copies = p.picture.frames == 1 ? p.temporal : 1;
  const int share = (p.patch + static_cast<int>(blockDim.y) - 1) / static_cast<int>(blockDim.y);
  const int begin = static_cast<int>(threadIdx.y) * share;
  const int end = min(begin + share, p.patch);
  const int origin = tile.first_patch * p.patch;
  const int columns = tile.patches * p.patch;
  const int step = columns_per_thread * static_cast<int>(blockDim.x);
  for (int x = columns_per_thread * static_cast<int>(threadIdx.x); x < columns; x += step) {
    const int patch = x / p.patch;
    const int in_patch = x - patch * p.patch;
    ColumnPair<source, digits, held_chunks> pair(p, frame, origin + x, origin + columns - 1);
#pragma unroll(source == Bytes::picture ? 4 : 1)
    for (int y = begin; y < end; ++y) {
      Bytes2 bytes;
      pair.read(tile.patch_row * p.patch + y, bytes);
      Values2 values;
      to_floats(p, bytes, values);
      const int index = frame * slot + y * p.patch + in_patch;
      if (staged && p.patch % 2 == 0) {
        put_pair(p, row_at(patch), index, values, copies);
        continue;
      }
      put_single<0>(p, row_at(patch), index, values, copies);
      if (x + 1 >= columns) continue;
      const bool same = in_patch + 1 < p.patch;
      put_single<1>(p, row_at(same ? patch : patch + 1), same ? index + 1 : index - in_patch, values, copies);
    }
  }
}

/// `staged`: rows are put together in shared memory; else, for patches too large for that, in `out` itself.
template <Bytes source, int digits, int held_chunks, bool staged>
__global__ void __launch_bounds__(threads, 4) make_patches(const PatchesPass p) {
  extern __shared__ uint4 shared[];
  __shared__ int64_t offsets[most_tile_columns];  // bytes to the output rows of the block's patches
  auto* stage = reinterpret_cast<uint8_t*>(shared);
  const Tile tile(p);
  const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  if (thread < tile.patches) {
    offsets[thread] = output_row(p, tile.patch_row, tile.first_patch + thread) * p.out_stride;
  }
  if constexpr (!staged) __syncthreads();
  const auto row_at = [&](int i) { return staged ? stage + i * p.stage_stride : p.out + offsets[i]; };

  for (int frame = 0; frame < p.picture.frames; ++frame) {
    put_frame<source, digits, held_chunks, staged>(p, tile, frame, row_at);
  }
  const int padding = p.row_bytes / element_bytes(p.element) - p.row_values;
  if (padding > 0) {
    for (int patch = static_cast<int>(threadIdx.y); patch < tile.patches; patch += static_cast<int>(blockDim.y))
      for (int i = static_cast<int>(threadIdx.x); i < padding; i += static_cast<int>(blockDim.x))
        put(row_at(patch), p.row_values + i, 0.0F, p.element);
  }
  if constexpr (staged) {
    __syncthreads();
    copy_rows(p, stage, offsets, tile.patches);
  }
}

struct Launch {
  kernels::Grid grid;  ///< without shared memory: not staged
  cudaStream_t stream;
};

template <Bytes source, int digits, int held_chunks>
cudaError_t launch(const PatchesPass& p, const Launch& l) {
  if (l.grid.shared_bytes > 0)
    return launch_in_order(make_patches<source, digits, held_chunks, true>, l.grid, l.stream, p);
  return launch_in_order(make_patches<source, digits, 0, false>, l.grid, l.stream, p);
}

template <int digits>
cudaError_t launch(const PatchesPass& p, bool rows_first, const Launch& l) {
  if (rows_first) return launch<Bytes::columns_of_scratch, digits, 0>(p, l);
  switch (p.patch % 2 == 0 ? p.axis.chunks : 0) {
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
  p.computable = p.unscaled = true;
  for (int c = 0; c < 3; ++c) {
    p.channels[c] = params.channels[c];
    p.computable = p.computable && params.channels[c].computable;
    p.unscaled = p.unscaled && params.channels[c].scale_high == 1.0F && params.channels[c].scale_low == 0.0F;
  }
  p.unscaled = p.unscaled && p.computable;
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
  p.stage_stride = stage_stride <= most_shared ? static_cast<int>(stage_stride) : 0;
  return p;
}

/// Fixes how many patches a block makes: as many as its threads have columns for, and its shared memory room.
Launch second_launch(PatchesPass& p, const Grid& grid, cudaStream_t stream) {
  int tile_columns = most_tile_columns;
  while (true) {
    int64_t patches = tile_columns / p.patch;
    if (p.stage_stride > 0 && patches > most_shared / p.stage_stride) patches = most_shared / p.stage_stride;
    if (patches < 1) patches = 1;
    p.tiles = static_cast<int>(divide_up(grid.columns, patches));
    p.tile_patches = static_cast<int>(divide_up(grid.columns, p.tiles));
    // A small picture is divided among more blocks, with fewer rows a thread.
    if (grid.rows * p.tiles >= enough_blocks || tile_columns < most_tile_columns) break;
    tile_columns /= 2;
  }
  const auto across = static_cast<unsigned>(tile_columns / columns_per_thread);
  const int64_t blocks = grid.rows * p.tiles;
  const unsigned down = threads / across / (blocks >= many_blocks ? 2 : 1);
  return {{dim3(static_cast<unsigned>(blocks)), dim3(across, down),
           static_cast<size_t>(p.stage_stride) * static_cast<size_t>(p.tile_patches)},
          stream};
}

}  // namespace

cudaError_t launch_second_pass(const PatchesParams& params, const Intermediate& scratch, cudaStream_t stream) {
  const Grid grid = grid_of(params);
  PatchesPass p = second_pass(params, scratch);
  const Launch l = second_launch(p, grid, stream);
  if (!params.resize) return launch<Bytes::picture, 2, 0>(p, l);
  return p.axis.digits == 2 ? launch<2>(p, params.rows_first, l) : launch<3>(p, params.rows_first, l);
}

}  // namespace oriel::kernels::pixels
