// The first pass of a resize: from the picture to words of bytes in scratch (Intermediate in pixels_device.cuh).
//
// Horizontal: a thread makes one output column of four adjacent rows, the bytes of one word of each channel, so that
// the weights are loaded once for 12 bytes. A block of 128 columns and 8 rows first takes the pixels under its columns
// apart into quads of one channel each, in shared memory: that reads the picture once, and word by word whatever its
// layout. Where a picture shrinks so much that these do not fit, threads read the picture themselves.
//
// Vertical: a thread makes four adjacent columns of one output row. It loads quads of four rows and turns them, so that
// a word holds four rows of one column.
#include "launch.cuh"
#include "pixels_device.cuh"

namespace oriel::kernels::pixels {
namespace {

constexpr int warp = 32;
constexpr int tile_columns = 128;  // image::span_pixels
constexpr int tile_rows = threads / tile_columns;
constexpr int block_rows = tile_rows * quad;  // one warp loads one row
static_assert(block_rows == threads / warp);
constexpr int loads = 3;  // quads of a thread under way at once
constexpr int most_grid_rows = 32768;

struct FirstPass {
  PictureView picture;
  AxisWeightsView axis;
  Intermediate out;
  int covered;  ///< horizontal: columns to make; vertical: rows
  int slices;   ///< of most_grid_rows row tiles
};

/// Which part of the picture a block has: grid (column tiles, row tiles of a slice, frames x slices).
struct Tile {
  int column;
  int row;
  int frame;

  __device__ explicit Tile(const FirstPass& p) {
    column = static_cast<int>(blockIdx.x) * tile_columns;
    row = static_cast<int>(blockIdx.y) * tile_rows;
    frame = static_cast<int>(blockIdx.z);
    if (p.slices > 1) {
      frame = static_cast<int>(blockIdx.z) / p.slices;
      row += (static_cast<int>(blockIdx.z) - frame * p.slices) * most_grid_rows * tile_rows;
    }
  }
};

template <Layout layout>
__device__ QuadRow<layout> picture_row(const FirstPass& p, int frame, int y) {
  return QuadRow<layout>(p.picture, row_of(p.picture, frame, min(y, static_cast<int>(p.picture.height) - 1)));
}

/// Rows 4 * tile.row to 4 * tile.row + 7 as quads [8, 3, pitch], from word `begin` on. Every warp loads whole warps'
/// widths of one row; what is left of the rows is divided among the block.
template <Layout layout, int pitch>
__device__ void load_tile(const FirstPass& p, const Tile& tile, int begin, uint32_t* quads) {
  const int thread = static_cast<int>(threadIdx.y) * tile_columns + static_cast<int>(threadIdx.x);
  const auto put = [&](int row, int word, const Quad& loaded) {
#pragma unroll
    for (int c = 0; c < 3; ++c) quads[(row * 3 + c) * pitch + word] = loaded.channel[c];
  };
  const int full = p.axis.span / warp * warp;
  const int rest = p.axis.span - full;
  const int rest_bits = rest > 1 ? 32 - __clz(rest - 1) : 0;
  const int rest_row = thread >> rest_bits;
  const int rest_word = thread & ((1 << rest_bits) - 1);
  const bool has_rest = rest_row < block_rows && rest_word < rest;
  const QuadRow<layout> rest_from = picture_row<layout>(p, tile.frame, quad * tile.row + rest_row);
  typename QuadRow<layout>::Fetched rest_fetched;
  if (has_rest) rest_fetched = rest_from.fetch(begin + full + rest_word);

  const int row = thread / warp;
  const QuadRow<layout> from = picture_row<layout>(p, tile.frame, quad * tile.row + row);
  int word = thread % warp;
  for (; word + (loads - 1) * warp < full; word += loads * warp) {
    typename QuadRow<layout>::Fetched fetched[loads];
#pragma unroll
    for (int i = 0; i < loads; ++i) fetched[i] = from.fetch(begin + word + i * warp);
#pragma unroll
    for (int i = 0; i < loads; ++i) put(row, word + i * warp, from.finish(fetched[i], begin + word + i * warp));
  }
  for (; word < full; word += warp) put(row, word, from.finish(from.fetch(begin + word), begin + word));
  if (has_rest) put(rest_row, full + rest_word, rest_from.finish(rest_fetched, begin + full + rest_word));
}

/// The sums of one column and four rows, all channels, as one word of each channel.
template <int digits>
struct ColumnSums {
  Sums<digits> sums[quad][3];

  __device__ explicit ColumnSums(int shift) : ColumnSums(Sums<digits>(shift)) {}
  __device__ void write(const FirstPass& p, int frame, int group, int x) const {
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      uint32_t word = 0;
#pragma unroll
      for (int row = 0; row < quad; ++row) word |= sums[row][c].byte(p.axis.shift) << (8 * row);
      p.out.row(frame, c, group)[x] = word;
    }
  }

