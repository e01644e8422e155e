// Timing products takes memory for a moment: it goes back to the device, and is never much of what is free.
#include "timing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/gpu.hpp"
#include "kernels/pixels_on_device.hpp"

namespace oriel::kernels {
namespace {

constexpr int64_t weight_bytes = int64_t{1} << 20;
constexpr int64_t slack = int64_t{8} << 20;  // what CUDA takes of its own for graphs and events

class PlannedMemoryOfCopies : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << no_gpu;
  }
  static int64_t free_bytes() {
    size_t free = 0;
    size_t total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<int64_t>(free);
  }
  /// Two ways to read a weight.
  static std::vector<float> time() {
    const DeviceBytes weight(weight_bytes);
    const DeviceBytes to(weight_bytes);
    const auto way = [&](int64_t bytes) {
      return [&to, bytes](const void* from, cudaStream_t stream) {
        return cudaMemcpyAsync(to.data(), from, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice, stream);
      };
    };
    return time_as_in_tower({way(weight_bytes), way(weight_bytes / 2)}, weight.data(), weight_bytes, nullptr);
  }
};

TEST_F(PlannedMemoryOfCopies, GoesBackWhateverTheDefaultPoolKeeps) {
  cudaMemPool_t pool = nullptr;
  ASSERT_EQ(cudaDeviceGetDefaultMemPool(&pool, 0), cudaSuccess);
  uint64_t before = 0;
  ASSERT_EQ(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &before), cudaSuccess);
  uint64_t all = UINT64_MAX;
  ASSERT_EQ(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all), cudaSuccess);
  (void)time();  // loads what CUDA loads lazily
  const int64_t free = free_bytes();
  for (const float milliseconds : time()) EXPECT_LT(milliseconds, 100.0F);
  EXPECT_GE(free_bytes(), free - slack);
  EXPECT_EQ(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &before), cudaSuccess);
}

TEST_F(PlannedMemoryOfCopies, IsNotTakenWhereLittleIsFree) {
  (void)time();
  const int64_t left = int64_t{64} << 20;  // a quarter of it is less than twice any L2 cache that copies are made for
  const DeviceBytes taken(static_cast<size_t>(free_bytes() - left));
  const std::vector<float> times = time();
  EXPECT_TRUE(std::all_of(times.begin(), times.end(), [](float milliseconds) { return milliseconds == FLT_MAX; }));
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
}

}  // namespace
}  // namespace oriel::kernels
