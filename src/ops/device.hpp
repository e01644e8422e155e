#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/core/StreamGuard.h>

#include <cstdint>
#include <limits>
#include <string>

namespace oriel::ops {

/// Bytes that a GPU still has for this process: free ones, and those that libtorch's allocator holds unused and not for
/// graphs. Where the latter are `enough` they alone are counted, and the driver is not asked. Waits for nothing. -1 on
/// the CPU, where nothing is known beforehand.
[[nodiscard]] int64_t available_bytes(c10::Device device, int64_t enough = std::numeric_limits<int64_t>::max());

/// A part of what libtorch's allocator holds on a GPU for graphs alone: unused, but nothing else gets it. It counts
/// while the value lives. Safe from many threads, each with values of its own.
class KeptForGraphs {
 public:
  explicit KeptForGraphs(c10::Device device) : device_(device) {}
  ~KeptForGraphs() { set(0); }
  KeptForGraphs(const KeptForGraphs&) = delete;
  KeptForGraphs& operator=(const KeptForGraphs&) = delete;

  void set(int64_t bytes);

 private:
  c10::Device device_;
  int64_t bytes_ = 0;
};

/// Ten times the major number and the minor one: 90 for an H100. 0 on the CPU.
[[nodiscard]] int compute_capability(c10::Device device);
/// Why this build's kernels do not run on a GPU, such as one that another process has for itself; empty if they do.
[[nodiscard]] std::string why_unusable(c10::Device device);
/// Why CUDA finds no GPU, such as "no NVIDIA driver is installed".
[[nodiscard]] std::string why_no_gpu();

/// What is at an address that kernels on a GPU can't read, such as "memory of cuda:1"; empty where they can: memory of
/// this GPU, which must be the current device, managed memory, and pinned host memory that is mapped at the address
/// itself. Asks the driver, and waits for nothing.
[[nodiscard]] std::string unreadable_memory(const void* address, c10::Device device);

/// libtorch's current stream of this thread on a GPU, or its stand-in on the CPU.
[[nodiscard]] c10::Stream current_stream(c10::Device device);

/// x on `device`: itself if it is there. From the CPU to a GPU it is copied behind what is enqueued there, out of
/// pinned memory that it is first copied to, so that the host goes on meanwhile and x may change.
[[nodiscard]] at::Tensor upload(const at::Tensor& x, c10::Device device);

/// While it lives, a cudaStream_t of the caller's is libtorch's current stream of this thread; null changes nothing.
/// Throws invalid_argument for a stream of another GPU, for cudaStreamPerThread, and for any stream where `device` is
/// the CPU.
class CallersStream {
 public:
  CallersStream(void* stream, c10::Device device);

 private:
  c10::OptionalStreamGuard guard_;
};

/// Waits until what was enqueued on the stream is done, or on the thread's current one for null. Nothing on the CPU.
void wait_for(void* stream, c10::Device device);

}  // namespace oriel::ops
