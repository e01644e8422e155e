#include "core/thread_pool.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace oriel {
namespace {

/// More ranges than threads, so that a thread that was held up does not leave the others waiting for its share.
constexpr int64_t ranges_per_thread = 4;

/// One call of parallel_for. Workers may look at it after the call has returned, but then find no range left and do not
/// touch `body`, which lives on the caller's stack.
class Loop {
 public:
  Loop(int64_t count, int64_t step, const std::function<void(int64_t, int64_t)>& body)
      : count_(count), step_(step), ranges_((count - 1) / step + 1), body_(body) {}

  [[nodiscard]] bool is_exhausted() const { return next_.load(std::memory_order_relaxed) >= ranges_; }

  /// Takes ranges until none is left.
  void work() {
    for (;;) {
      const int64_t range = next_.fetch_add(1, std::memory_order_relaxed);
      if (range >= ranges_) return;
      if (!failed_.load(std::memory_order_relaxed)) run(range);
      const std::lock_guard lock(mutex_);
      if (++finished_ == ranges_) all_finished_.notify_all();
    }
  }

  void wait() {
    std::unique_lock lock(mutex_);
    all_finished_.wait(lock, [this] { return finished_ == ranges_; });
    // The exception leaves with the caller: a worker may be the last to hold this loop, and the caller reads the
    // exception without a lock.
    const std::exception_ptr error = std::exchange(error_, nullptr);
    lock.unlock();
    if (error) std::rethrow_exception(error);
  }

 private:
  void run(int64_t range) {
    const int64_t begin = range * step_;
    try {
      body_(begin, begin + std::min(step_, count_ - begin));
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
      failed_.store(true, std::memory_order_relaxed);
    }
  }

  const int64_t count_;
  const int64_t step_;
  const int64_t ranges_;
  const std::function<void(int64_t, int64_t)>& body_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::condition_variable all_finished_;
  int64_t finished_ = 0;
  std::exception_ptr error_;
};

}  // namespace

struct ThreadPool::State {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::shared_ptr<Loop>> loops;
  bool stopping = false;
  std::vector<std::thread> workers;

  ~State() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    for (std::thread& worker : workers) worker.join();
  }

  void serve() {
    for (;;) {
      std::shared_ptr<Loop> loop;
      {
        std::unique_lock lock(mutex);
        changed.wait(lock, [this] { return stopping || !loops.empty(); });
        if (stopping) return;
        loop = loops.front();
        if (loop->is_exhausted()) {
          loops.pop_front();
          continue;
        }
      }
      loop->work();
    }
  }

  void forget(const std::shared_ptr<Loop>& loop) {
    const std::lock_guard lock(mutex);
    std::erase(loops, loop);
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads < 0) throw_error(ErrorCode::invalid_argument, "threads: expected 0 or more, got {}", threads);
  if (threads == 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  try {
    for (int i = 1; i < threads; ++i) state_->workers.emplace_back([state = state_.get()] { state->serve(); });
  } catch (const std::system_error& error) {
    throw_error(ErrorCode::unavailable, "threads: expected {} threads, the system started {} ({})", threads,
                state_->workers.size() + 1, error.what());
  }
}

ThreadPool::~ThreadPool() = default;

int ThreadPool::size() const noexcept { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t count, int64_t grain,
                              const std::function<void(int64_t begin, int64_t end)>& body) const {
  if (count < 0) throw_error(ErrorCode::invalid_argument, "parallel_for: expected a count of 0 or more, got {}", count);
  if (grain < 1) throw_error(ErrorCode::invalid_argument, "parallel_for: expected a grain of 1 or more, got {}", grain);
  if (count == 0) return;
  if (size() == 1 || count <= grain) return body(0, count);

  const int64_t wanted_ranges = ranges_per_thread * size();
  const int64_t step = std::max(grain, (count - 1) / wanted_ranges + 1);
  const auto loop = std::make_shared<Loop>(count, step, body);
  {
    const std::lock_guard lock(state_->mutex);
    state_->loops.push_back(loop);
  }
  state_->changed.notify_all();
  loop->work();
  state_->forget(loop);
  loop->wait();
}

}  // namespace oriel
