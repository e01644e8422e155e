// Arguments, sizes and shared memory of the Hopper attention kernels.
#pragma once

#include <cstdint>

#include "attention.h"

namespace oriel::kernels::sm90 {

/// Of a kernel, beside its tensor maps.
template <class T, class Tile>
struct Arguments {
  const std::int32_t* first_tile;  // [blocks + 1]: where each block's tiles begin in `tiles`
  const Tile* tiles;
  T* out;  // [tokens, heads, head_dim]
  int heads;
  float scale_log2;  // of the scores; 1 if prescaled
  bool prescaled;
};

/// What the launchers hand over of their parameters, whose plan lies on the device.
template <class T, class Tile, class Params>
Arguments<T, Tile> arguments_of(const Params& params) {
  constexpr float kLog2E = 1.4426950408889634f;
  const auto* const tiles = static_cast<const std::uint8_t*>(params.plan) + attention_tiles_offset(params.blocks);
  return {static_cast<const std::int32_t*>(params.plan),
          reinterpret_cast<const Tile*>(tiles),
          static_cast<T*>(params.out),
          params.heads,
          params.q_prescaled ? 1.f : params.scale * kLog2E,
          params.q_prescaled};
}

/// Shared memory holds columns in panels of 64 (128-byte rows, 128-byte swizzle). A head dim past a multiple of 64 has
/// its last columns in a tail of 16 (32-byte rows, 32-byte swizzle) for Q and K, whose product takes 16 columns a time;
/// V takes another panel, so that one instruction covers all columns of the output.
template <int kHeadDim>
struct Shape {
  static constexpr int kUnit = kAttentionUnit;                       // rows of a warpgroup, and keys of a step
  static constexpr int kConsumers = attention_tile_units(kHeadDim);  // warpgroups that compute
  static constexpr int kThreads = (kConsumers + 1) * 128;            // and one that loads
  // Of the rings of K and V tiles.
  static constexpr int kStages = kHeadDim == 64 ? 6 : kHeadDim == 128 ? 4 : kHeadDim == 256 ? 2 : 5;

  // The launch has 65536 / kThreads registers a thread, rounded down to 8: 96 for four consumers, 128 for three, 168
  // for two. The loader gives back what the consumers take.
  static constexpr int kLaunchRegisters = 65536 / kThreads / 8 * 8;
  static constexpr int kConsumerRegisters = kConsumers == 4 ? 112 : kConsumers == 3 ? 160 : 232;
  static constexpr int kLoaderRegisters = 32;

  /// Scores of a step while the values of the step before are still being multiplied. Head dim 80 has no registers for
  /// both; there the warpgroups overlap with each other alone.
  static constexpr bool kOverlap = kHeadDim != 80;

  static constexpr int kPanels = kHeadDim / 64;
  static constexpr bool kTail = kHeadDim % 64 != 0;
  static constexpr int kPanelBytes = kUnit * 128;
  static constexpr int kTailBytes = kTail ? kUnit * 32 : 0;
  static constexpr int kKeyBytes = kPanels * kPanelBytes + kTailBytes;  // of 64 rows of Q or K
  static constexpr int kValuePanels = (kHeadDim + 63) / 64;
  static constexpr int kValueBytes = kValuePanels * kPanelBytes;

  // Q twice where there is room, so that the next tile's is there when this tile ends; a warpgroup's 64 rows lie
  // together.
  static constexpr int kQueryBuffers = kHeadDim == 256 ? 1 : 2;
  static constexpr int kQueries = 0;
  static constexpr int kKeys = kQueries + kQueryBuffers * kConsumers * kKeyBytes;
  static constexpr int kValues = kKeys + kStages * kKeyBytes;
  static constexpr int kBarriers = kValues + kStages * kValueBytes;
  static constexpr int kBarrierCount = 5 * kStages + 2 * kQueryBuffers * kConsumers;
  static constexpr int kAlignment = 1024;  // of the 128-byte swizzle
  static constexpr int kBytes = kBarriers + 8 * kBarrierCount + kAlignment;

  static_assert(kHeadDim % 8 == 0 && kHeadDim % 64 <= 16, "a tail has 8 or 16 columns");
  static_assert(kKeyBytes % kAlignment == 0 && kValueBytes % kAlignment == 0, "each tile begins a swizzle pattern");
  static_assert(kBytes <= 227 * 1024, "shared memory of a block");
  static_assert(kConsumers * kConsumerRegisters + kLoaderRegisters <= (kConsumers + 1) * kLaunchRegisters,
                "more registers than the launch has: setmaxnreg would wait for ever");
};

/// Addresses of a block's shared memory. Barriers come in pairs: `full` when the data is there, `empty` when its
/// readers are done with it.
template <int kHeadDim>
struct SharedMap {
  using S = Shape<kHeadDim>;

  std::uint32_t base;

  __device__ __forceinline__ std::uint32_t queries(int buffer, int consumer) const {
    return base + S::kQueries + (buffer * S::kConsumers + consumer) * S::kKeyBytes;
  }
  __device__ __forceinline__ std::uint32_t keys(int stage) const { return base + S::kKeys + stage * S::kKeyBytes; }
  __device__ __forceinline__ std::uint32_t values(int stage) const {
    return base + S::kValues + stage * S::kValueBytes;
  }

  __device__ __forceinline__ std::uint32_t keys_full(int stage) const { return barrier(stage); }
  __device__ __forceinline__ std::uint32_t keys_empty(int stage) const { return barrier(S::kStages + stage); }
  __device__ __forceinline__ std::uint32_t values_full(int stage) const { return barrier(2 * S::kStages + stage); }
  __device__ __forceinline__ std::uint32_t values_empty(int stage) const { return barrier(3 * S::kStages + stage); }
  /// The copy of a sequence's last, partial tile of V is done; `values_full` follows when its end is cleared.
  __device__ __forceinline__ std::uint32_t values_raw(int stage) const { return barrier(4 * S::kStages + stage); }
  __device__ __forceinline__ std::uint32_t queries_full(int buffer, int consumer) const {
    return barrier(5 * S::kStages + buffer * S::kConsumers + consumer);
  }
  __device__ __forceinline__ std::uint32_t queries_empty(int buffer, int consumer) const {
    return barrier(5 * S::kStages + (S::kQueryBuffers + buffer) * S::kConsumers + consumer);
  }

 private:
  __device__ __forceinline__ std::uint32_t barrier(int index) const { return base + S::kBarriers + 8 * index; }
};

/// A position in a ring of `kSize` slots, and the parity that its barriers have there.
template <int kSize>
struct RingPosition {
  int slot = 0;
  std::uint32_t parity = 0;

  __device__ __forceinline__ RingPosition next() const {
    return slot + 1 == kSize ? RingPosition{0, parity ^ 1} : RingPosition{slot + 1, parity};
  }
};

}  // namespace oriel::kernels::sm90
