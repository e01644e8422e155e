#pragma once
// What the graphs of a tower and those of a decoder have in common: how launches become a graph, where its memory comes
// from, and when the rooms that it reads may be written anew.
#include <ATen/core/Tensor.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace oriel::nn {

/// Memory of graphs that never run at the same time: about as much as the largest of them needs.
class GraphPool;

/// What one forward enqueued, to be enqueued again by one launch.
class CapturedGraph {
 public:
  struct Destroy {
    void operator()(cudaGraphExec_t executable) const { (void)cudaGraphExecDestroy(executable); }
  };
  using Executable = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy>;

  CapturedGraph(std::shared_ptr<GraphPool> pool, Executable executable, at::Tensor result, int64_t launches)
      : pool_(std::move(pool)), executable_(std::move(executable)), result_(std::move(result)), launches_(launches) {}

  /// Enqueues it on libtorch's current stream.
  void replay();
  /// What a replay writes: what forward returned, until a graph of the same pool is replayed. Without hold of its
  /// memory.
  [[nodiscard]] const at::Tensor& result() const { return result_; }
  /// About what CUDA keeps for the launches on the GPU, which it does not tell: 64 kB for each up to CUDA 12.3, and
  /// taken to be an eighth of that later on.
  [[nodiscard]] int64_t launch_bytes() const;

 private:
  std::shared_ptr<GraphPool> pool_;
  Executable executable_;
  at::Tensor result_;
  int64_t launches_;
};

/// Captures graphs that share one pool, one after the other. The pool ends with the last graph that uses it: libtorch's
/// allocator takes no further capture into it then, and the next graph begins another. Of one thread at a time.
///
/// at::cuda::CUDAGraph does the same, but a capture that fails leaves libtorch's allocator and its generator of random
/// numbers for ever as if it went on, and while one lasts no other thread can draw random numbers on the GPU.
class GraphCaptures {
 public:
  explicit GraphCaptures(c10::Device device);
  ~GraphCaptures();
  GraphCaptures(const GraphCaptures&) = delete;
  GraphCaptures& operator=(const GraphCaptures&) = delete;

  /// What `forward` enqueues, as a graph, or null if it can't be captured or throws. It runs on a stream of its own,
  /// which is libtorch's current one meanwhile; other threads may go on allocating and launching. It draws no random
  /// numbers. Where memory runs out it runs once more, after libtorch's allocator has given back what it caches.
  [[nodiscard]] std::unique_ptr<CapturedGraph> capture(const std::function<at::Tensor()>& forward);
  /// Whether memory ran out in the last capture, which made no graph, whatever failed behind it.
  [[nodiscard]] bool memory_ran_out() const { return memory_ran_out_; }

 private:
  c10::Device device_;
  /// Of captures alone: what another thread enqueued here would be captured, too. One for all, since libtorch's
  /// allocator keeps a pool's blocks apart by stream.
  cudaStream_t stream_ = nullptr;
  std::weak_ptr<GraphPool> pool_;
  bool memory_ran_out_ = false;
};

/// Which calls of a size that has no graph are to be captured: the first, and after a capture that failed for want of
/// memory, which passes, another one some calls later, ever rarer up to one in longest_pause. What failed for any other
/// reason will fail again.
class CaptureTurns {
 public:
  static constexpr int64_t first_pause = 16;  ///< calls
  static constexpr int64_t longest_pause = 4096;

  /// To be asked once a call.
  [[nodiscard]] bool is_next() {
    if (!can_be_captured_) return false;
    if (waits_for_ == 0) return true;
    --waits_for_;
    return false;
  }
  void failed(bool memory_ran_out) {
    can_be_captured_ = memory_ran_out;
    waits_for_ = pause_;
    pause_ = std::min(2 * pause_, longest_pause);
  }

 private:
  bool can_be_captured_ = true;
  int64_t waits_for_ = 0;
  int64_t pause_ = first_pause;
};

/// Records the event on the stream when it ends, whatever happened.
class RecordAtEnd {
 public:
  RecordAtEnd(at::cuda::CUDAEvent& event, c10::cuda::CUDAStream stream) : event_(event), stream_(stream) {}
  ~RecordAtEnd();
  RecordAtEnd(const RecordAtEnd&) = delete;
  RecordAtEnd& operator=(const RecordAtEnd&) = delete;

 private:
  at::cuda::CUDAEvent& event_;
  c10::cuda::CUDAStream stream_;
};

/// The last use of the rooms that graphs read, on whatever stream. Its end waits for it: a member behind the rooms
/// keeps them until then.
class LastUse {
 public:
  LastUse() = default;
  ~LastUse();
  LastUse(const LastUse&) = delete;
  LastUse& operator=(const LastUse&) = delete;

  /// The calling thread waits for it.
  void wait() const { event_.synchronize(); }
  /// What is enqueued on the stream from here on waits for it.
  void block(c10::cuda::CUDAStream stream);
  /// What is enqueued on the stream while the result lives is the last use.
  [[nodiscard]] RecordAtEnd on(c10::cuda::CUDAStream stream) { return {event_, stream}; }

 private:
  at::cuda::CUDAEvent event_;
};

}  // namespace oriel::nn
