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

#include "attention_dispatch.cuh"
#include "attention_sm90_launch.cuh"
#include "causal_attention.h"

namespace oriel::kernels {
namespace {

template <class T>
using KernelArguments = sm90::Arguments<T, CausalTile>;

template <class T, int kHeadDim>
__global__ void __launch_bounds__(sm90::kMostThreads<kHeadDim>, 1)
    causal_attention_kernel(const __grid_constant__ CUtensorMap queries, const __grid_constant__ CUtensorMap keys,
                            const __grid_constant__ CUtensorMap values,
                            const __grid_constant__ KernelArguments<T> arguments) {
  if constexpr (sm90::kHasCode)
    sm90::attention_block<T, kHeadDim, sm90::SeenKeys>({queries, keys, values, keys}, arguments);
}

template <class T, int kHeadDim>
cudaError_t launch(const CausalAttentionParams& params, cudaStream_t stream) {
  const auto kernel = causal_attention_kernel<T, kHeadDim>;
  if (const cudaError_t status = sm90::allow<kHeadDim>(kernel); status != cudaSuccess) return status;
  const sm90::Rows inputs[3] = {{params.queries, params.query_stride, params.tokens, params.heads},
                                {params.keys, params.key_stride, params.key_rows, params.kv_heads},
                                {params.values, params.value_stride, params.key_rows, params.kv_heads}};
  CUtensorMap maps[3];
  for (int i = 0; i < 3; ++i) {
    const cudaError_t status = sm90::encode_map(params.element, inputs[i], kHeadDim, &maps[i]);
    if (status != cudaSuccess) return status;
  }
  KernelArguments<T> arguments = sm90::arguments_of<T, CausalTile>(params);
  arguments.scale_log2 = std::max(arguments.scale_log2, FLT_MIN);  // never 0, by which a hidden key's -Inf would be NaN
  return launch_overlapping(kernel, sm90::grid_of<kHeadDim>(params.blocks), stream, maps[0], maps[1], maps[2],
                            arguments);
}

}  // namespace

bool causal_attention_supports(const CausalAttentionParams& params, int compute_major, int compute_minor) {
  const bool strides = params.query_stride % 8 == 0 && params.key_stride % 8 == 0 && params.value_stride % 8 == 0;
  return sm90::is_supported(params.element, params.heads, compute_major, compute_minor) &&
         causal_attention_has_head_dim(params.head_dim) && strides &&
         sm90::are_aligned({params.queries, params.keys, params.values, params.out});
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
  return dispatch_attention<64, 128, 256>(params.element, params.head_dim, [&](auto* type, auto head_dim) {
    return launch<std::remove_pointer_t<decltype(type)>, decltype(head_dim)::value>(params, stream);
  });
}

}  // namespace oriel::kernels
