#include "timing.h"

#include <algorithm>
#include <cstddef>

namespace oriel::kernels {
namespace {

constexpr int rounds = 3;  // of every graph, of which the fastest counts
constexpr int64_t least_calls = 8;
constexpr int64_t most_calls = 32;  // of a way in its graph

/// Copies of a weight that together are more than the L2 cache holds, where one is not. They take at most a quarter of
/// the memory that is free.
class Copies {
 public:
  Copies(const void* weight, int64_t bytes, int64_t most, cudaStream_t stream)
      : weight_(weight), stride_((bytes + 255) / 256 * 256), stream_(stream) {
    int cache = 0;
    if (cudaGetDevice(&device_) != cudaSuccess ||
        cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device_) != cudaSuccess)
      return;
    count_ = std::clamp<int64_t>((2 * int64_t{cache} + stride_ - 1) / stride_, 1, most);
    if (bytes > cache) count_ = 1;  // each product reads it anew
    ready_ = count_ == 1 || (has_room() && fill(static_cast<size_t>(bytes)));
  }
  ~Copies() {
    if (memory_ != nullptr) {
      (void)cudaFreeAsync(memory_, stream_);
      (void)cudaStreamSynchronize(stream_);
    }
    if (pool_ != nullptr) (void)cudaMemPoolDestroy(pool_);
  }
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  [[nodiscard]] bool ready() const { return ready_; }
  [[nodiscard]] int64_t count() const { return count_; }
  /// One after the other.
  const void* next() {
    const int64_t at = next_++ % count_;
    return memory_ == nullptr ? weight_ : static_cast<const std::byte*>(memory_) + at * stride_;
  }

 private:
  [[nodiscard]] bool has_room() const {
    size_t free = 0;
    size_t total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess && count_ * stride_ <= static_cast<int64_t>(free / 4);
  }
  /// In a pool of its own, which ends with it: what is freed in the device's default pool the process may have told it
  /// to keep.
  bool fill(size_t bytes) {
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device_;
    if (cudaMemPoolCreate(&pool_, &properties) != cudaSuccess) {
      pool_ = nullptr;
      return false;
    }
    if (cudaMallocFromPoolAsync(&memory_, static_cast<size_t>(count_ * stride_), pool_, stream_) != cudaSuccess) {
      memory_ = nullptr;
      return false;
    }
    for (int64_t i = 0; i < count_; ++i)
      if (cudaMemcpyAsync(static_cast<std::byte*>(memory_) + i * stride_, weight_, bytes, cudaMemcpyDeviceToDevice,
                          stream_) != cudaSuccess)
        return false;
    return true;
  }

  const void* weight_;
  int64_t stride_;
  cudaStream_t stream_;
  int device_ = 0;
  cudaMemPool_t pool_ = nullptr;
  void* memory_ = nullptr;
  int64_t count_ = 1;
  int64_t next_ = 0;
  bool ready_ = false;
};

/// A way's calls, ready to be launched together; captured on a stream of its own, which the caller's may not be.
class Calls {
 public:
  Calls(const Way& way, int64_t count, Copies& copies) {
    if (count == 0) return;
    cudaStream_t stream = nullptr;
    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) return;
    cudaGraph_t graph = nullptr;
    if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess) {
      cudaError_t error = cudaSuccess;
      for (int64_t i = 0; i < count && error == cudaSuccess; ++i) error = way(copies.next(), stream);
      if (const cudaError_t ended = cudaStreamEndCapture(stream, &graph); error == cudaSuccess) error = ended;
      if (error != cudaSuccess || cudaGraphInstantiate(&executable_, graph, 0) != cudaSuccess) executable_ = nullptr;
    }
    if (graph != nullptr) (void)cudaGraphDestroy(graph);
    (void)cudaStreamDestroy(stream);
  }
  ~Calls() {
    if (executable_ != nullptr) (void)cudaGraphExecDestroy(executable_);
  }
  Calls(Calls&& other) noexcept : executable_(other.executable_) { other.executable_ = nullptr; }
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;
  Calls& operator=(Calls&&) = delete;

  [[nodiscard]] bool ready() const { return executable_ != nullptr; }
  cudaError_t launch(cudaStream_t stream) const { return cudaGraphLaunch(executable_, stream); }

 private:
  cudaGraphExec_t executable_ = nullptr;
};

}  // namespace

std::vector<float> time_as_in_tower(const std::vector<Way>& ways, const void* weight, int64_t bytes,
                                    cudaStream_t stream) {
  std::vector<float> best(ways.size(), FLT_MAX);
  if (ways.empty()) return best;
  const auto count = static_cast<int64_t>(ways.size());
  Copies copies(weight, bytes, most_calls * count, stream);
  std::vector<Calls> calls;
  if (copies.ready()) {
    // The graphs are launched in turn: when one comes again, the others have read enough to displace what it reads.
    int64_t each = least_calls;
    while (each < most_calls && each * count < copies.count()) ++each;
    calls.reserve(ways.size());
    for (const Way& way : ways) calls.emplace_back(way, way(weight, stream) == cudaSuccess ? each : 0, copies);
    Stopwatch stopwatch;
    for (int round = 0; round < rounds; ++round)
      for (size_t i = 0; i < ways.size(); ++i)
        if (calls[i].ready())
          best[i] = std::min(best[i], stopwatch.time([&] { return calls[i].launch(stream); }, stream));
    for (float& milliseconds : best)
      if (milliseconds < FLT_MAX) milliseconds /= static_cast<float>(each);
  }
  (void)cudaGetLastError();  // of what failed: the caller has another choice
  return best;
}

}  // namespace oriel::kernels
