#pragma once
// Many threads at once. The tests of this folder are what oriel does without libtorch, written for ThreadSanitizer
// (docs/testing.md) and held to single-threaded results in every build; those of tests/tower share the tool.
#include <gtest/gtest.h>

#include <barrier>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace oriel {

inline constexpr int thread_count = 8;

/// Runs `body(thread)` in threads that start together. What they throw fails the test.
inline void in_threads(const std::function<void(int)>& body) {
  std::barrier start(thread_count);
  std::vector<std::string> failures(thread_count);
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < thread_count; ++i)
      threads.emplace_back([&, i] {
        start.arrive_and_wait();
        try {
          body(i);
        } catch (const std::exception& error) {
          failures[static_cast<size_t>(i)] = error.what();
        }
      });
  }
  for (const std::string& failure : failures) EXPECT_EQ(failure, "");
}

/// For promises inside threads, where a failed EXPECT would not end the body.
inline void expect(bool holds, const std::string& promise) {
  if (!holds) throw std::runtime_error(promise);
}

}  // namespace oriel
