#pragma once
// From the run-time head dim to a template parameter.
#include <type_traits>

#include "attention.h"

namespace oriel::kernels {

/// Calls f with the head dim as an integral constant.
template <typename F>
cudaError_t with_head_dim(int head_dim, F&& f) {
  switch (head_dim) {
    case 64:
      return f(std::integral_constant<int, 64>());
    case 72:
      return f(std::integral_constant<int, 72>());
    case 80:
      return f(std::integral_constant<int, 80>());
    case 128:
      return f(std::integral_constant<int, 128>());
    default:
      return cudaErrorNotSupported;
  }
}

}  // namespace oriel::kernels
