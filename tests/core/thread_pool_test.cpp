#include "core/thread_pool.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/error.hpp"

namespace oriel {
namespace {

TEST(ThreadPool, CoversTheRangeExactlyOnce) {
  for (const int threads : {1, 2, 5}) {
    const ThreadPool pool(threads);
    for (const int64_t count : {1, 2, 7, 64, 1000}) {
      for (const int64_t grain : {1, 3, 1000}) {
        std::vector<std::atomic<int>> visits(static_cast<size_t>(count));
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (int64_t i = 0; i < count; ++i) {
          ASSERT_EQ(visits[static_cast<size_t>(i)], 1) << threads << " threads, grain " << grain << ", item " << i;
        }
      }
    }
  }
}

TEST(ThreadPool, RangesHoldAtLeastTheGrainButTheLast) {
  const ThreadPool pool(4);
  std::mutex mutex;
  std::vector<std::pair<int64_t, int64_t>> ranges;
  pool.parallel_for(103, 10, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    ranges.emplace_back(begin, end);
  });
  std::sort(ranges.begin(), ranges.end());
  EXPECT_GT(ranges.size(), 1U);
  for (size_t i = 0; i + 1 < ranges.size(); ++i) EXPECT_GE(ranges[i].second - ranges[i].first, 10);
  EXPECT_EQ(ranges.back().second, 103);
}

TEST(ThreadPool, AnEmptyRangeCallsNothing) {
  const ThreadPool pool(2);
  pool.parallel_for(0, 1, [](int64_t, int64_t) { FAIL() << "called for nothing"; });
}

TEST(ThreadPool, OneThreadIsTheCallerAlone) {
  const ThreadPool pool(1);
  EXPECT_EQ(pool.size(), 1);
  int calls = 0;
  pool.parallel_for(1000, 1, [&](int64_t begin, int64_t end) {
    EXPECT_EQ(begin, 0);
    EXPECT_EQ(end, 1000);
    ++calls;
  });
  EXPECT_EQ(calls, 1);
}

TEST(ThreadPool, ZeroMeansTheHardwareThreads) {
  EXPECT_EQ(ThreadPool(0).size(), std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
}

TEST(ThreadPool, WorkersReallyShareTheWork) {
  const ThreadPool pool(2);
  std::atomic<int> inside{0};
  // Each range waits for the other: only two threads can finish this.
  pool.parallel_for(2, 1, [&](int64_t, int64_t) {
    ++inside;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (inside < 2 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  });
  EXPECT_EQ(inside, 2);
}

TEST(ThreadPool, RethrowsAnExceptionAfterAllRangesHaveStopped) {
  for (const int threads : {1, 4}) {
    const ThreadPool pool(threads);
    std::atomic<int> running{0};
    try {
      pool.parallel_for(64, 1, [&](int64_t begin, int64_t end) {
        ++running;
        const bool holds_culprit = begin <= 11 && 11 < end;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        --running;
        if (holds_culprit) throw std::runtime_error("item 11");
      });
      FAIL() << "nothing was thrown with " << threads << " threads";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "item 11");
    }
    EXPECT_EQ(running, 0);
  }
}

TEST(ThreadPool, StaysUsableAfterAnException) {
  const ThreadPool pool(3);
  for (int round = 0; round < 50; ++round) {
    EXPECT_THROW(pool.parallel_for(9, 1, [](int64_t, int64_t) { throw std::runtime_error("always"); }),
                 std::runtime_error);
    std::atomic<int64_t> sum{0};
    pool.parallel_for(100, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
    ASSERT_EQ(sum, 100);
  }
}

TEST(ThreadPool, ManyCallersShareOnePool) {
  const ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int caller = 0; caller < 6; ++caller) {
    callers.emplace_back([&pool, &wrong, caller] {
      for (int round = 0; round < 100; ++round) {
        std::atomic<int64_t> sum{0};
        const int64_t count = 17 + caller + round;
        pool.parallel_for(count, 2, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) sum += i;
        });
        if (sum != count * (count - 1) / 2) ++wrong;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadPool, NestedCallsFinish) {
  const ThreadPool pool(3);
  std::atomic<int64_t> items{0};
  pool.parallel_for(8, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pool.parallel_for(10, 1, [&](int64_t inner_begin, int64_t inner_end) {
        pool.parallel_for(inner_end - inner_begin, 1, [&](int64_t b, int64_t e) { items += e - b; });
      });
    }
  });
  EXPECT_EQ(items, 80);
}

TEST(ThreadPool, RefusesNumbersThatMakeNoSense) {
  EXPECT_THAT([] { ThreadPool pool(-1); },
              testing::ThrowsMessage<Error>(testing::StrEq("threads: expected 0 or more, got -1")));
  const ThreadPool pool(1);
  const auto nothing = [](int64_t, int64_t) {};
  EXPECT_THAT([&] { pool.parallel_for(-1, 1, nothing); },
              testing::ThrowsMessage<Error>(testing::StrEq("parallel_for: expected a count of 0 or more, got -1")));
  EXPECT_THAT([&] { pool.parallel_for(1, 0, nothing); },
              testing::ThrowsMessage<Error>(testing::StrEq("parallel_for: expected a grain of 1 or more, got 0")));
}

}  // namespace
}  // namespace oriel
