// The host's half of causal_attention: which block computes which tiles, in which order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

#include "attention_plan.h"

namespace oriel::kernels {

/// Neighbouring tokens of one sequence: the last `queries` of its first `keys` tokens. Of these keys, each query sees
/// those up to itself, or all of them; and where there is a window, only those from itself - window + 1 on.
struct AttentionRun {
  std::int32_t query_begin = 0;  ///< row of the first query, and of its output
  std::int32_t key_begin = 0;    ///< row of the sequence's first key and value
  std::int32_t queries = 0;
  std::int32_t keys = 0;  ///< at least `queries`
  bool causal = true;     ///< false: all keys, such as the pictures of some prompts have it
};

struct CausalPlanShape {
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  std::int32_t window = 0;  ///< 0: none
  int sm_count = 0;
};

/// Depends on its arguments alone: the same plan serves all layers with this window. Runs without queries are allowed.
/// @throws std::invalid_argument  runs or shape that contradict themselves
AttentionPlan plan_causal_attention(const AttentionRun* runs, std::size_t count, const CausalPlanShape& shape);

/// The same for anything contiguous.
template <class Contiguous>
AttentionPlan plan_causal_attention(const Contiguous& runs, const CausalPlanShape& shape) {
  return plan_causal_attention(std::data(runs), std::size(runs), shape);
}

}  // namespace oriel::kernels
