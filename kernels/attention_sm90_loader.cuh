// The loader warpgroup of the Hopper attention kernels: four warps, each with one duty, none waiting for another's
// slots.
#pragma once

#include "attention_sm90_instructions.cuh"
#include "attention_sm90_shape.cuh"
#include "attention_sm90_view.cuh"

namespace oriel::kernels::sm90 {

/// Tensor maps over [tokens][slices][head_dim], a slice being q, k or v of one head: boxes of 64 tokens of one slice.
/// Columns past head_dim and tokens outside of the tensor read as zeros.
struct Maps {
  const CUtensorMap &queries, &keys, &values;  // 64 columns, 128-byte swizzle
  const CUtensorMap& tail;                     // 16 columns, 32-byte swizzle, of queries and keys
};

template <int kHeadDim, class View>
struct Loader {
  using S = Shape<kHeadDim>;
  using Ring = RingPosition<S::kStages>;
  using Tile = typename View::Tile;

  const Maps maps;
  const SharedMap<kHeadDim> shared;
  const TileRange<Tile> tiles;
  const int heads;

  /// 64 rows of Q or K.
  __device__ __forceinline__ void copy_rows(std::uint32_t to, const CUtensorMap& map, int slice, int row,
                                            std::uint32_t barrier) const {
    barrier_arrive_expecting(barrier, S::kKeyBytes);
#pragma unroll
    for (int panel = 0; panel < S::kPanels; ++panel) {
      copy_box(to + panel * S::kPanelBytes, map, panel * 64, slice, row, barrier);
    }
    if constexpr (S::kTail) copy_box(to + S::kPanels * S::kPanelBytes, maps.tail, S::kPanels * 64, slice, row, barrier);
  }

  __device__ __forceinline__ void copy_values(std::uint32_t to, int slice, int row, std::uint32_t barrier) const {
    barrier_arrive_expecting(barrier, S::kValueBytes);
#pragma unroll
    for (int panel = 0; panel < S::kValuePanels; ++panel) {
      copy_box(to + panel * S::kPanelBytes, maps.values, panel * 64, slice, row, barrier);
    }
  }

  /// Each warpgroup's 64 queries on their own, as soon as that warpgroup is done with what the buffer held.
  __device__ void load_queries() const {
    RingPosition<S::kQueryBuffers> position[S::kConsumers];
    for (const Tile* next = tiles.begin; next != tiles.end; ++next) {
      const Tile tile = load_tile(next);
#pragma unroll
      for (int consumer = 0; consumer < S::kConsumers; ++consumer) {
        if (consumer * S::kUnit >= tile.rows) continue;
        const auto [buffer, parity] = position[consumer];
        barrier_wait(shared.queries_empty(buffer, consumer), parity ^ 1);
        copy_rows(shared.queries(buffer, consumer), maps.queries, tile.head, tile.query_begin + consumer * S::kUnit,
                  shared.queries_full(buffer, consumer));
        position[consumer] = position[consumer].next();
      }
    }
  }

  __device__ void load_keys() const {
    Ring ring;
    for (const Tile* next = tiles.begin; next != tiles.end; ++next) {
      const Tile tile = load_tile(next);
#pragma unroll 1
      for (int key = View::first_key(tile); key < tile.keys; key += S::kUnit) {
        barrier_wait(shared.keys_empty(ring.slot), ring.parity ^ 1);
        copy_rows(shared.keys(ring.slot), maps.keys, View::key_slice(tile, heads), tile.key_begin + key,
                  shared.keys_full(ring.slot));
        ring = ring.next();
      }
    }
  }

  __device__ void load_values() const {
    Ring ring;
    for (const Tile* next = tiles.begin; next != tiles.end; ++next) {
      const Tile tile = load_tile(next);
#pragma unroll 1
      for (int key = View::first_key(tile); key < tile.keys; key += S::kUnit) {
        const bool partial = key + S::kUnit > tile.keys;
        const std::uint32_t done = partial ? shared.values_raw(ring.slot) : shared.values_full(ring.slot);
        barrier_wait(shared.values_empty(ring.slot), ring.parity ^ 1);
        copy_values(shared.values(ring.slot), View::value_slice(tile, heads), tile.key_begin + key, done);
        ring = ring.next();
      }
    }
  }

  /// Puts zeros where the last step of a tile holds rows of V behind its keys, of the next sequence perhaps. Their
  /// probabilities are zero, but zero times NaN or Inf is NaN: without this, one broken image would spoil its
  /// neighbour. (K needs none of it: scores past the end are overwritten, not multiplied.) Called by a whole warp.
  __device__ void clear_past_the_end(int lane) const {
    Ring ring;
    std::uint32_t raw_parities = 0;  // a bit a slot
    for (const Tile* next = tiles.begin; next != tiles.end; ++next) {
      const Tile tile = load_tile(next);
      const int past = tile.keys % S::kUnit;
      for (int step = (tile.keys - View::first_key(tile)) / S::kUnit; step > 0; --step) ring = ring.next();
      if (past == 0) continue;
      barrier_wait(shared.values_raw(ring.slot), raw_parities >> ring.slot & 1);
      raw_parities ^= 1u << ring.slot;
      // The swizzle moves 16-byte chunks within their row alone, so rows are contiguous.
      for (int panel = 0; panel < S::kValuePanels; ++panel) {
        const std::uint32_t values = shared.values(ring.slot) + panel * S::kPanelBytes;
        for (int byte = past * 128 + lane * 16; byte < S::kPanelBytes; byte += 32 * 16) store_zeros(values + byte);
      }
      shared_writes_fence();
      __syncwarp();
      if (lane == 0) barrier_arrive(shared.values_full(ring.slot));
      ring = ring.next();
    }
  }

  __device__ __forceinline__ void run() const {
    const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
    if (warp == 0 && lane == 0) load_queries();
    if (warp == 1 && lane == 0) load_keys();
    if (warp == 2 && lane == 0) load_values();
    if (warp == 3) clear_past_the_end(lane);
  }
};

}  // namespace oriel::kernels::sm90
