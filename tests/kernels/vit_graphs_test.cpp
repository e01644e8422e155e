// Graphs of a tower by themselves: which calls are replayed, and whose rows these give. The "tower" is one attention
// over the patches, read as packed q, k and v, so that rows depend on the segments, too.
#include "nn/cuda/vit_graphs.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/Sleep.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "kernels/gpu.hpp"
#include "kernels/memory_shortage.hpp"

namespace oriel::nn {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

constexpr int64_t heads = 2;
constexpr int64_t head_dim = 64;

class VitGraphsOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << no_gpu;
    spec_.patch_values = 3 * heads * head_dim;
    spec_.width = heads * head_dim;
    spec_.heads = heads;
  }

  static VitInput draw(std::vector<int64_t> bounds, at::ScalarType dtype = at::kBFloat16) {
    VitInput input;
    input.patches = at::randn({bounds.back(), 3 * heads * head_dim}, at::dtype(dtype).device(at::kCUDA));
    input.segments = ops::make_segments(std::move(bounds), {heads, head_dim, 0}, input.patches.device());
    return input;
  }
  /// One segment of a size of its own for every `index` from 0 to 15.
  static VitInput draw_size(int64_t index) { return draw({0, 64 * (index + 1)}); }

  static at::Tensor tower(const VitInput& input) {
    return ops::rotary_attention(input.patches.unflatten(1, {3, heads, head_dim}), {}, ops::RotaryPrecision::float32,
                                 input.segments);
  }

  /// Keeps the GPU from what is enqueued behind it for some 200 ms.
  static void stall() { at::cuda::sleep(400'000'000); }

  /// Pinned memory as calls want it, for libtorch to keep: while it were allocated, CUDA might wait for the GPU.
  static void prepare_pinned_memory() {
    std::vector<at::Tensor> blocks;
    for (int64_t bytes = 16; bytes <= 1 << 16; bytes *= 2)
      for (int i = 0; i < 24; ++i) blocks.push_back(at::empty({bytes}, at::dtype(at::kByte).pinned_memory(true)));
  }

  /// Runs the input and compares with the tower; returns how many calls were replayed for it.
  int64_t run(const VitInput& input) { return run(input, graphs_); }
  int64_t run(const VitInput& input, VitGraphs& graphs) {
    const int64_t before = graphs.replays();
    const std::optional<at::Tensor> rows = enqueue(input, graphs);
    if (!rows) {
      ADD_FAILURE() << "expected rows, got a call to be run plainly";
      return -1;
    }
    EXPECT_TRUE(rows->equal(tower(input))) << input.patches.size(0) << " rows";
    return graphs.replays() - before;
  }
  std::optional<at::Tensor> enqueue(const VitInput& input, VitGraphs& graphs) {
    return graphs.run(spec_, input, [&](VitInput small) {
      ++forwards_;
      return tower(small);
    });
  }
  static allocator::DeviceStats stats() { return allocator::getDeviceStats(0); }
  static int64_t reserved() {
    return stats().reserved_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].current;
  }
  static int64_t free_bytes() {
    size_t free = 0;
    size_t total = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    return static_cast<int64_t>(free);
  }

  const c10::InferenceMode guard_;
  VitSpec spec_;
  VitGraphs graphs_;
  int forwards_ = 0;
};

TEST_F(VitGraphsOnGpu, TheFirstCallOfASizeRunsPlainlyAndLaterOnesAreReplayed) {
  EXPECT_EQ(run(draw_size(0)), 0);
  EXPECT_EQ(run(draw_size(0)), 1);
  EXPECT_EQ(run(draw_size(0)), 1);
  EXPECT_EQ(forwards_, 2) << "one plain, one captured";
}

TEST_F(VitGraphsOnGpu, OtherSegmentsOfOneSizeAreReplayedAsTheirOwn) {
  const std::vector<std::vector<int64_t>> bounds{{0, 100, 250}, {0, 7, 249}, {0, 200, 251}};
  EXPECT_EQ(run(draw(bounds[0])), 0);
  for (int round = 0; round < 3; ++round)
    for (const auto& some : bounds) EXPECT_EQ(run(draw(some)), 1);
  EXPECT_EQ(forwards_, 2);
}

// What the size is rounded to, and what rows of nobody are added, makes no graph of its own.
TEST_F(VitGraphsOnGpu, SizesThatAreFullShareTheGraphOfThoseThatAreNot) {
  EXPECT_EQ(run(draw({0, 250})), 0);
  EXPECT_EQ(run(draw({0, 256})), 1);
  EXPECT_EQ(run(draw({0, 255})), 1);
}

