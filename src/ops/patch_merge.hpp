#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace oriel::ops {

/// Joins blocks of m x m neighbours of one picture whose rows x [h * w, C] are in raster order:
/// [(h / m) * (w / m), C * m * m], blocks in raster order, values of a block ordered (channel, dy, dx).
[[nodiscard]] at::Tensor merge_raster_patches(const at::Tensor& x, int64_t h, int64_t w, int64_t m);

/// Averages blocks of k x k neighbours of pictures of side * side rows in raster order: x [B * side * side, C] ->
/// [B * (side / k)^2, C]. Summed in float32 and rounded once; rows and columns beyond the last whole block are left
/// out.
[[nodiscard]] at::Tensor average_pool(const at::Tensor& x, int64_t side, int64_t k);

}  // namespace oriel::ops
