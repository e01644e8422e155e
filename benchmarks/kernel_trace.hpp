#pragma once
// What ran on the GPU and when, by CUPTI's activity records: kernels, copies and fills, those of CUDA graphs one by
// one.
#include <cstdint>
#include <string>
#include <vector>

namespace bench {

struct TracedWork {
  std::string name;    ///< of the kernel, without namespaces and arguments; "memcpy" and "memset" for the others
  uint64_t start = 0;  ///< nanoseconds
  uint64_t end = 0;
};

/// Begins to record, on all GPUs of the process. Throws std::runtime_error with CUPTI's reason.
void start_trace();

/// Waits for the GPU and hands over what was recorded since the last call or start_trace, by its start.
std::vector<TracedWork> take_trace();

/// Ends recording and drops what was not taken.
void stop_trace();

}  // namespace bench
