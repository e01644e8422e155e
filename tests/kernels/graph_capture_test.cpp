// What becomes of captures: graphs that do again what was recorded, and nothing at all where that can't be, without a
// trace in libtorch's allocator or generator. And what their memory is to calls that ask how much there is.
#include "nn/cuda/graph_capture.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/cuda/Sleep.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include "kernels/gpu.hpp"
#include "ops/device.hpp"

namespace oriel::nn {
namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

constexpr int64_t large = int64_t{512} << 20;  ///< bytes: far more than other memory of these tests
constexpr int64_t slack =
    int64_t{64} << 20;  ///< bytes: segments of libtorch's allocator, and what a graph itself takes

class GraphCaptureOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << no_gpu;
    captures_ = std::make_unique<GraphCaptures>(device_);
    input_ = at::full({3}, 2, at::dtype(at::kLong).device(device_));
  }

  static at::Tensor bytes(int64_t count) { return at::empty({count}, at::dtype(at::kByte).device(at::kCUDA)); }
  [[nodiscard]] at::Tensor square() const { return input_ * input_; }
  /// What libtorch's allocator can't give back.
  static int64_t reserved() {
    allocator::emptyCache();
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return allocator::getDeviceStats(0).reserved_bytes[all].current;
  }
  int64_t available() {
    allocator::emptyCache();
    return ops::available_bytes(device_);
  }
  void expect_works() {
    const auto graph = captures_->capture([&] { return square(); });
    ASSERT_NE(graph, nullptr);
    for (const int64_t value : {3, 4}) {
      input_.fill_(value);
      graph->replay();
      EXPECT_EQ(graph->result()[2].item<int64_t>(), value * value);
    }
  }
  /// A capture that allocates much, then does what keeps it from becoming a graph.
  void expect_refused(const std::function<void()>& spoil) {
    const auto graph = captures_->capture([&] {
      const at::Tensor memory = bytes(large);
      at::Tensor result = square();
      spoil();
      return result;
    });
    EXPECT_EQ(graph, nullptr);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    EXPECT_NO_THROW((void)at::randn({5}, at::dtype(at::kFloat).device(device_)));
  }
  void expect_no_trace_of(const std::function<void()>& spoil) {
    const int64_t before = reserved();
    expect_refused(spoil);
    EXPECT_LE(reserved(), before);
    expect_works();
  }

  const c10::InferenceMode guard_;
  const c10::Device device_{at::kCUDA, 0};
  std::unique_ptr<GraphCaptures> captures_;
  at::Tensor input_;
};

TEST_F(GraphCaptureOnGpu, AGraphDoesAgainWhatForwardDid) {
  expect_works();
  expect_works();  // in a pool of its own: the first graph is gone, and its pool with it
}

TEST_F(GraphCaptureOnGpu, GraphsOfOnePoolGiveTheirOwnResults) {
  const auto first = captures_->capture([&] { return square(); });
  const auto second = captures_->capture([&] { return square() + bytes(large).numel(); });
  const auto third = captures_->capture([&] { return square() + 1; });
  const auto result = [](const auto& graph) {
    graph->replay();
    return graph->result()[0].template item<int64_t>();
  };
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(result(first), 4);
    EXPECT_EQ(result(second), 4 + large);
    EXPECT_EQ(result(third), 5);
  }
}

TEST_F(GraphCaptureOnGpu, AForwardThatThrowsLeavesNoTrace) {
  expect_no_trace_of([] { throw std::runtime_error("thrown by forward"); });
}

TEST_F(GraphCaptureOnGpu, ACaptureThatCudaRefusesLeavesNoTrace) {
  expect_no_trace_of([&] { (void)input_.cpu(); });  // waits for the GPU
}

TEST_F(GraphCaptureOnGpu, GraphsOutliveCapturesThatFailBesideThem) {
  const int64_t before = reserved();
  auto graph = captures_->capture([&] { return square(); });
  expect_refused([] { throw std::runtime_error("thrown by forward"); });
  expect_refused([&] { (void)input_.cpu(); });
  expect_works();
  input_.fill_(7);
  graph->replay();
  EXPECT_EQ(graph->result()[0].item<int64_t>(), 49);
  graph.reset();
  EXPECT_LE(reserved(), before) << "the pool ends with its last graph";
}

TEST_F(GraphCaptureOnGpu, OtherThreadsAllocateAndDrawMeanwhile) {
  const auto graph = captures_->capture([&] {
    std::thread other(
        [] { EXPECT_NO_THROW(EXPECT_TRUE(at::randn({1 << 20}, at::dtype(at::kFloat).device(at::kCUDA)).defined())); });
    other.join();
    return square();
  });
  ASSERT_NE(graph, nullptr);
  graph->replay();
  EXPECT_EQ(graph->result()[0].item<int64_t>(), 4);
}

