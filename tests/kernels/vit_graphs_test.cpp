// Graphs of a tower by themselves: which calls are replayed, and whose rows these give. The "tower" is one attention
// over the patches, read as packed q, k and v, so that rows depend on the segments, too.
#include "nn/cuda/vit_graphs.hpp"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDAGuard.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace oriel::nn {
namespace {

constexpr int64_t heads = 2;
constexpr int64_t head_dim = 64;
constexpr auto sizes = static_cast<int64_t>(VitGraphs::most_graphs) + 1;

class VitGraphsOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!at::hasCUDA() || at::detail::getCUDAHooks().deviceCount() == 0)
      GTEST_SKIP() << "no GPU with a working driver was found";
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
  /// One segment of a size of its own for every `index` from 0 to sizes - 1.
  static VitInput draw_size(int64_t index) { return draw({0, 64 * (index + 1)}); }

  static at::Tensor tower(const VitInput& input) {
    return ops::rotary_attention(input.patches.unflatten(1, {3, heads, head_dim}), {}, ops::RotaryPrecision::float32,
                                 input.segments);
  }

  /// Runs the input and compares with the tower; returns how many calls were replayed for it.
  int64_t run(const VitInput& input) {
    const int64_t before = graphs_.replays();
    const auto rows = graphs_.run(spec_, input, [&](VitInput small) {
      ++forwards_;
      return tower(small);
    });
    if (!rows) {
      ADD_FAILURE() << "expected rows, got a call to be run plainly";
      return -1;
    }
    EXPECT_TRUE(rows->equal(tower(input))) << input.patches.size(0) << " rows";
    return graphs_.replays() - before;
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

TEST_F(VitGraphsOnGpu, TheSizeUsedLeastRecentlyGivesWay) {
  for (int64_t size = 0; size < sizes; ++size) {
    EXPECT_EQ(run(draw_size(size)), 0);
    EXPECT_EQ(run(draw_size(size)), 1);
  }
  EXPECT_EQ(run(draw_size(1)), 1) << "kept";
  EXPECT_EQ(run(draw_size(0)), 0) << "given up for the last one; in its turn it takes the place of size 2";
  EXPECT_EQ(run(draw_size(1)), 1);
  EXPECT_EQ(run(draw_size(0)), 1);
  EXPECT_EQ(run(draw_size(2)), 0);
}

TEST_F(VitGraphsOnGpu, SizesThatComeAndGoForLongKeepTheirRows) {
  int64_t replays = 0;
  for (int64_t call = 0; call < 400; ++call) replays += run(draw_size(call * call % 13 + call / 40 % 3));
  EXPECT_EQ(replays, graphs_.replays());
  EXPECT_GT(replays, 300);
}

// Every graph is gone at once only where one takes the place of the last other one: the pool must begin anew.
TEST_F(VitGraphsOnGpu, GraphsBeginAnewAfterAllWereGivenUp) {
  for (int round = 0; round < 3; ++round) {
    EXPECT_EQ(run(draw_size(0)), 0);
    EXPECT_EQ(run(draw_size(0)), 1);
    for (int64_t size = 1; size < sizes; ++size) EXPECT_EQ(run(draw_size(size)), 0);  // none of them captured
  }
}

TEST_F(VitGraphsOnGpu, StreamsTakeTurns) {
  for (int round = 0; round < 20; ++round) {
    const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
    EXPECT_EQ(run(draw({0, 30 + round, 128})), round == 0 ? 0 : 1);
  }
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
