#pragma once
// oriel's kernels on tensors: what the ops call for tensors on a GPU. Compiled with ORIEL_CUDA only.
//
// All of them enqueue on the current stream of the tensors' device, which must be the current device, take dense
// tensors of float32, bfloat16 or float16, and wait for nothing. Memory comes from libtorch's caching allocator.
#include <ATen/core/Tensor.h>
#include <cuda_runtime_api.h>

#include <string_view>

#include "kernels.h"
#include "matmul.h"
#include "ops/activation.hpp"
#include "ops/attention.hpp"
#include "ops/linear.hpp"
#include "ops/rotary.hpp"

namespace oriel::ops::cuda {

/// Whether the kernels take x as it lies.
[[nodiscard]] bool takes(const at::Tensor& x);
[[nodiscard]] bool is_16_bit(const at::Tensor& x);

[[nodiscard]] kernels::Element element_of(const at::Tensor& x);
[[nodiscard]] cudaStream_t stream_of(const at::Tensor& x);
/// [count] on the GPU, copied behind what is enqueued there; the host does not wait.
[[nodiscard]] at::Tensor to_device(const void* data, int64_t count, at::ScalarType type, c10::Device device);

/// What kernels are chosen and launched by; asked of the driver once.
struct Chip {
  int major = 0;  ///< compute capability
  int minor = 0;
  int processors = 0;
  bool has_sm90_code = false;  ///< compute capability 9.0, and the build has the kernels that are for sm_90a alone
};
[[nodiscard]] Chip chip_of(c10::Device device);

/// The products of a device, shared by all towers on it: equal shapes of two towers are timed once. The device is the
/// current one when this is first called.
[[nodiscard]] kernels::Matmul& products_of(c10::Device device);

/// Throws out_of_memory, or internal with the name of the operation.
void check(cudaError_t error, std::string_view operation);

/// With a residual, that plus the rounded norm.
[[nodiscard]] at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, bool weight_plus_one,
                                  const at::Tensor& residual = {});
[[nodiscard]] at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps);

/// Writes into x itself.
[[nodiscard]] at::Tensor activate_in_place(const at::Tensor& x, Activation activation);
[[nodiscard]] kernels::ElementwiseFunction function_of(Activation activation);
/// gate_up [T, 2 * width] -> activation(gate) * up [T, width].
[[nodiscard]] at::Tensor gate(const at::Tensor& gate_up, Activation activation);

/// x [T, in] with `weight` [out, in], bias [out] or undefined, residual [T, out] or undefined. The activation runs
/// inside the product where cuBLASLt or a kernel of ours knows it, else right behind it.
[[nodiscard]] at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                const at::Tensor& residual, Activation activation);

/// activation(x G^T + g) * (x U^T + u) [T, width] of `weight` [2 * width, in]: all of G, then all of U, and of their
/// biases side by side, or undefined.
[[nodiscard]] at::Tensor gated_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                      Activation activation);
/// Whether gated_linear surely needs no room for gate and up.
[[nodiscard]] bool gates_inside_product(const GateShape& shape, at::ScalarType dtype, c10::Device device);

/// q times query_scale; false if the kernel does not take the shape.
[[nodiscard]] bool rotate_query_key(const at::Tensor& qkv, const Rotary& rotary, double query_scale);

/// Fills in what the kernels need of the bounds on the GPU. With fixed_layout, sizes there and in the launch depend on
/// the numbers of rows and segments alone.
void place(Segments& segments, const AttentionShape& shape, c10::Device device, bool fixed_layout = false);
/// Whether full and windowed layers of this shape run by kernels whose launches do not depend on the bounds.
[[nodiscard]] bool has_fixed_launches(const AttentionShape& shape, c10::Device device);

/// softmax(q k^T * scale) v of a packed product qkv [T, 3, heads, head_dim] of a 16-bit type: [T, heads * head_dim].
/// With query_scaled, q is already times scale / ln 2.
[[nodiscard]] at::Tensor attention(const at::Tensor& qkv, const Segments& segments, double scale, bool query_scaled);
/// Whether the chip and the shape are served by a kernel that wants its q scaled.
[[nodiscard]] bool wants_scaled_query(const at::Tensor& qkv, const Segments& segments);

/// x [*, C] and int64 index [R]: y[r] = x[index[r]], or y[index[r]] = x[r].
[[nodiscard]] at::Tensor gather_rows(const at::Tensor& x, const at::Tensor& index);
[[nodiscard]] at::Tensor scatter_rows(const at::Tensor& x, const at::Tensor& index);
[[nodiscard]] at::Tensor average_pool(const at::Tensor& x, int64_t side, int64_t k);
[[nodiscard]] at::Tensor merge_raster_patches(const at::Tensor& x, int64_t h, int64_t w, int64_t m);

}  // namespace oriel::ops::cuda
