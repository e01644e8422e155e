#include "ops/device.hpp"

#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <array>
#include <atomic>
#include <limits>
#include <utility>

#include "core/error.hpp"

#ifdef ORIEL_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include "ops/cuda/launch.hpp"
#endif

namespace oriel::ops {
namespace {

/// By index of the GPU. libtorch's allocator knows it too, but asking takes a walk over all of its blocks.
std::array<std::atomic<int64_t>, std::numeric_limits<c10::DeviceIndex>::max() + 1> kept_for_graphs{};

std::atomic<int64_t>& kept_on(c10::Device device) { return kept_for_graphs.at(static_cast<size_t>(device.index())); }

}  // namespace

void KeptForGraphs::set(int64_t bytes) { kept_on(device_) += bytes - std::exchange(bytes_, bytes); }

int64_t available_bytes([[maybe_unused]] c10::Device device, [[maybe_unused]] int64_t enough) {
#ifdef ORIEL_CUDA
  if (device.is_cuda()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const int64_t unused =
        stats.reserved_bytes[all].current - stats.allocated_bytes[all].current - kept_on(device).load();
    if (unused >= enough) return unused;
    size_t free = 0;
    size_t total = 0;
    cuda::check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return static_cast<int64_t>(free) + unused;
  }
#endif
  return -1;
}

int compute_capability([[maybe_unused]] c10::Device device) {
#ifdef ORIEL_CUDA
  if (device.is_cuda()) {
    const cuda::Chip chip = cuda::chip_of(device);
    return 10 * chip.major + chip.minor;
  }
#endif
  return 0;
}

std::string why_unusable([[maybe_unused]] c10::Device device) {
#ifdef ORIEL_CUDA
  int before = 0;
  cudaError_t error = cudaGetDevice(&before);
  if (error == cudaSuccess) error = cudaSetDevice(device.index());
  if (error == cudaSuccess) {
    error = kernels::has_code();
    (void)cudaSetDevice(before);
  }
  (void)cudaGetLastError();  // said here, and not to be found again by the next launch
  if (error != cudaSuccess && error != cudaErrorNotSupported) return cudaGetErrorString(error);
  const int capability = compute_capability(device);
  if (capability < 80)
    return fmt::format("expected compute capability 8.0 or higher, got {}.{}", capability / 10, capability % 10);
  if (error == cudaErrorNotSupported)
    return fmt::format("this build of oriel has no kernels for compute capability {}.{} (ORIEL_CUDA_ARCHITECTURES)",
                       capability / 10, capability % 10);
  return {};
#else
  return "this build of oriel runs on the CPU only";
#endif
}

std::string why_no_gpu() {
#ifdef ORIEL_CUDA
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  (void)cudaGetLastError();  // said here, and not to be found again by the next launch
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) return "no NVIDIA driver is installed";
  if (error == cudaErrorInsufficientDriver)
    return fmt::format("the driver is for CUDA {}.{}, this build of oriel for CUDA {}.{}", driver / 1000,
                       driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  return error == cudaSuccess ? "CUDA finds some, libtorch none" : cudaGetErrorString(error);
#else
  return "this build of oriel runs on the CPU only";
#endif
}

std::string unreadable_memory([[maybe_unused]] const void* address, [[maybe_unused]] c10::Device device) {
#ifdef ORIEL_CUDA
  cudaPointerAttributes found{};
  const cudaError_t error = cudaPointerGetAttributes(&found, address);
  if (error == cudaErrorInvalidValue) {
    (void)cudaGetLastError();  // said here, and not to be found again by the next launch
    found.type = cudaMemoryTypeUnregistered;
  } else {
    cuda::check(error, "cudaPointerGetAttributes");
  }
  switch (found.type) {
    case cudaMemoryTypeDevice:  // another GPU's may be mapped by some other library of the process: not relied on
      return found.device == device.index() ? std::string() : fmt::format("memory of cuda:{}", found.device);
    case cudaMemoryTypeManaged:
      return {};
    case cudaMemoryTypeHost:
      return found.devicePointer == address ? std::string() : "pinned host memory that is mapped elsewhere";
    default:
      return "host memory, or none that CUDA knows";
  }
#else
  return "memory of a GPU, in a build that has none";
#endif
}

#ifdef ORIEL_CUDA
namespace {

void check_device_of([[maybe_unused]] cudaStream_t stream, [[maybe_unused]] c10::Device device) {
#if CUDART_VERSION >= 12080  // older ones can't say
  int found = 0;
  if (const cudaError_t error = cudaStreamGetDevice(stream, &found); error != cudaSuccess) {
    (void)cudaGetLastError();  // thrown here, and not to be found again by the next launch
    throw_error(ErrorCode::invalid_argument, "stream: expected a CUDA stream of cuda:{}: {}", int{device.index()},
                cudaGetErrorString(error));
  }
  if (found != device.index())
    throw_error(ErrorCode::invalid_argument, "stream: expected one of cuda:{}, got one of cuda:{}", int{device.index()},
                found);
#endif
}

c10::Stream wrap(void* stream, c10::Device device) {
  const auto given = static_cast<cudaStream_t>(stream);
  if (given == cudaStreamLegacy) return c10::cuda::getDefaultCUDAStream(device.index()).unwrap();
  if (given == cudaStreamPerThread)  // one handle for many streams, which libtorch's allocator takes for one
    throw_error(ErrorCode::invalid_argument, "stream: expected a stream of its own, got cudaStreamPerThread");
  check_device_of(given, device);
  return c10::cuda::getStreamFromExternal(given, device.index()).unwrap();
}

}  // namespace
#endif

CallersStream::CallersStream(void* stream, [[maybe_unused]] c10::Device device) {
  if (stream == nullptr) return;
#ifdef ORIEL_CUDA
  if (device.is_cuda()) {
    guard_.reset_stream(wrap(stream, device));
    return;
  }
#endif
  throw_error(ErrorCode::invalid_argument, "stream: expected none for a tower on {}, got one", device.str());
}

void wait_for(void* stream, c10::Device device) {
  const CallersStream on_stream(stream, device);
  if (device.is_cpu()) return;
  current_stream(device).synchronize();
}

at::Tensor upload(const at::Tensor& x, c10::Device device) {
  if (x.device() == device) return x;
  if (!x.is_cpu() || !device.is_cuda()) return x.to(device);
  const at::Tensor pinned = at::empty(x.sizes(), at::dtype(x.scalar_type()).pinned_memory(true));
  return pinned.copy_(x).to(device, /*non_blocking=*/true);
}

c10::Stream current_stream(c10::Device device) { return c10::impl::VirtualGuardImpl(device.type()).getStream(device); }

}  // namespace oriel::ops
