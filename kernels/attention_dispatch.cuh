#pragma once
// From the run-time element and head dim of an attention to template parameters.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "kernels.h"

namespace oriel::kernels {

/// Calls f with the head dim, one of kHeadDims, as an integral constant.
template <int... kHeadDims, typename F>
cudaError_t with_head_dim(int head_dim, F&& f) {
  cudaError_t status = cudaErrorNotSupported;
  (void)((head_dim == kHeadDims && (status = f(std::integral_constant<int, kHeadDims>()), true)) || ...);
  return status;
}

/// Calls f with a null pointer of the element's type, one of 16 bits, and with the head dim, one of kHeadDims.
template <int... kHeadDims, typename F>
cudaError_t dispatch_attention(Element element, int head_dim, F&& f) {
  return with_head_dim<kHeadDims...>(head_dim, [&](auto constant) {
    switch (element) {
      case Element::bfloat16:
        return f(static_cast<__nv_bfloat16*>(nullptr), constant);
      case Element::float16:
        return f(static_cast<__half*>(nullptr), constant);
      case Element::float32:
        break;
    }
    return cudaErrorNotSupported;
  });
}

}  // namespace oriel::kernels