TEST_F(VitGraphsOnGpu, ManySizesSettleWithoutAnAllocation) {
  for (const int64_t step : {1, 37, 59}) {  // in rising, mixed and falling order
    SCOPED_TRACE(step);
    constexpr int64_t count = 60;
    VitGraphs graphs;
    std::vector<VitInput> inputs;
    for (int64_t i = 0; i < count; ++i) inputs.push_back(draw({0, 64 + 67 * (i * step % count)}));
    allocator::emptyCache();
    const int64_t free_before = free_bytes();
    for (int round = 0; round < 2; ++round)
      for (const VitInput& input : inputs) EXPECT_TRUE(enqueue(input, graphs));
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    RecordProperty("bytes_of_60_sizes_in_order_" + std::to_string(step), std::to_string(free_before - free_bytes()));
    RecordProperty("counted_for_the_budget", std::to_string(graphs.graph_bytes()));
    const int64_t allocations = stats().num_device_alloc;
    const int64_t memory = reserved();
    const int64_t replays = graphs.replays();
    const int forwards = forwards_;
    for (int round = 0; round < 3; ++round)
      for (const VitInput& input : inputs) EXPECT_TRUE(enqueue(input, graphs));
    EXPECT_EQ(graphs.replays() - replays, 3 * count);
    EXPECT_EQ(forwards_, forwards) << "nothing is run plainly or captured any more";
    EXPECT_EQ(stats().num_device_alloc, allocations);
    EXPECT_EQ(reserved(), memory);
    for (const VitInput& input : inputs) EXPECT_EQ(run(input, graphs), 1);
  }
}

// Each size wants a block of its own as large as those of all smaller ones are not.
TEST_F(VitGraphsOnGpu, SizesInRisingOrderShareThePool) {
  constexpr int64_t columns = 16384;
  const auto wide = [](const VitInput& small) {
    (void)at::empty({small.patches.size(0), columns}, small.patches.options());
    return tower(small);
  };
  allocator::emptyCache();
  const int64_t before = reserved();
  for (int64_t rows = 2048 + 128; rows <= 4096; rows += 128)
    for (int call = 0; call < 2; ++call) EXPECT_TRUE(graphs_.run(spec_, draw({0, rows}), wide));
  EXPECT_EQ(graphs_.replays(), 16);
  allocator::emptyCache();
  constexpr int64_t largest = 4096 * columns * 2;
  EXPECT_LE(reserved() - before, 2 * largest + (int64_t{64} << 20)) << "the first size's block, and one for all others";
}

TEST_F(VitGraphsOnGpu, TheSizeUsedLeastRecentlyGivesWay) {
  int64_t budget = 0;
  {
    VitGraphs unbounded;
    for (const int64_t size : {1, 2, 3, 1, 2, 3}) (void)run(draw_size(size), unbounded);
    budget = unbounded.graph_bytes();
  }
  ASSERT_GT(budget, 0);
  VitGraphs graphs(budget);
  for (const int64_t size : {1, 2, 3, 1, 2, 3}) (void)run(draw_size(size), graphs);
  forwards_ = 0;
  const auto forwards_of = [&](int64_t size) {
    const int before = forwards_;
    EXPECT_EQ(run(draw_size(size), graphs), 1) << "size " << size;
    EXPECT_LE(graphs.graph_bytes(), budget);
    return forwards_ - before;
  };
  EXPECT_EQ(forwards_of(1), 0);
  EXPECT_EQ(run(draw_size(0), graphs), 0) << "a size that was seen once takes no graph's place";
  for (const int64_t size : {2, 3, 1}) EXPECT_EQ(forwards_of(size), 0);
  EXPECT_EQ(forwards_of(0), 1) << "captured, in the place of size 2";
  for (const int64_t size : {3, 1}) EXPECT_EQ(forwards_of(size), 0);
  EXPECT_EQ(forwards_of(2), 1) << "captured at once: its products are timed";
  EXPECT_EQ(forwards_of(0), 1);
}

TEST_F(VitGraphsOnGpu, SizesThatComeAndGoForLongKeepTheirRows) {
  for (const int64_t budget : {0, 1}) {  // as much as anyone wants; a single graph at a time
    SCOPED_TRACE(budget);
    VitGraphs graphs(budget);
    int64_t replays = 0;
    for (int64_t call = 0; call < 400; ++call) replays += run(draw_size(call * call % 13 + call / 40 % 3), graphs);
    EXPECT_EQ(replays, graphs.replays());
    EXPECT_GT(replays, 380);
  }
}

