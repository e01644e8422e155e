// The first pass of a resize: from the picture to words of bytes in scratch (Intermediate in pixels_device.cuh).
//
// Horizontal: a thread makes one output column of four adjacent rows, the bytes of one word of each channel, so that
// the weights are loaded once for 12 bytes. A block of 128 columns and 8 rows first takes the pixels under its columns
// apart into quads of one channel each, in shared memory: that reads the picture once, and word by word whatever its
// layout. Where a picture shrinks so much that these do not fit, threads read the picture themselves.
//
// Vertical: a thread makes four adjacent columns of one output row. It loads quads of four rows and turns them, so that
// a word holds four rows of one column.
#include "pixels_device.cuh"

namespace oriel::kernels::pixels {
namespace {

constexpr int warp = 32;
constexpr int block_rows = tile_rows * quad;  // one warp loads one row
constexpr int64_t most_shared = 48 << 10;

struct FirstPass {
  PictureView picture;
  AxisWeightsView axis;
  Intermediate out;
  int covered;  ///< horizontal: columns to make; vertical: rows
  int tiles;    ///< blocks in a row
  int row_tiles;
};

/// Which part of the picture a block has.
struct Tile {
  int column;
  int row;
  int64_t frame;

  __device__ explicit Tile(const FirstPass& p) {
    const int across = static_cast<int>(blockIdx.x) / p.tiles;
    column = (static_cast<int>(blockIdx.x) - across * p.tiles) * tile_columns;
    frame = across / p.row_tiles;
    row = (across - static_cast<int>(frame) * p.row_tiles) * tile_rows;
  }
};

/// Rows 4 * tile.row to 4 * tile.row + 7 as quads [8, 3, span], from word `begin` on.
template <Layout layout>
__device__ void load_tile(const FirstPass& p, const Tile& tile, int begin, uint32_t* quads) {
  const int thread = static_cast<int>(threadIdx.y) * tile_columns + static_cast<int>(threadIdx.x);
  const int row = thread / warp;
  const int y = min(quad * tile.row + row, static_cast<int>(p.picture.height) - 1);
  const uint8_t* from = row_of(p.picture, tile.frame, y);
  uint32_t* to = quads + row * 3 * p.axis.span;
#pragma unroll 2
  for (int word = thread % warp; word < p.axis.span; word += warp) {
    const Quad loaded = load_quad<layout>(p.picture, from, begin + word);
#pragma unroll
    for (int c = 0; c < 3; ++c) to[c * p.axis.span + word] = loaded.channel[c];
  }
}

template <Layout layout, int digits, bool in_shared>
__global__ void __launch_bounds__(threads) horizontal(const FirstPass p) {
  extern __shared__ uint32_t quads[];
  const Tile tile(p);
  const int x = tile.column + static_cast<int>(threadIdx.x);
  const int group = tile.row + static_cast<int>(threadIdx.y);
  const int begin = __ldg(p.axis.first + tile.column);
  if constexpr (in_shared) {
    load_tile<layout>(p, tile, begin, quads);
    __syncthreads();
  }
  if (x >= p.covered || group >= p.out.rows) return;

  const int first = __ldg(p.axis.first + x);
  const uint32_t* mine = quads + threadIdx.y * quad * 3 * p.axis.span + (first - begin);
  Sums<digits> sums[quad][3];
  for (int k = 0; k < p.axis.chunks; ++k) {
    const Weights<digits> weights = column_weights<digits>(p.axis, x, k);
#pragma unroll
    for (int row = 0; row < quad; ++row) {
      Quad pixels;
      if constexpr (in_shared) {
#pragma unroll
        for (int c = 0; c < 3; ++c) pixels.channel[c] = mine[(row * 3 + c) * p.axis.span + k];
      } else {
        const int y = min(quad * group + row, static_cast<int>(p.picture.height) - 1);
        pixels = load_quad<layout>(p.picture, row_of(p.picture, tile.frame, y), first + k);
      }
#pragma unroll
      for (int c = 0; c < 3; ++c) sums[row][c].add(pixels.channel[c], weights);
    }
  }
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    uint32_t word = 0;
#pragma unroll
    for (int row = 0; row < quad; ++row) word |= sums[row][c].byte(p.axis.shift) << (8 * row);
    p.out.row(tile.frame, c, group)[x] = word;
  }
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
  Sums<digits> sums[3][quad];
  for (int k = 0; k < p.axis.chunks; ++k) {
    const Weights<digits> weights = row_weights<digits>(p.axis, y, k);
    uint32_t pixels[3][quad];
#pragma unroll
    for (int row = 0; row < quad; ++row) {
      const int from = min(quad * (first + k) + row, static_cast<int>(p.picture.height) - 1);
      const Quad loaded = load_quad<layout>(p.picture, row_of(p.picture, tile.frame, from), word);
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

template <Layout layout, int digits>
cudaError_t launch(const FirstPass& p, bool rows_first, unsigned blocks, cudaStream_t stream) {
  const dim3 block(tile_columns, tile_rows);
  const int64_t shared = int64_t{block_rows} * 3 * p.axis.span * static_cast<int64_t>(sizeof(uint32_t));
  if (rows_first) {
    vertical<layout, digits><<<blocks, block, 0, stream>>>(p);
  } else if (shared <= most_shared) {
    horizontal<layout, digits, true><<<blocks, block, static_cast<size_t>(shared), stream>>>(p);
  } else {
    horizontal<layout, digits, false><<<blocks, block, 0, stream>>>(p);
  }
  return cudaGetLastError();
}

template <int digits>
cudaError_t launch(const FirstPass& p, bool rows_first, unsigned blocks, cudaStream_t stream) {
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
  const int64_t tiles = divide_up(columns, tile_columns);
  const int64_t row_tiles = divide_up(intermediate.rows, tile_rows);
  const int64_t blocks = tiles * row_tiles * params.picture.frames;
  if (blocks > INT32_MAX) return cudaErrorInvalidValue;
  const FirstPass p{params.picture,
                    rows_first ? params.rows : params.columns,
                    intermediate,
                    static_cast<int>(covered),
                    static_cast<int>(tiles),
                    static_cast<int>(row_tiles)};
  return p.axis.digits == 2 ? launch<2>(p, rows_first, static_cast<unsigned>(blocks), stream)
                            : launch<3>(p, rows_first, static_cast<unsigned>(blocks), stream);
}

}  // namespace oriel::kernels::pixels
