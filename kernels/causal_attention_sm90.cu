// Attention of a decoder's prompts on Hopper (sm_90a): formula and inputs in causal_attention.h.
//
// Layout. Queries, keys and values are read where they lie, by one tensor map each, as [tokens][heads][head_dim].
//
// Idea. That of attention_sm90: persistent blocks, a warpgroup for 64 queries, steps of 64 keys. What is new is that
// queries see different keys. Queries are cut where their place in the sequence is a multiple of 64, as keys are: so
// the diagonal crosses one step of a warpgroup, and that step alone hides keys (and one or two at a window's
// beginning). A tile's steps end where its last query sees its last key; warpgroups with earlier queries end sooner and
// go on to the next tile, as far as the ring of keys reaches, so that a tile's last steps have the tensor cores to
// themselves and its neighbours'. Heaviest tiles go first, and light ones fill the ends.
//
// Where a window begins, rows of a warpgroup see their first key in its first step or in the next; the latter take
// their maximum there (Consumer::start_late_rows).
//
// Limits. head_dim 64, 128, 256; bfloat16, float16; strides multiples of 8, pointers of 16 bytes.
#include <cuda.h>

#include <algorithm>
#include <cfloat>
#include <cstdint>

#include "attention.h"
#include "attention_sm90_shape.cuh"
#include "causal_attention.h"
#include "launch.cuh"
#include "tensor_map.h"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "attention_sm90_block.cuh"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace oriel::kernels {
namespace {

template <class T>
using KernelArguments = sm90::Arguments<T, CausalTile>;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <class T, int kHeadDim>
__global__ void __launch_bounds__(sm90::Shape<kHeadDim>::kThreads, 1)
    causal_attention_kernel(const __grid_constant__ CUtensorMap queries, const __grid_constant__ CUtensorMap keys,
                            const __grid_constant__ CUtensorMap values,
                            const __grid_constant__ KernelArguments<T> arguments) {
  sm90::attention_block<T, kHeadDim, sm90::SeenKeys>({queries, keys, values, keys}, arguments);
}

#else

// What other architectures get. Its limit of threads a block tells the launcher that the device has this one.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(1)
    causal_attention_kernel(const __grid_constant__ CUtensorMap, const __grid_constant__ CUtensorMap,
                            const __grid_constant__ CUtensorMap, const __grid_constant__ KernelArguments<T>) {}

#endif

struct Rows {
  const void* data;
  std::int64_t stride;
  std::int32_t rows, heads;
};

/// Boxes of 64 columns x 1 head x 64 rows.
cudaError_t encode_map(const CausalAttentionParams& params, const Rows& rows, CUtensorMap* map) {
  const auto head_dim = static_cast<cuuint64_t>(params.head_dim);
  const cuuint64_t sizes[3] = {head_dim, static_cast<cuuint64_t>(rows.heads), static_cast<cuuint64_t>(rows.rows)};
  const cuuint64_t strides[2] = {2 * head_dim, 2 * static_cast<cuuint64_t>(rows.stride)};  // bytes
  const cuuint32_t box[3] = {64, 1, kAttentionUnit};
  return encode_tensor_map(params.element, rows.data, 3, sizes, strides, box, map);
}

template <class T, int kHeadDim>
cudaError_t launch(const CausalAttentionParams& params, cudaStream_t stream) {
  using S = sm90::Shape<kHeadDim>;
  const auto kernel = causal_attention_kernel<T, kHeadDim>;
  if (const cudaError_t status = allow_shared_memory(reinterpret_cast<const void*>(kernel), S::kThreads, S::kBytes);
      status != cudaSuccess)
    return status;
  const Rows inputs[3] = {{params.queries, params.query_stride, params.tokens, params.heads},
                          {params.keys, params.key_stride, params.key_rows, params.kv_heads},
                          {params.values, params.value_stride, params.key_rows, params.kv_heads}};
  CUtensorMap maps[3];
  for (int i = 0; i < 3; ++i) {
    if (const cudaError_t status = encode_map(params, inputs[i], &maps[i]); status != cudaSuccess) return status;
  }
  KernelArguments<T> arguments = sm90::arguments_of<T, CausalTile>(params);
  arguments.scale_log2 = std::max(arguments.scale_log2, FLT_MIN);  // never 0, by which a hidden key's -Inf would be NaN
  const Grid grid{dim3(static_cast<unsigned>(params.blocks)), dim3(S::kThreads), S::kBytes};
  return launch_overlapping(kernel, grid, stream, maps[0], maps[1], maps[2], arguments);
}

template <class T>
cudaError_t launch_head_dim(const CausalAttentionParams& params, cudaStream_t stream) {
  switch (params.head_dim) {
    case 64:
      return launch<T, 64>(params, stream);
    case 128:
      return launch<T, 128>(params, stream);
    case 256:
      return launch<T, 256>(params, stream);
    default:
      return cudaErrorNotSupported;
  }
}

}  // namespace

bool causal_attention_supports(const CausalAttentionParams& params, int compute_major, int compute_minor) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; };
  const bool element = params.element == Element::bfloat16 || params.element == Element::float16;
  const bool strides = params.query_stride % 8 == 0 && params.key_stride % 8 == 0 && params.value_stride % 8 == 0;
  return compute_major == 9 && compute_minor == 0 && causal_attention_has_head_dim(params.head_dim) && element &&
         params.heads >= 1 && params.heads <= 65535 && strides && aligned(params.queries) && aligned(params.keys) &&
         aligned(params.values) && aligned(params.out);
}

cudaError_t causal_attention(const CausalAttentionParams& params, cudaStream_t stream) {
  if (params.tokens == 0) return cudaSuccess;
  if (!causal_attention_supports(params, 9, 0)) return cudaErrorNotSupported;  // another chip: found by the launch
  const auto fits = [&](std::int64_t stride, std::int64_t heads) { return stride >= heads * params.head_dim; };
  const bool sizes = params.tokens > 0 && params.key_rows > 0 && params.blocks > 0 && params.kv_heads > 0 &&
                     params.heads % params.kv_heads == 0 && fits(params.query_stride, params.heads) &&
                     fits(params.key_stride, params.kv_heads) && fits(params.value_stride, params.kv_heads);
  const bool pointers = params.queries != nullptr && params.keys != nullptr && params.values != nullptr &&
                        params.out != nullptr && params.plan != nullptr;
  if (!sizes || !pointers) return cudaErrorInvalidValue;
  return params.element == Element::float16 ? launch_head_dim<__half>(params, stream)
                                            : launch_head_dim<__nv_bfloat16>(params, stream);
}

}  // namespace oriel::kernels
