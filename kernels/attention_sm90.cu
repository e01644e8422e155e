// Attention over packed sequences on Hopper (sm_90a): formula and inputs in attention.h.
//
// Layout. qkv [tokens, 3, heads, head_dim] is read where it lies: a tensor map sees it as [tokens][3 heads][head_dim],
// and the copy engine fetches boxes of 64 tokens of one slice (q, k or v of one head) into shared memory, swizzled as
// the tensor cores want it. Columns past head_dim are filled with zeros there, so that 72 runs as 80 in Q K^T.
//
// Idea. One persistent block a multiprocessor takes tiles from its list in the plan: 256 queries (192 for head dim 128)
// of one head against the whole sequence. Each of four warpgroups owns 64 of the queries; a fifth loads. In a step a
// warpgroup multiplies its queries with 64 keys (S = Q K^T), takes exponentials, and multiplies these with the 64
// values (O += P V), one step later, so that tensor cores and exponentials overlap; 64 queries x 64 keys keep S, P and
// O in 112 registers, which is what four such groups can have. Exponentials bind as much as products do (16 a clock
// against 4096 FLOP): hence no search for the running maximum after the first 64 keys, see
// Consumer::raise_maximum_on_overflow. The chain of steps does not break between tiles: the last product with V of a
// tile runs beside the first scores of the next, whose queries are already there in a second buffer.
//
// Sameness. Steps are 64 keys from the sequence's begin, a warp's 16 rows are a multiple of 16 from it, and no decision
// looks at anything else: a row's bits depend on its own sequence alone, however the plan cuts tiles. Values of the
// next sequence in a last partial step are cleared (Loader::clear_past_the_end), keys masked, queries not stored.
//
// Limits. head_dim 64, 72, 80, 128; bfloat16, float16; token_stride a multiple of 8, pointers of 16 bytes. Logits
// beyond float32 and all-NaN rows give NaN in their own rows.
//
// Tried and lost, TFLOP/s before and after, each pair from one run on an H100 (bfloat16, 16 heads): two or three
// warpgroups with 96 to 128 keys a step, named barriers to order the warpgroups, exponentials by polynomial (each about
// -10 % at 4096 tokens); Q for Q K^T from registers (head dims 64 / 80 / 128 at 4096 tokens: 591 / 605 / 712 to 588 /
// 602 / 682). For 16 x 256 tokens, head dims 64 / 72 / 80: a launch that overlaps with the kernel before (341 / 243 /
// 291 to 346 / 227 / 254), the next tile's keys and values prefetched into L2 (to 321 / 205 / 255), barriers
// initialised by 32 lanes, which take turns over uniform registers (3,400 clocks).
#include <cuda.h>

#include <cstdint>

#include "attention.h"
#include "attention_dispatch.cuh"
#include "attention_sm90_shape.cuh"
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
using KernelArguments = sm90::Arguments<T, AttentionTile>;

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <class T, int kHeadDim>
__global__ void __launch_bounds__(sm90::Shape<kHeadDim>::kThreads, 1)
    attention_kernel(const __grid_constant__ CUtensorMap panel, const __grid_constant__ CUtensorMap tail,
                     const __grid_constant__ KernelArguments<T> arguments) {
  sm90::attention_block<T, kHeadDim, sm90::AllKeys>({panel, panel, panel, tail}, arguments);
}

#else

// What other architectures get. Its limit of threads a block tells the launcher that the device has this one.
template <class T, int kHeadDim>
__global__ void __launch_bounds__(1)
    attention_kernel(const __grid_constant__ CUtensorMap, const __grid_constant__ CUtensorMap,
                     const __grid_constant__ KernelArguments<T>) {}

#endif

/// Boxes of `columns` x 1 slice x 64 tokens.
cudaError_t encode_map(const AttentionInputs& inputs, int columns, CUtensorMapSwizzle swizzle, CUtensorMap* map) {
  const auto head_dim = static_cast<cuuint64_t>(inputs.head_dim);
  const cuuint64_t sizes[3] = {head_dim, 3 * static_cast<cuuint64_t>(inputs.heads),
                               static_cast<cuuint64_t>(inputs.tokens)};
  const cuuint64_t strides[2] = {2 * head_dim, 2 * static_cast<cuuint64_t>(inputs.token_stride)};  // bytes
  const cuuint32_t box[3] = {static_cast<cuuint32_t>(columns), 1, kAttentionUnit};
  return encode_tensor_map(inputs.element, inputs.qkv, 3, sizes, strides, box, map, swizzle);
}

template <class T, int kHeadDim>
cudaError_t launch(const AttentionSm90Params& params, cudaStream_t stream) {
  using S = sm90::Shape<kHeadDim>;
  const auto kernel = attention_kernel<T, kHeadDim>;
  if (const cudaError_t status = allow_shared_memory(reinterpret_cast<const void*>(kernel), S::kThreads, S::kBytes);
      status != cudaSuccess)
    return status;
  CUtensorMap panel, tail;
  if (const cudaError_t status = encode_map(params, 64, CU_TENSOR_MAP_SWIZZLE_128B, &panel); status != cudaSuccess) {
    return status;
  }
  tail = panel;
  if constexpr (S::kTail) {
    const cudaError_t status = encode_map(params, 16, CU_TENSOR_MAP_SWIZZLE_32B, &tail);
    if (status != cudaSuccess) return status;
  }
  const Grid grid{dim3(static_cast<unsigned>(params.blocks)), dim3(S::kThreads), S::kBytes};
  return launch_overlapping(kernel, grid, stream, panel, tail, sm90::arguments_of<T, AttentionTile>(params));
}

template <class T>
cudaError_t launch_head_dim(const AttentionSm90Params& params, cudaStream_t stream) {
  return with_head_dim(params.head_dim,
                       [&](auto head_dim) { return launch<T, decltype(head_dim)::value>(params, stream); });
}

}  // namespace

cudaError_t attention_sm90_has_code() {
  using S = sm90::Shape<64>;
  return allow_shared_memory(reinterpret_cast<const void*>(attention_kernel<__half, 64>), S::kThreads, S::kBytes);
}

bool attention_sm90_supports(const AttentionInputs& inputs, int compute_major, int compute_minor) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; };
  const bool head_dim = attention_has_head_dim(inputs.head_dim);
  const bool element = inputs.element == Element::bfloat16 || inputs.element == Element::float16;
  return compute_major == 9 && compute_minor == 0 && head_dim && element && inputs.heads >= 1 &&
         inputs.heads <= 65535 && inputs.token_stride % 8 == 0 && aligned(inputs.qkv) && aligned(inputs.out);
}

cudaError_t attention_sm90(const AttentionSm90Params& params, cudaStream_t stream) {
  if (params.tokens == 0) return cudaSuccess;
  if (!attention_sm90_supports(params, 9, 0)) return cudaErrorNotSupported;  // another chip: found by the launch
  const bool sizes =
      params.tokens > 0 && params.blocks > 0 && params.token_stride >= std::int64_t{3} * params.heads * params.head_dim;
  if (!sizes || params.qkv == nullptr || params.out == nullptr || params.plan == nullptr) return cudaErrorInvalidValue;
  return params.element == Element::float16 ? launch_head_dim<__half>(params, stream)
                                            : launch_head_dim<__nv_bfloat16>(params, stream);
}

}  // namespace oriel::kernels
