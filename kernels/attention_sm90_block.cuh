// A block of the Hopper attention kernels: barriers, then a loader warpgroup and consumer warpgroups, each through the
// block's tiles.
#pragma once

#include "attention_sm90_consumer.cuh"
#include "attention_sm90_loader.cuh"
#include "launch.cuh"

namespace oriel::kernels::sm90 {

/// By one thread.
template <int kHeadDim>
__device__ __forceinline__ void init_barriers(const SharedMap<kHeadDim>& shared) {
  using S = Shape<kHeadDim>;
  constexpr int kWarps = 4;  // of a warpgroup: each arrives once
  for (int stage = 0; stage < S::kStages; ++stage) {
    barrier_init(shared.keys_full(stage), 1);
    barrier_init(shared.values_full(stage), 1);
    barrier_init(shared.values_raw(stage), 1);
    barrier_init(shared.keys_empty(stage), kWarps * S::kConsumers);
    barrier_init(shared.values_empty(stage), kWarps * S::kConsumers);
  }
  for (int buffer = 0; buffer < S::kQueryBuffers; ++buffer) {
    for (int consumer = 0; consumer < S::kConsumers; ++consumer) {
      barrier_init(shared.queries_full(buffer, consumer), 1);
      barrier_init(shared.queries_empty(buffer, consumer), kWarps);
    }
  }
  barrier_init_fence();
}

/// Shape::kThreads threads with Shape::kBytes of dynamic shared memory.
template <class T, int kHeadDim, class View>
__device__ __forceinline__ void attention_block(const Maps& maps, const Arguments<T, typename View::Tile>& arguments) {
  using S = Shape<kHeadDim>;
  extern __shared__ std::uint8_t memory[];
  const SharedMap<kHeadDim> shared{(shared_address(memory) + S::kAlignment - 1) &
                                   ~static_cast<std::uint32_t>(S::kAlignment - 1)};
  const std::int32_t* const first_tile = arguments.first_tile + blockIdx.x;
  const TileRange<typename View::Tile> range{arguments.tiles + __ldg(first_tile),
                                             arguments.tiles + __ldg(first_tile + 1)};
  if (threadIdx.x == 0) init_barriers(shared);
  let_next_kernel_begin();
  wait_for_kernels_before();
  __syncthreads();

  const int warpgroup = __shfl_sync(~0u, threadIdx.x / 128, 0);  // uniform for the compiler too
  if (warpgroup == S::kConsumers) {
    give_registers<S::kLoaderRegisters>();
    const Loader<kHeadDim, View> loader{maps, shared, range, arguments.heads};
    loader.run();
  } else {
    take_registers<S::kConsumerRegisters>();
    Consumer<T, kHeadDim, View> consumer(shared, warpgroup, arguments);
    consumer.run(range);
  }
}

}  // namespace oriel::kernels::sm90
