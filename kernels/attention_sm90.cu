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
#include "attention_sm90_launch.cuh"

namespace oriel::kernels {
namespace {

template <class T>
using KernelArguments = sm90::Arguments<T, AttentionTile>;

template <class T, int kHeadDim>
__global__ void __launch_bounds__(sm90::kMostThreads<kHeadDim>, 1)
    attention_kernel(const __grid_constant__ CUtensorMap panel, const __grid_constant__ CUtensorMap tail,
                     const __grid_constant__ KernelArguments<T> arguments) {
  if constexpr (sm90::kHasCode)
    sm90::attention_block<T, kHeadDim, sm90::AllKeys>({panel, panel, panel, tail}, arguments);
}

template <class T, int kHeadDim>
cudaError_t launch(const AttentionSm90Params& params, cudaStream_t stream) {
  const auto kernel = attention_kernel<T, kHeadDim>;
  if (const cudaError_t status = sm90::allow<kHeadDim>(kernel); status != cudaSuccess) return status;
  const sm90::Rows rows{params.qkv, params.token_stride, params.tokens, std::int64_t{3} * params.heads};
  CUtensorMap panel, tail;
  if (const cudaError_t status = sm90::encode_map(params.element, rows, kHeadDim, &panel); status != cudaSuccess)
    return status;
  tail = panel;
  if constexpr (sm90::Shape<kHeadDim>::kTail) {
    const cudaError_t status = sm90::encode_map(params.element, rows, kHeadDim, &tail, 16, CU_TENSOR_MAP_SWIZZLE_32B);
    if (status != cudaSuccess) return status;
  }
  return launch_overlapping(kernel, sm90::grid_of<kHeadDim>(params.blocks), stream, panel, tail,
                            sm90::arguments_of<T, AttentionTile>(params));
}

}  // namespace

cudaError_t attention_sm90_has_code() { return sm90::allow<64>(attention_kernel<__half, 64>); }

bool attention_sm90_supports(const AttentionInputs& inputs, int compute_major, int compute_minor) {
  return sm90::is_supported(inputs.element, inputs.heads, compute_major, compute_minor) &&
         attention_has_head_dim(inputs.head_dim) && inputs.token_stride % 8 == 0 &&
         sm90::are_aligned({inputs.qkv, inputs.out});
}

cudaError_t attention_sm90(const AttentionSm90Params& params, cudaStream_t stream) {
  if (params.tokens == 0) return cudaSuccess;
  if (!attention_sm90_supports(params, 9, 0)) return cudaErrorNotSupported;  // another chip: found by the launch
  const bool sizes =
      params.tokens > 0 && params.blocks > 0 && params.token_stride >= std::int64_t{3} * params.heads * params.head_dim;
  if (!sizes || params.qkv == nullptr || params.out == nullptr || params.plan == nullptr) return cudaErrorInvalidValue;
  return dispatch_attention<64, 72, 80, 128>(params.element, params.head_dim, [&](auto* type, auto head_dim) {
    return launch<std::remove_pointer_t<decltype(type)>, decltype(head_dim)::value>(params, stream);
  });
}

}  // namespace oriel::kernels
