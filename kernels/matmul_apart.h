#pragma once
// What matmul_sm90 stands for, a product by cuBLASLt and its activation in a kernel behind it, and which is faster.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <optional>

#include "matmul.h"
#include "matmul_sm90.h"

namespace oriel::kernels {

struct MatmulApartRoom {
  void* gate_up = nullptr;  ///< [rows, 2 out] of a gated product; others need none
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
};

/// The result of matmul_sm90, rounded between the two kernels, too.
cudaError_t matmul_apart(Matmul& products, const MatmulSm90Params& params, const MatmulApartRoom& room,
                         cudaStream_t stream);

/// Whether matmul_sm90 is faster than that: timed with the first product of a shape, which writes y and the room, and
/// remembered by `products`; matmul_sm90_pays where nothing can be timed. A gated product's y may be the workspace
/// here.
bool matmul_sm90_is_faster(Matmul& products, const MatmulSm90Params& params, const MatmulApartRoom& room,
                           int processors, cudaStream_t stream);
/// What `products` remembers of that; nothing if it would have to be timed. Needs no y.
std::optional<bool> matmul_sm90_was_faster(Matmul& products, const MatmulSm90Params& params);

}  // namespace oriel::kernels
