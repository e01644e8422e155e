// The attention launchers with C names, for attention_bench.py.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>

#include "../attention.h"
#include "../attention_plan.h"

using namespace oriel::kernels;

namespace {

/// int64 sizes: token_stride, tokens, heads, head_dim, is_float16, q_prescaled.
void read_inputs(const void* qkv, void* out, const std::int64_t* sizes, float scale, AttentionInputs& inputs) {
  inputs.qkv = qkv;
  inputs.out = out;
  inputs.token_stride = sizes[0];
  inputs.tokens = static_cast<std::int32_t>(sizes[1]);
  inputs.heads = static_cast<std::int32_t>(sizes[2]);
  inputs.head_dim = static_cast<std::int32_t>(sizes[3]);
  inputs.element = sizes[4] != 0 ? Element::float16 : Element::bfloat16;
  inputs.q_prescaled = sizes[5] != 0;
  inputs.scale = scale;
}

}  // namespace

extern "C" {

/// Writes the plan to `bytes` and returns its length, or -1 if it does not fit `capacity` or can't be made.
/// @param units  height of the tiles, 0 for the plan's own choice
std::int64_t oriel_attention_plan(const std::int32_t* cu_seqlens, std::int64_t sequences, int heads, int head_dim,
                                  int sm_count, int units, void* bytes, std::int64_t capacity, std::int32_t* blocks) {
  try {
    const std::size_t size = static_cast<std::size_t>(sequences) + 1;
    const AttentionPlan plan = units == 0
                                   ? plan_attention(cu_seqlens, size, heads, head_dim, sm_count)
                                   : plan_attention_of_height(cu_seqlens, size, heads, head_dim, sm_count, units);
    if (static_cast<std::int64_t>(plan.bytes.size()) > capacity) return -1;
    std::memcpy(bytes, plan.bytes.data(), plan.bytes.size());
    *blocks = plan.blocks;
    return static_cast<std::int64_t>(plan.bytes.size());
  } catch (const std::exception&) {
    return -1;
  }
}

std::int64_t oriel_attention_plan_bytes(std::int64_t tokens, std::int64_t sequences, int heads, int head_dim,
                                        int sm_count) {
  return static_cast<std::int64_t>(attention_plan_bytes(tokens, sequences, heads, head_dim, sm_count));
}

int oriel_attention_sm90(const void* qkv, void* out, const std::int64_t* sizes, float scale, const void* plan,
                         std::int32_t blocks, cudaStream_t stream) {
  AttentionSm90Params params;
  read_inputs(qkv, out, sizes, scale, params);
  params.plan = plan;
  params.blocks = blocks;
  return attention_sm90(params, stream);
}

int oriel_attention_window(const void* qkv, void* out, const std::int64_t* sizes, float scale,
                           const std::int32_t* cu_seqlens, std::int32_t windows, std::int32_t longest,
                           cudaStream_t stream) {
  AttentionWindowParams params;
  read_inputs(qkv, out, sizes, scale, params);
  params.cu_seqlens = cu_seqlens;
  params.windows = windows;
  params.longest = longest;
  return attention_window(params, stream);
}

}  // extern "C"
