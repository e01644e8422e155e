#include "ops/parallel.hpp"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

namespace oriel::ops {
namespace {

TEST(Parallel, EveryItemIsMetOnce) {
  for (const int64_t count : {0, 1, 2, 7, 64, 1000, 100'003})
    for (const int64_t grain : {1, 3, 64, 100'000}) {
      std::vector<std::atomic<int>> met(static_cast<size_t>(count));
      parallel_for(count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++met[static_cast<size_t>(i)];
      });
      for (const std::atomic<int>& times : met) ASSERT_EQ(times, 1) << count << " by " << grain;
    }
}

TEST(Parallel, RunsOnAsManyThreadsAsLibtorchHas) {
  std::mutex mutex;
  std::set<std::thread::id> threads;
  parallel_for(at::get_num_threads() * 4, 1, [&](int64_t, int64_t) {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), static_cast<size_t>(at::get_num_threads()));
}

TEST(Parallel, WhatIsThrownArrives) {
  EXPECT_THROW(parallel_for(1000, 1, [](int64_t, int64_t) { throw std::runtime_error("no"); }), std::runtime_error);
}

}  // namespace
}  // namespace oriel::ops
