#include "kernel_trace.hpp"

#include <cuda_runtime_api.h>
#include <cupti.h>
#include <cxxabi.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace bench {
namespace {

constexpr std::array kinds{CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, CUPTI_ACTIVITY_KIND_MEMCPY,
                           CUPTI_ACTIVITY_KIND_MEMSET};
constexpr size_t buffer_bytes = size_t{8} << 20;

// CUPTI calls back without an argument of ours, from a thread of its own: hence these.
std::mutex mutex;
std::vector<TracedWork> recorded;
size_t dropped = 0;

void check(CUptiResult result, const char* what) {
  if (result == CUPTI_SUCCESS) return;
  const char* text = nullptr;
  (void)cuptiGetResultString(result, &text);
  throw std::runtime_error(std::string(what) + ": " + (text != nullptr ? text : "unknown CUPTI error"));
}

/// void oriel::kernels::(anonymous namespace)::gate_kernel<float>(Params) -> gate_kernel
std::string short_name(const char* symbol) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> demangled(abi::__cxa_demangle(symbol, nullptr, nullptr, &status),
                                                              &std::free);
  std::string name = status == 0 ? demangled.get() : symbol;
  constexpr std::string_view unnamed = "(anonymous namespace)::";
  for (size_t at = 0; (at = name.find(unnamed)) != std::string::npos;) name.erase(at, unnamed.size());
  name = name.substr(0, name.find_first_of("<("));
  return name.substr(name.find_last_of(": ") + 1);  // npos + 1 is 0
}

template <typename Record>
void note(std::string name, const CUpti_Activity* record) {
  const auto* work = reinterpret_cast<const Record*>(record);
  recorded.push_back({std::move(name), work->start, work->end});
}

void CUPTIAPI give_buffer(uint8_t** buffer, size_t* size, size_t* most_records) {
  *buffer = new (std::align_val_t{ACTIVITY_RECORD_ALIGNMENT}, std::nothrow) uint8_t[buffer_bytes];
  *size = *buffer != nullptr ? buffer_bytes : 0;
  *most_records = 0;  // as many as there is room for
}

void CUPTIAPI read_buffer(CUcontext context, uint32_t stream, uint8_t* buffer, size_t, size_t valid) {
  const std::lock_guard lock(mutex);
  CUpti_Activity* record = nullptr;
  while (valid > 0 && cuptiActivityGetNextRecord(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL)
      note<CUpti_ActivityKernel10>(short_name(reinterpret_cast<const CUpti_ActivityKernel10*>(record)->name), record);
    else if (record->kind == CUPTI_ACTIVITY_KIND_MEMCPY)
      note<CUpti_ActivityMemcpy6>("memcpy", record);
    else if (record->kind == CUPTI_ACTIVITY_KIND_MEMSET)
      note<CUpti_ActivityMemset4>("memset", record);
  }
  size_t lost = 0;
  if (cuptiActivityGetNumDroppedRecords(context, stream, &lost) == CUPTI_SUCCESS) dropped += lost;
  operator delete[](buffer, std::align_val_t{ACTIVITY_RECORD_ALIGNMENT});
}

}  // namespace

void start_trace() {
  check(cuptiActivityRegisterCallbacks(give_buffer, read_buffer), "cuptiActivityRegisterCallbacks");
  for (const CUpti_ActivityKind kind : kinds) check(cuptiActivityEnable(kind), "cuptiActivityEnable");
}

std::vector<TracedWork> take_trace() {
  if (const cudaError_t error = cudaDeviceSynchronize(); error != cudaSuccess)
    throw std::runtime_error(cudaGetErrorString(error));
  check(cuptiActivityFlushAll(0), "cuptiActivityFlushAll");
  const std::lock_guard lock(mutex);
  if (const size_t lost = std::exchange(dropped, 0); lost > 0)
    throw std::runtime_error("CUPTI dropped " + std::to_string(lost) + " records");
  std::vector<TracedWork> result = std::exchange(recorded, {});
  std::stable_sort(result.begin(), result.end(),
                   [](const TracedWork& a, const TracedWork& b) { return a.start < b.start; });
  return result;
}

void stop_trace() {
  for (const CUpti_ActivityKind kind : kinds) (void)cuptiActivityDisable(kind);
  (void)cuptiActivityFlushAll(0);
  const std::lock_guard lock(mutex);
  recorded.clear();
}

}  // namespace bench