 private:
  __device__ explicit ColumnSums(const Sums<digits>& none)
      : sums{{none, none, none}, {none, none, none}, {none, none, none}, {none, none, none}} {}
};

/// pitch: words in a row of the tile, at least the span. most_chunks: as many as the axis has, whose weights are then
/// under way while the tile is loaded; 0: any number.
template <Layout layout, int digits, int pitch, int most_chunks>
__global__ void __launch_bounds__(threads, 4) horizontal(const FirstPass p) {
  __shared__ uint32_t quads[block_rows * 3 * pitch];
  const Tile tile(p);
  const int x = tile.column + static_cast<int>(threadIdx.x);
  const int group = tile.row + static_cast<int>(threadIdx.y);
  const int begin = __ldg(p.axis.first + tile.column);
  const int column = min(x, p.covered - 1);
  const int first = __ldg(p.axis.first + column);
  Weights<digits> weights[most_chunks == 0 ? 1 : most_chunks];
#pragma unroll
  for (int k = 0; k < most_chunks; ++k) weights[k] = column_weights<digits>(p.axis, column, k);
  load_tile<layout, pitch>(p, tile, begin, quads);
  __syncthreads();
  if (x >= p.covered || group >= p.out.rows) return;

  const uint32_t* mine = quads + threadIdx.y * quad * 3 * pitch + (first - begin);
  ColumnSums<digits> column_sums(p.axis.shift);
  const auto add = [&](int k, const Weights<digits>& chunk) {
#pragma unroll
    for (int row = 0; row < quad; ++row)
#pragma unroll
      for (int c = 0; c < 3; ++c) column_sums.sums[row][c].add(mine[(row * 3 + c) * pitch + k], chunk);
  };
  if constexpr (most_chunks == 0) {
    for (int k = 0; k < p.axis.chunks; ++k) add(k, column_weights<digits>(p.axis, x, k));
  } else {
#pragma unroll
    for (int k = 0; k < most_chunks; ++k) add(k, weights[k]);
  }
  column_sums.write(p, tile.frame, group, x);
}

/// Every thread reads the picture itself: for spans that no tile holds.
template <Layout layout, int digits>
__global__ void __launch_bounds__(threads) horizontal_wide(const FirstPass p) {
  const Tile tile(p);
  const int x = tile.column + static_cast<int>(threadIdx.x);
  const int group = tile.row + static_cast<int>(threadIdx.y);
  if (x >= p.covered || group >= p.out.rows) return;
  const int first = __ldg(p.axis.first + x);
  ColumnSums<digits> column_sums(p.axis.shift);
  for (int k = 0; k < p.axis.chunks; ++k) {
    const Weights<digits> weights = column_weights<digits>(p.axis, x, k);
#pragma unroll
    for (int row = 0; row < quad; ++row) {
      const QuadRow<layout> from = picture_row<layout>(p, tile.frame, quad * group + row);
      const Quad pixels = from.finish(from.fetch(first + k), first + k);
#pragma unroll
      for (int c = 0; c < 3; ++c) column_sums.sums[row][c].add(pixels.channel[c], weights);
    }
  }
  column_sums.write(p, tile.frame, group, x);
}

/// Row i of four columns becomes column i of four rows.
__device__ void transpose(uint32_t (&m)[quad]) {
  const uint32_t low_top = __byte_perm(m[0], m[1], 0x5140);
  const uint32_t low_bottom = __byte_perm(m[2], m[3], 0x5140);
  const uint32_t high_top = __byte_perm(m[0], m[1], 0x7362);
  const uint32_t high_bottom = __byte_perm(m[2], m[3], 0x7362);
  m[0] = __byte_perm(low_top, low_bottom, 0x5410);
  m[1] = __byte_perm(low_top, low_bottom, 0x7632);
  m[2] = __byte_perm(high_top, high_bottom, 0x5410);
  m[3] = __byte_perm(high_top, high_bottom, 0x7632);
}

template <Layout layout, int digits>
__global__ void __launch_bounds__(threads) vertical(const FirstPass p) {
  const Tile tile(p);
  const int word = tile.column + static_cast<int>(threadIdx.x);
  const int y = tile.row + static_cast<int>(threadIdx.y);
  if (y >= p.covered || quad * word >= p.picture.width) return;

  const int first = __ldg(p.axis.first + y);
  const Sums<digits> none(p.axis.shift);
  Sums<digits> sums[3][quad] = {{none, none, none, none}, {none, none, none, none}, {none, none, none, none}};
  for (int k = 0; k < p.axis.chunks; ++k) {
    const Weights<digits> weights = row_weights<digits>(p.axis, y, k);
    typename QuadRow<layout>::Fetched fetched[quad];
#pragma unroll
    for (int row = 0; row < quad; ++row)
      fetched[row] = picture_row<layout>(p, tile.frame, quad * (first + k) + row).fetch(word);
    uint32_t pixels[3][quad];
#pragma unroll
    for (int row = 0; row < quad; ++row) {
      const Quad loaded = picture_row<layout>(p, tile.frame, quad * (first + k) + row).finish(fetched[row], word);
#pragma unroll
      for (int c = 0; c < 3; ++c) pixels[c][row] = loaded.channel[c];
    }
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      transpose(pixels[c]);
#pragma unroll
      for (int i = 0; i < quad; ++i) sums[c][i].add(pixels[c][i], weights);
    }
  }
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    uint32_t bytes = 0;
#pragma unroll
    for (int i = 0; i < quad; ++i) bytes |= sums[c][i].byte(p.axis.shift) << (8 * i);
    p.out.row(tile.frame, c, y)[word] = bytes;
  }
}