// What gives way may not have run yet: its segments, its launches and the room that all read are another call's then.
TEST_F(VitGraphsOnGpu, GraphsGiveWayWhileTheGpuIsBehind) {
  VitGraphs graphs(1);
  std::vector<VitInput> inputs;
  std::vector<at::Tensor> alone;
  for (const std::vector<int64_t>& bounds : {std::vector<int64_t>{0, 100, 250}, {0, 70, 500}, {0, 300, 1000}}) {
    inputs.push_back(draw(bounds));
    alone.push_back(tower(inputs.back()));
  }
  prepare_pinned_memory();
  for (int round = 0; round < 3; ++round) {
    stall();
    at::cuda::CUDAEvent begun;
    begun.record();
    std::vector<at::Tensor> rows;
    for (size_t call = 0; call < 9; ++call) {
      const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());  // each call's own
      begun.block(stream.current_stream());
      rows.push_back(enqueue(inputs[call % 3], graphs).value_or(at::Tensor()));
    }
    if (round > 1) {
      EXPECT_FALSE(begun.query()) << "the host was not to wait for the GPU";
    }
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    for (size_t call = 0; call < 9; ++call) {
      ASSERT_TRUE(rows[call].defined());
      EXPECT_TRUE(rows[call].equal(alone[call % 3])) << "call " << call << " of round " << round;
    }
  }
}

TEST_F(VitGraphsOnGpu, StreamsTakeTurns) {
  for (int round = 0; round < 20; ++round) {
    const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
    EXPECT_EQ(run(draw({0, 30 + round, 128})), round == 0 ? 0 : 1);
  }
}

/// Three layouts of the same rows: pictures of any length, or windows of at most 64 patches.
struct Layouts {
  std::vector<std::vector<int64_t>> bounds;
  int64_t longest_possible;
};

// The host is done with all calls before the GPU begins the first one: whatever a call wrote too early, or a kernel
// read too early, belongs to another call.
TEST_F(VitGraphsOnGpu, CallsInARowReadTheirOwnSegmentsHoweverLateTheGpuIs) {
  for (const Layouts& layouts :
       {Layouts{{{0, 100, 250}, {0, 7, 250}, {0, 200, 250}}, 0},
        Layouts{{{0, 64, 128, 192, 250}, {0, 30, 94, 150, 210, 250}, {0, 10, 60, 124, 188, 250}}, 64}}) {
    SCOPED_TRACE(layouts.longest_possible);
    const bool windowed = layouts.longest_possible > 0;
    const auto attend = [&](const VitInput& input) {
      return ops::rotary_attention(input.patches.unflatten(1, {3, heads, head_dim}), {}, ops::RotaryPrecision::float32,
                                   windowed ? input.window_segments : input.segments);
    };
    const VitInput whole = draw({0, 250});
    std::vector<VitInput> inputs;
    std::vector<at::Tensor> alone;
    for (const std::vector<int64_t>& bounds : layouts.bounds) {
      VitInput input = draw(windowed ? std::vector<int64_t>{0, 250} : bounds);
      input.patches = whole.patches;
      if (windowed)
        input.window_segments =
            ops::make_segments(bounds, {heads, head_dim, layouts.longest_possible}, input.patches.device());
      alone.push_back(attend(input));
      for (size_t i = 0; i + 1 < alone.size(); ++i)
        ASSERT_FALSE(alone[i].equal(alone.back())) << "another call's segments would not show";
      inputs.push_back(std::move(input));
    }
    VitGraphs graphs;
    prepare_pinned_memory();
    for (int round = 0; round < 3; ++round) {  // graph and memory for all calls are there from the second round on
      stall();
      at::cuda::CUDAEvent begun;
      begun.record();
      std::vector<at::Tensor> rows;
      for (size_t call = 0; call < 9; ++call)
        rows.push_back(graphs.run(spec_, inputs[call % 3], attend).value_or(at::Tensor()));
      if (round > 0) {
        EXPECT_FALSE(begun.query()) << "the GPU was to begin when all calls were enqueued";
      }
      for (size_t call = 0; call < 9; ++call) {
        ASSERT_TRUE(rows[call].defined());
        EXPECT_TRUE(rows[call].equal(alone[call % 3])) << "call " << call << " of round " << round;
      }
    }
    EXPECT_EQ(graphs.replays(), 3 * 9 - 1);
  }
}

