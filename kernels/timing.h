#pragma once
// Times work on a GPU, to choose the fastest of several ways to one result.
#include <cuda_runtime_api.h>

#include <cfloat>
#include <cstdint>
#include <functional>
#include <vector>

namespace oriel::kernels {

/// A pair of events that times what is enqueued between them.
class Stopwatch {
 public:
  Stopwatch() {
    if (cudaEventCreate(&begin_) != cudaSuccess) begin_ = nullptr;
    if (cudaEventCreate(&end_) != cudaSuccess) end_ = nullptr;
  }
  ~Stopwatch() {
    if (begin_ != nullptr) cudaEventDestroy(begin_);
    if (end_ != nullptr) cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;

  /// Milliseconds of work(), or FLT_MAX if it failed, which leaves no error behind. The calling thread waits.
  template <typename Work>
  float time(Work&& work, cudaStream_t stream) {
    float milliseconds = FLT_MAX;
    if (cudaEventRecord(begin_, stream) != cudaSuccess || work() != cudaSuccess ||
        cudaEventRecord(end_, stream) != cudaSuccess || cudaEventSynchronize(end_) != cudaSuccess ||
        cudaEventElapsedTime(&milliseconds, begin_, end_) != cudaSuccess) {
      (void)cudaGetLastError();
      return FLT_MAX;
    }
    return milliseconds;
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

/// Enqueues one way to make a product, with its weight read from `weight`.
using Way = std::function<cudaError_t(const void* weight, cudaStream_t stream)>;

/// Milliseconds of each way as it runs in a tower's small call: in a CUDA graph, behind others, what it reads from the
/// kernel before it in the L2 cache and its weight of `bytes` not. That takes copies of the weight, of twice the
/// cache's size, which are gone on return. FLT_MAX for a way that fails, and for all where that is more than a quarter
/// of the device's free memory.
///
/// Not while `stream` is being captured. What was enqueued there comes first; the calling thread waits.
std::vector<float> time_as_in_tower(const std::vector<Way>& ways, const void* weight, int64_t bytes,
                                    cudaStream_t stream);

}  // namespace oriel::kernels
