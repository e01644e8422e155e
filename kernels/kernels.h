#pragma once
// The launchers of oriel's CUDA kernels. Plain C++ on the CUDA runtime alone: no torch.
//
// Every launcher takes one params struct of device pointers, sizes and strides (in elements), enqueues its work on
// `stream`, which comes last, and returns at once: it allocates nothing and waits for nothing. It returns
// cudaErrorInvalidValue for sizes that it does not take, else what the launch returned. Rows are dense in their last
// dimension; pointers and strides are multiples of 16 bytes unless a kernel says otherwise. Arithmetic is in float32
// and rounded once, to nearest even.
#include <cuda_runtime_api.h>

#include <cstdint>

namespace oriel::kernels {

/// cudaSuccess if the library holds code that runs on the current device, cudaErrorNotSupported if not, also where the
/// driver can't compile what it holds. Of the kernels for sm_90a alone it says nothing: attention_sm90_has_code does.
cudaError_t has_code();

enum class Element { float32, bfloat16, float16 };

enum class ElementwiseFunction { identity, relu, silu, gelu_erf, gelu_tanh, quick_gelu };

/// y[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight, or * (1 + weight) with weight_plus_one.
struct RmsNormParams {
  const void* x = nullptr;       ///< [rows, width]
  const void* weight = nullptr;  ///< [width]
  void* y = nullptr;             ///< [rows, width]; may be x
  int64_t rows = 0;
  int64_t width = 0;
  float eps = 0;
  bool weight_plus_one = false;
  Element element = Element::bfloat16;  ///< of x, weight and y
};
cudaError_t rms_norm(const RmsNormParams& params, cudaStream_t stream);

/// y[r] = (x[r] - mean) / sqrt(variance + eps) * weight + bias, the variance of the differences from the mean.
struct LayerNormParams {
  const void* x = nullptr;       ///< [rows, width]
  const void* weight = nullptr;  ///< [width]
  const void* bias = nullptr;    ///< [width]
  void* y = nullptr;             ///< [rows, width]; may be x
  int64_t rows = 0;
  int64_t width = 0;
  float eps = 0;
  Element element = Element::bfloat16;
};
cudaError_t layer_norm(const LayerNormParams& params, cudaStream_t stream);

/// Turns q and k of a packed product where they lie: for every token, head and j < head_dim / 2,
///   (x[j], x[j + head_dim / 2]) = (low cos[j] - high sin[j], high cos[j] + low sin[j]),
/// q times query_scale besides.
struct RotaryParams {
  void* qkv = nullptr;           ///< [tokens, 3, heads, head_dim]
  const float* turns = nullptr;  ///< [tokens, head_dim]: cos of the head_dim / 2 angles, then sin
  int64_t tokens = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;  ///< a multiple of 8
  float query_scale = 1;
  Element element = Element::bfloat16;
};
cudaError_t rotate_query_key(const RotaryParams& params, cudaStream_t stream);

/// y = f(x), elementwise.
struct ElementwiseParams {
  const void* x = nullptr;
  void* y = nullptr;  ///< may be x
  int64_t count = 0;
  ElementwiseFunction function = ElementwiseFunction::silu;
  Element element = Element::bfloat16;
};
cudaError_t elementwise(const ElementwiseParams& params, cudaStream_t stream);

/// y[r, j] = f(gate_up[r, j]) * gate_up[r, width + j].
struct GateParams {
  const void* gate_up = nullptr;  ///< [rows, 2 * width]: all of the gate, then all of up
  void* y = nullptr;              ///< [rows, width]
  int64_t rows = 0;
  int64_t width = 0;  ///< a multiple of 8
  ElementwiseFunction function = ElementwiseFunction::silu;
  Element element = Element::bfloat16;
};
cudaError_t gate(const GateParams& params, cudaStream_t stream);

/// y[r] = x[index[r]]: puts rows into another order, or leaves some out; with `scatter`, y[index[r]] = x[r].
struct GatherParams {
  const void* x = nullptr;         ///< [*, row_bytes]
  const int64_t* index = nullptr;  ///< [rows]; not checked
  void* y = nullptr;               ///< [*, row_bytes]; not x
  int64_t rows = 0;
  int64_t row_bytes = 0;  ///< any number; multiples of 16 are fast
  bool scatter = false;
};
cudaError_t gather_rows(const GatherParams& params, cudaStream_t stream);

/// y[b, i, j] = mean of the k x k rows x[b, i k .., j k ..]: pictures of side x side rows in raster order.
struct AveragePoolParams {
  const void* x = nullptr;  ///< [pictures, side, side, width]
  void* y = nullptr;        ///< [pictures, side / k, side / k, width]
  int64_t pictures = 0;
  int64_t side = 0;
  int64_t k = 0;
  int64_t width = 0;
  Element element = Element::bfloat16;
};
cudaError_t average_pool(const AveragePoolParams& params, cudaStream_t stream);

/// y[i, j] = the m x m rows of block (i, j) of one picture side by side, ordered (channel, dy, dx).
struct MergeParams {
  const void* x = nullptr;  ///< [height, width, channels]: rows of patches in raster order
  void* y = nullptr;        ///< [height / m, width / m, channels * m * m]
  int64_t height = 0;       ///< multiples of m
  int64_t width = 0;
  int64_t m = 0;
  int64_t channels = 0;
  Element element = Element::bfloat16;
};
cudaError_t merge_patches(const MergeParams& params, cudaStream_t stream);

}  // namespace oriel::kernels