/// Has the GPU for itself: what others take would show.
class PlannedMemoryOfGraphs : public GraphCaptureOnGpu {};

TEST_F(PlannedMemoryOfGraphs, WhatIsKeptForGraphsIsNotAvailable) {
  const int64_t before = available();
  auto graph = captures_->capture([&] {
    (void)bytes(large);
    return square();
  });
  const int64_t meanwhile = available();
  EXPECT_LE(meanwhile, before - large);
  EXPECT_GE(meanwhile, before - large - slack);
  EXPECT_NO_THROW((void)bytes(meanwhile - large / 2)) << "what is available can be had";
  allocator::emptyCache();
  graph.reset();
  EXPECT_GE(available(), before - slack);
}

TEST_F(PlannedMemoryOfGraphs, MemoryThatIsCachedForOthersIsGivenToAGraphThatNeedsIt) {
  allocator::emptyCache();
  size_t free = 0;
  size_t total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  {
    const at::Tensor taken = bytes(static_cast<int64_t>(free) - large - large / 2);
    (void)bytes(large);  // stays cached, and leaves no room for as much again
    EXPECT_NE(captures_->capture([&] {
      (void)bytes(large);
      return square();
    }),
              nullptr);
  }
  allocator::emptyCache();
}

TEST_F(PlannedMemoryOfGraphs, ThatRanOutIsSaid) {
  const auto needs_much = [&] {
    (void)bytes(large);
    return square();
  };
  allocator::emptyCache();
  size_t free = 0;
  size_t total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  {
    const at::Tensor taken = bytes(static_cast<int64_t>(free) - large / 2);
    EXPECT_EQ(captures_->capture(needs_much), nullptr);
    EXPECT_TRUE(captures_->memory_ran_out());
  }
  allocator::emptyCache();
  EXPECT_NE(captures_->capture(needs_much), nullptr);
  EXPECT_FALSE(captures_->memory_ran_out());
  expect_refused([] { throw std::runtime_error("thrown by forward"); });
  EXPECT_FALSE(captures_->memory_ran_out());
}

TEST(CaptureTurns, AfterWantOfMemoryPausesGrowToALimit) {
  CaptureTurns turns;
  EXPECT_TRUE(turns.is_next());
  int64_t expected = CaptureTurns::first_pause;
  for (int failure = 0; failure < 12; ++failure) {
    turns.failed(/*memory_ran_out=*/true);
    int64_t pause = 0;
    while (!turns.is_next()) ++pause;
    EXPECT_EQ(pause, expected);
    EXPECT_TRUE(turns.is_next()) << "until it fails again";
    expected = std::min(2 * expected, CaptureTurns::longest_pause);
  }
  EXPECT_EQ(expected, CaptureTurns::longest_pause);
}

TEST(CaptureTurns, WhatCannotBeCapturedHasNoOther) {
  CaptureTurns turns;
  turns.failed(/*memory_ran_out=*/false);
  for (int64_t call = 0; call < 2 * CaptureTurns::longest_pause; ++call) ASSERT_FALSE(turns.is_next());
}

TEST_F(PlannedMemoryOfGraphs, ResultsTakeTheSame) {
  const auto first = captures_->capture([&] { return bytes(large).fill_(1); });
  const int64_t before = available();
  const auto second = captures_->capture([&] { return bytes(large).fill_(2); });
  EXPECT_GE(available(), before - slack);
  for (const auto& [graph, value] : {std::pair{&first, 1}, std::pair{&second, 2}, std::pair{&first, 1}}) {
    ASSERT_NE(*graph, nullptr);
    (*graph)->replay();
    EXPECT_EQ((*graph)->result()[large - 1].item<uint8_t>(), value);
  }
}

TEST_F(GraphCaptureOnGpu, TheLastUseOfRoomsIsWaitedFor) {
  const auto stream = c10::cuda::getStreamFromPool();
  const c10::cuda::CUDAStreamGuard guard(stream);
  {
    LastUse rooms;
    EXPECT_THROW(
        {
          const RecordAtEnd record = rooms.on(stream);
          at::cuda::sleep(400'000'000);
          throw std::runtime_error("while the rooms are in use");
        },
        std::runtime_error);
    EXPECT_FALSE(stream.query());
  }
  EXPECT_TRUE(stream.query());
}

}  // namespace
}  // namespace oriel::nn
