// Sizes, shared memory and order of tiles of matmul_sm90.
#pragma once

#include <cstdint>

namespace oriel::kernels::sm90 {

/// A warpgroup's tile: `kParts` times 64 rows, by so many columns that its sums fill the registers.
template <int kPartsOfTile>
struct ProductShape {
  static constexpr int kParts = kPartsOfTile;              // of 64 rows, an instruction each
  static constexpr int kPartRows = 64;                     // of one
  static constexpr int kRows = kParts * kPartRows;         // of the tile
  static constexpr int kColumns = 256 / kParts;            // of its products
  static constexpr int kInner = 64;                        // of a stage: 128 bytes, one swizzle pattern
  static constexpr int kCluster = 2;                       // blocks that share a weight's tile
  static constexpr int kConsumers = 2;                     // warpgroups that compute
  static constexpr int kThreads = (kConsumers + 1) * 128;  // and one that loads
  static constexpr int kStages = kParts == 1 ? 5 : 6;

  // The launch has 65536 / kThreads registers a thread, rounded down to 8: 168.
  static constexpr int kConsumerRegisters = 232;
  static constexpr int kLoaderRegisters = 40;
  static_assert(kConsumers * kConsumerRegisters + kLoaderRegisters <= 3 * 168, "setmaxnreg would wait for ever");

  static constexpr int kXBytes = kRows * kInner * 2;
  static constexpr int kWeightBytes = kColumns * kInner * 2;
  static constexpr int kStageBytes = kXBytes + kWeightBytes;
  static constexpr int kPanelBytes = kPartRows * 64 * 2;  // of rows on their way out

  static constexpr int kX = 0;
  static constexpr int kWeight = kX + kStages * kXBytes;
  static constexpr int kStaging = kWeight + kStages * kWeightBytes;
  static constexpr int kBarriers = kStaging + kConsumers * kPanelBytes;
  static constexpr int kAlignment = 1024;  // of the 128-byte swizzle
  static constexpr int kBytes = kBarriers + 8 * 2 * kStages + kAlignment;
  static_assert(kBytes <= 227 * 1024, "shared memory of a block");
};

using FlatProduct = ProductShape<1>;    // 64 x 256
using SquareProduct = ProductShape<2>;  // 128 x 128

/// Addresses of a block's shared memory. Barriers: `full` when a stage's data is there, `empty` when all that read it,
/// or the half that this block sent to the other one, are done.
template <class S>
struct ProductMemory {
  std::uint32_t base;

  __device__ __forceinline__ std::uint32_t x(int stage) const { return base + S::kX + stage * S::kXBytes; }
  __device__ __forceinline__ std::uint32_t weight(int stage) const {
    return base + S::kWeight + stage * S::kWeightBytes;
  }
  __device__ __forceinline__ std::uint32_t staging(int group) const {
    return base + S::kStaging + group * S::kPanelBytes;
  }
  __device__ __forceinline__ std::uint32_t full(int stage) const { return base + S::kBarriers + 8 * stage; }
  __device__ __forceinline__ std::uint32_t empty(int stage) const {
    return base + S::kBarriers + 8 * (S::kStages + stage);
  }
};

/// What a warpgroup of each block of a cluster makes at a time.
struct Tile {
  int row_pair;  // two blocks' rows
  int column;    // the columns of both
};

template <class S>
struct TileOrder {
  static constexpr int kGroup = 1024 / S::kRows;

  int row_pairs;
  int columns;
  int count;

  TileOrder(int all_row_pairs, int all_columns)
      : row_pairs(all_row_pairs), columns(all_columns), count(all_row_pairs * all_columns) {}

  /// Down the rows of a group, then on to the next column, then to the next group.
  __device__ __forceinline__ Tile tile(int index) const {
    const int group = index / (kGroup * columns);
    const int first = group * kGroup;
    const int height = min(row_pairs - first, kGroup);
    const int inside = index - first * columns;
    return {first + inside % height, inside / height};
  }
};

}  // namespace oriel::kernels::sm90
