#include "ops/patch_merge.hpp"

#include <ATen/ops/avg_pool2d.h>

#ifdef ORIEL_CUDA
#include "ops/cuda/launch.hpp"
#endif

namespace oriel::ops {

at::Tensor merge_raster_patches(const at::Tensor& x, int64_t h, int64_t w, int64_t m) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x)) return cuda::merge_raster_patches(x, h, w, m);
#endif
  return x
      .view({h / m, m, w / m, m, x.size(1)})  // [block row, dy, block column, dx, C]
      .permute({0, 2, 4, 1, 3})               // [block row, block column, C, dy, dx]
      .reshape({(h / m) * (w / m), x.size(1) * m * m});
}

at::Tensor average_pool(const at::Tensor& x, int64_t side, int64_t k) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x)) return cuda::average_pool(x, side, k);
#endif
  const at::Tensor maps = x.view({-1, side, side, x.size(1)}).permute({0, 3, 1, 2});  // [B, C, side, side]
  return at::avg_pool2d(maps, {k, k}, {k, k}).permute({0, 2, 3, 1}).reshape({-1, x.size(1)});
}

}  // namespace oriel::ops