// What the test above relies on: memory that the host writes anew behind a stalled GPU's back is read as it is last.
TEST_F(VitGraphsOnGpu, AStalledGpuReadsWhatTheHostWroteLast) {
  const at::Tensor staging = at::empty({1}, at::dtype(at::kLong).pinned_memory(true));
  stall();
  std::vector<at::Tensor> read;
  for (int64_t value = 0; value < 3; ++value) {
    staging.fill_(value);
    read.push_back(staging.to(at::kCUDA, /*non_blocking=*/true));
  }
  for (const at::Tensor& one : read) EXPECT_EQ(one.item<int64_t>(), 2);
}

TEST_F(VitGraphsOnGpu, WhatCannotBeCapturedIsLeftToTheCaller) {
  const VitInput input = draw_size(0);
  int calls = 0;
  const auto waits = [&](const VitInput& small) {
    ++calls;
    (void)small.patches.cpu();  // for the GPU, which no capture allows
    return tower(small);
  };
  EXPECT_TRUE(graphs_.run(spec_, input, waits).has_value()) << "the first one runs plainly";
  EXPECT_FALSE(graphs_.run(spec_, input, waits));
  EXPECT_FALSE(graphs_.run(spec_, input, waits)) << "and is not tried again";
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(run(draw_size(1)), 0);
  EXPECT_EQ(run(draw_size(1)), 1) << "other sizes are captured as before";
}

TEST_F(VitGraphsOnGpu, WhereMemoryLackedASizeIsCapturedLater) {
  const VitInput input = draw_size(0);
  bool is_full = true;
  int calls = 0;
  const auto forward = [&](const VitInput& small) {
    ++calls;
    if (is_full) run_out_of_memory_in_captures();
    return tower(small);
  };
  EXPECT_TRUE(graphs_.run(spec_, input, forward).has_value()) << "the first one runs plainly";
  EXPECT_FALSE(graphs_.run(spec_, input, forward)) << "no memory";
  EXPECT_EQ(calls, 3) << "a plain one, and a capture tried with all memory, too";
  is_full = false;
  for (int64_t call = 0; call < CaptureTurns::first_pause; ++call) {
    EXPECT_FALSE(graphs_.run(spec_, input, forward)) << "call " << call;
    EXPECT_FALSE(graphs_.has_graph(64, input));
  }
  EXPECT_EQ(calls, 3) << "not tried at every call";
  for (int64_t replayed = 1; replayed <= 3; ++replayed) {
    const auto rows = graphs_.run(spec_, input, forward);
    ASSERT_TRUE(rows.has_value());
    EXPECT_TRUE(rows->equal(tower(input)));
    EXPECT_EQ(graphs_.replays(), replayed);
  }
  EXPECT_EQ(calls, 4);
}

TEST_F(VitGraphsOnGpu, KnowsWhichArrangementsHaveAGraph) {
  const VitInput two = draw({0, 100, 250});
  EXPECT_FALSE(graphs_.has_graph(250, two));
  EXPECT_EQ(run(two), 0);
  EXPECT_FALSE(graphs_.has_graph(250, two)) << "it has run, and was not captured";
  EXPECT_EQ(run(two), 1);
  EXPECT_TRUE(graphs_.has_graph(250, two));
  EXPECT_TRUE(graphs_.has_graph(249, draw({0, 7, 249}))) << "of the same size, rounded up";
  EXPECT_FALSE(graphs_.has_graph(190, draw({0, 7, 190})));
  EXPECT_FALSE(graphs_.has_graph(250, draw({0, 50, 100, 150, 200, 250}))) << "more pictures than its rooms hold";
}

TEST_F(VitGraphsOnGpu, WhatHasNoGraphIsLeftToTheCaller) {
  const auto none = [](const VitInput& small) { return small.patches; };
  EXPECT_FALSE(graphs_.run(spec_, draw({0, VitGraphs::most_patches + 1}), none));
  EXPECT_FALSE(graphs_.run(spec_, draw({0, 64}, at::kFloat), none));
  VitInput empty;
  empty.patches = draw({0, 64}).patches.narrow(0, 0, 0);
  EXPECT_FALSE(graphs_.run(spec_, empty, none));
  EXPECT_EQ(graphs_.replays(), 0);
}

}  // namespace
}  // namespace oriel::nn
