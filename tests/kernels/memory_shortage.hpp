#pragma once
// Memory that runs out for graphs alone.
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/util/Exception.h>

namespace oriel {

/// What libtorch's allocator does where memory has run out, while a graph is captured. Nothing at other times.
inline void run_out_of_memory_in_captures() {
  const bool is_captured = c10::cuda::currentStreamCaptureStatusMayInitCtx() == c10::cuda::CaptureStatus::Active;
  TORCH_CHECK_WITH(OutOfMemoryError, !is_captured, "the test's memory has run out");
}

}  // namespace oriel
