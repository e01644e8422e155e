#pragma once
// Matrix products with an activation in their epilogue on Hopper, where cuBLASLt has none: gates of gated MLPs and
// quick GELU.
#include <cuda_runtime_api.h>

#include <cstdint>

#include "kernels.h"

namespace oriel::kernels {

/// y = f(x W^T + b), or with `gated` y = f(x G^T + g) * (x U^T + u). Sums and what follows are in float32, rounded
/// once.
struct MatmulSm90Params {
  const void* x = nullptr;       ///< [rows, in], rows x_stride apart
  const void* weight = nullptr;  ///< W [out, in]; gated: G, then U
  const void* bias = nullptr;    ///< b [out], gated: g, then u; or null
  void* y = nullptr;             ///< [rows, out], dense
  int64_t rows = 0;
  int64_t in = 0;  ///< a multiple of 8, as are out and x_stride
  int64_t out = 0;
  int64_t x_stride = 0;
  ElementwiseFunction function = ElementwiseFunction::silu;  ///< gated: silu, else quick_gelu
  bool gated = false;
  bool deterministic = false;           ///< a row's bits depend on that row alone: one shape of tiles for all
  Element element = Element::bfloat16;  ///< or float16
};

/// True if matmul_sm90 takes this function, element and these sizes on a device of this compute capability. As for
/// attention_sm90, the build may still lack the code.
bool matmul_sm90_supports(const MatmulSm90Params& params, int compute_major, int compute_minor);

/// Whether matmul_sm90 takes square tiles for so many rows, which are faster where they fill up. It depends on rows and
/// deterministic alone.
bool matmul_sm90_is_square(const MatmulSm90Params& params);

/// Whether matmul_sm90 is faster for these sizes than cuBLASLt and a kernel behind it: not where the last round of
/// tiles leaves too many multiprocessors idle. It depends on rows, out, gated, deterministic and the device alone.
bool matmul_sm90_pays(const MatmulSm90Params& params, int processors);

/// Whether that is no more than a guess, which timing should replace: for one or two rounds of tiles. It depends on the
/// same.
bool matmul_sm90_is_close(const MatmulSm90Params& params, int processors);

/// Enqueues on `stream`, on a device with this many multiprocessors. cudaErrorNotSupported: nothing was launched and
/// another path can be taken.
cudaError_t matmul_sm90(const MatmulSm90Params& params, int processors, cudaStream_t stream);

}  // namespace oriel::kernels