Layout layout_of(const PictureView& picture) {
  const bool words = is_aligned(picture.pixels, quad) && picture.row_stride % quad == 0 &&
                     (picture.frames == 1 || picture.frame_stride % quad == 0);
  if (picture.channel_stride == 1 && picture.column_stride == 3) return Layout::rgb;
  if (picture.channel_stride == 1 && picture.column_stride == 4 && words) return Layout::rgbx;
  return picture.column_stride == 1 ? Layout::planar : Layout::any;
}

template <Layout layout, int digits, int pitch>
cudaError_t launch_horizontal(const FirstPass& p, const kernels::Grid& grid, cudaStream_t stream) {
  // Versions of their own for the numbers of chunks that are usual for the pitch, and for the usual layout.
  if constexpr (layout == Layout::rgb && pitch <= 128) {
    switch (p.axis.chunks) {
      case 2:
        return launch_in_order(horizontal<layout, digits, pitch, 2>, grid, stream, p);
      case 3:
        return launch_in_order(horizontal<layout, digits, pitch, 3>, grid, stream, p);
      case 4:
        return launch_in_order(horizontal<layout, digits, pitch, 4>, grid, stream, p);
      case 5:
        return launch_in_order(horizontal<layout, digits, pitch, 5>, grid, stream, p);
      default:
        break;
    }
  }
  return launch_in_order(horizontal<layout, digits, pitch, 0>, grid, stream, p);
}

template <Layout layout, int digits>
cudaError_t launch(const FirstPass& p, bool rows_first, const dim3& blocks, cudaStream_t stream) {
  const kernels::Grid grid{blocks, dim3(tile_columns, tile_rows)};
  if (rows_first) return launch_in_order(vertical<layout, digits>, grid, stream, p);
  if (p.axis.span <= 64) return launch_horizontal<layout, digits, 64>(p, grid, stream);
  if (p.axis.span <= 128) return launch_horizontal<layout, digits, 128>(p, grid, stream);
  if (p.axis.span <= 512) return launch_horizontal<layout, digits, 512>(p, grid, stream);
  return launch_in_order(horizontal_wide<layout, digits>, grid, stream, p);
}

template <int digits>
cudaError_t launch(const FirstPass& p, bool rows_first, const dim3& blocks, cudaStream_t stream) {
  switch (layout_of(p.picture)) {
    case Layout::rgb:
      return launch<Layout::rgb, digits>(p, rows_first, blocks, stream);
    case Layout::rgbx:
      return launch<Layout::rgbx, digits>(p, rows_first, blocks, stream);
    case Layout::planar:
      return launch<Layout::planar, digits>(p, rows_first, blocks, stream);
    case Layout::any:
      break;
  }
  return launch<Layout::any, digits>(p, rows_first, blocks, stream);
}

}  // namespace

cudaError_t launch_first_pass(const PatchesParams& params, const Intermediate& intermediate, int64_t covered,
                              cudaStream_t stream) {
  const bool rows_first = params.rows_first;
  const int64_t columns = rows_first ? divide_up(params.picture.width, quad) : covered;
  const int64_t row_tiles = divide_up(intermediate.rows, tile_rows);
  const int64_t slices = divide_up(row_tiles, most_grid_rows);
  if (slices * params.picture.frames > 65535) return cudaErrorInvalidValue;
  const dim3 blocks(static_cast<unsigned>(divide_up(columns, tile_columns)),
                    static_cast<unsigned>(row_tiles < most_grid_rows ? row_tiles : most_grid_rows),
                    static_cast<unsigned>(slices * params.picture.frames));
  const FirstPass p{params.picture, rows_first ? params.rows : params.columns, intermediate, static_cast<int>(covered),
                    static_cast<int>(slices)};
  return p.axis.digits == 2 ? launch<2>(p, rows_first, blocks, stream) : launch<3>(p, rows_first, blocks, stream);
}

}  // namespace oriel::kernels::pixels
