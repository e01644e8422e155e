#pragma once
#include <cstdint>
#include <functional>
#include <memory>

namespace oriel {

/// A fixed set of worker threads for loops over rows. Safe to use from many threads at once: the calling thread always
/// works too, so a call makes progress even if all workers are busy with other calls, and nested calls cannot deadlock.
class ThreadPool {
 public:
  /// `threads` counts the caller: 1 starts no worker. 0 means the number of hardware threads.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  [[nodiscard]] int size() const noexcept;

  /// Calls body(begin, end) for disjoint ranges that cover [0, count), each of at least `grain` items but the last.
  /// Returns when all have run; rethrows the first exception after the others have stopped.
  void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace oriel
