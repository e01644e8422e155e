// What the queries of a tile see, as the loader and the consumers ask for it. A view says what a tile is, which steps
// of 64 keys a warpgroup takes part in, and which keys a step has to hide. Its object holds what a lane needs of a
// tile, and little: four warpgroups leave no register over. What never happens in a view is a constant there, so that
// the steps are compiled without it.
#pragma once

#include <cstdint>

#include "attention.h"
#include "causal_attention.h"

namespace oriel::kernels::sm90 {

/// The tiles of a block, in order.
template <class Tile>
struct TileRange {
  const Tile* begin;
  const Tile* end;
};

/// Steps of a tile. A warpgroup with rows in it takes no part in those before and behind its own.
struct Steps {
  int all;
  int before, own, behind;
};

__device__ __forceinline__ int step_count(int keys) { return (keys + kAttentionUnit - 1) / kAttentionUnit; }

__device__ __forceinline__ std::uint16_t low_half(int word) { return static_cast<std::uint16_t>(word & 0xffff); }
__device__ __forceinline__ std::uint16_t high_half(int word) {
  return static_cast<std::uint16_t>(static_cast<std::uint32_t>(word) >> 16);
}

/// This lane's first of two rows, of the 64 of a warpgroup; the second is 8 below.
__device__ __forceinline__ int row_of_lane() { return threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4; }

__device__ __forceinline__ AttentionTile load_tile(const AttentionTile* tile) {
  const int4 word = __ldg(reinterpret_cast<const int4*>(tile));
  return {word.x, word.y, word.z, low_half(word.w), high_half(word.w)};
}

__device__ __forceinline__ CausalTile load_tile(const CausalTile* tile) {
  const int4 keys = __ldg(reinterpret_cast<const int4*>(tile));
  const int4 rows = __ldg(reinterpret_cast<const int4*>(tile) + 1);
  return {keys.x,           keys.y,           keys.z, keys.w, rows.x, low_half(rows.y), high_half(rows.y),
          low_half(rows.z), high_half(rows.z)};
}

/// Every query sees every key.
class AllKeys {
 public:
  using Tile = AttentionTile;
  static constexpr bool kRowsBeginLate = false;

  static __device__ __forceinline__ int first_key(const Tile&) { return 0; }
  static __device__ __forceinline__ int key_slice(const Tile& tile, int heads) { return heads + tile.head; }
  static __device__ __forceinline__ int value_slice(const Tile& tile, int heads) { return 2 * heads + tile.head; }
  static __device__ __forceinline__ bool stores(const Tile& tile, int row) { return row < tile.rows; }
  static __device__ __forceinline__ Steps steps(const Tile& tile, int /*consumer*/) {
    const int all = step_count(tile.keys);
    return {all, 0, all, 0};
  }

  /// @param row  of the tile: this lane's first
  __device__ __forceinline__ void begin(const Tile& tile, int /*consumer*/, int row) {
    rows_left_ = tile.rows - row;
    last_ = tile.keys - (step_count(tile.keys) - 1) * kAttentionUnit;
  }

  /// Of a step: how many of its keys there are.
  __device__ __forceinline__ int place(int step, int steps) const { return step + 1 == steps ? last_ : kAttentionUnit; }

  /// True if the lane's first row, or that `below` it, is of the tile.
  __device__ __forceinline__ bool has_row(int below) const { return rows_left_ > below; }

  template <int kScores>
  __device__ __forceinline__ void mask(float (&s)[kScores], int place, int lane) const {
    if (place == kAttentionUnit) return;
    const int column = 2 * (lane % 4);
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      if (8 * (i / 4) + column + i % 2 >= place) s[i] = -INFINITY;
    }
  }

 private:
  int rows_left_ = 0;  // from this lane's first on
  int last_ = 0;       // keys of the last step
};

/// Query `row` of a tile sees the keys from tile.begin + row to min(tile.keys, tile.end + row).
class SeenKeys {
 public:
  using Tile = CausalTile;
  static constexpr bool kRowsBeginLate = true;

  static __device__ __forceinline__ int first_key(const Tile& tile) {
    return max(tile.begin, 0) / kAttentionUnit * kAttentionUnit;
  }
  static __device__ __forceinline__ int key_slice(const Tile& tile, int) { return tile.kv_head; }
  static __device__ __forceinline__ int value_slice(const Tile& tile, int) { return tile.kv_head; }
  static __device__ __forceinline__ bool stores(const Tile& tile, int row) {
    return row >= tile.first_row && row < tile.rows;
  }

  /// From the first key that one of the 64 rows sees to the last one.
  static __device__ __forceinline__ Steps steps(const Tile& tile, int consumer) {
    const int row = consumer * kAttentionUnit;
    const int first = max(tile.begin, 0) / kAttentionUnit, last = step_count(tile.keys);
    const int own_first = max(tile.begin + row, 0) / kAttentionUnit;
    const int own_last = min(last, step_count(tile.end + row + kAttentionUnit - 1));
    return {last - first, own_first - first, own_last - own_first, last - own_last};
  }

  __device__ __forceinline__ void begin(const Tile& tile, int consumer, int lane_row) {
    const int row = consumer * kAttentionUnit;
    keys_ = tile.keys;
    begin_ = tile.begin + row;
    end_ = tile.end + row;
    first_key_ = max(begin_, 0) / kAttentionUnit * kAttentionUnit;
    has_first_row_ = stores(tile, lane_row);
    has_second_row_ = stores(tile, lane_row + 8);
  }

  /// Of a step: its first key.
  __device__ __forceinline__ int place(int step, int) const { return first_key_ + step * kAttentionUnit; }

  __device__ __forceinline__ bool has_row(int below) const { return below == 0 ? has_first_row_ : has_second_row_; }

  /// True if some rows, and then if this one, see their first key in this step or behind it.
  __device__ __forceinline__ bool rows_begin(int place) const { return begin_ + kAttentionUnit > place; }
  __device__ __forceinline__ bool row_begins(int place, int below) const {
    return begin_ + row_of_lane() + below >= place;
  }

  template <int kScores>
  __device__ __forceinline__ void mask(float (&s)[kScores], int place, int lane) const {
    if (place + kAttentionUnit <= min(keys_, end_) && !rows_begin(place + 1)) return;
    const int row = row_of_lane(), column = place + 2 * (lane % 4);
    const int end[2] = {min(keys_, end_ + row) - column, min(keys_, end_ + row + 8) - column};
    const int begin[2] = {begin_ + row - column, begin_ + row + 8 - column};
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      const int key = 8 * (i / 4) + i % 2, r = i / 2 % 2;
      if (key >= end[r] || key < begin[r]) s[i] = -INFINITY;
    }
  }

 private:
  int keys_ = 0, begin_ = 0, end_ = 0, first_key_ = 0;  // of the warpgroup's first row
  bool has_first_row_ = false, has_second_row_ = false;
};

}  // namespace oriel::kernels::sm90
