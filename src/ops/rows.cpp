#include "ops/rows.hpp"

#include <ATen/ops/empty_like.h>

#ifdef ORIEL_CUDA
#include "ops/cuda/launch.hpp"
#endif

namespace oriel::ops {

at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x)) return cuda::gather_rows(x, index);
#endif
  return x.index_select(0, index);
}

at::Tensor scatter_rows(const at::Tensor& x, const at::Tensor& index) {
#ifdef ORIEL_CUDA
  if (cuda::takes(x)) return cuda::scatter_rows(x, index);
#endif
  return at::empty_like(x).index_copy_(0, index, x);
}

}  // namespace oriel::ops
