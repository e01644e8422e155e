#pragma once
// Whether there is a GPU to test on: if (!has_gpu()) GTEST_SKIP() << no_gpu;
#include <ATen/Context.h>

namespace oriel {

inline constexpr const char* no_gpu = "no GPU with a working driver was found";

inline bool has_gpu() { return at::hasCUDA() && at::detail::getCUDAHooks().deviceCount() > 0; }

}  // namespace oriel
