// The launcher of causal_attention with C names, for causal_attention_bench.py.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>

#include "../causal_attention.h"
#include "../causal_attention_plan.h"

using namespace oriel::kernels;

extern "C" {

/// Of one run. int32 sizes: query_begin, key_begin, queries, keys, causal, heads, kv_heads, head_dim, window, sm_count.
/// Writes the plan to `bytes` and returns its length, or -1 if it does not fit `capacity` or can't be made.
std::int64_t oriel_causal_attention_plan(const std::int32_t* sizes, void* bytes, std::int64_t capacity,
                                         std::int32_t* blocks) {
  try {
    const AttentionRun run{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4] != 0};
    const AttentionPlan plan = plan_causal_attention(&run, 1, {sizes[5], sizes[6], sizes[7], sizes[8], sizes[9]});
    if (static_cast<std::int64_t>(plan.bytes.size()) > capacity) return -1;
    std::memcpy(bytes, plan.bytes.data(), plan.bytes.size());
    *blocks = plan.blocks;
    return static_cast<std::int64_t>(plan.bytes.size());
  } catch (const std::exception&) {
    return -1;
  }
}

/// int64 sizes: query_stride, key_stride, value_stride, tokens, key_rows, heads, kv_heads, head_dim, q_prescaled;
/// bfloat16.
int oriel_causal_attention(const void* queries, const void* keys, const void* values, void* out,
                           const std::int64_t* sizes, float scale, const void* plan, std::int32_t blocks,
                           cudaStream_t stream) {
  CausalAttentionParams params;
  params.queries = queries;
  params.keys = keys;
  params.values = values;
  params.out = out;
  params.query_stride = sizes[0];
  params.key_stride = sizes[1];
  params.value_stride = sizes[2];
  params.tokens = static_cast<std::int32_t>(sizes[3]);
  params.key_rows = static_cast<std::int32_t>(sizes[4]);
  params.heads = static_cast<std::int32_t>(sizes[5]);
  params.kv_heads = static_cast<std::int32_t>(sizes[6]);
  params.head_dim = static_cast<std::int32_t>(sizes[7]);
  params.q_prescaled = sizes[8] != 0;
  params.element = Element::bfloat16;
  params.scale = scale;
  params.plan = plan;
  params.blocks = blocks;
  return causal_attention(params, stream);
}

}  // extern "C"
