#include "ops/cuda/causal_attention.hpp"

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "causal_attention.h"
#include "causal_attention_plan.h"
#include "ops/cuda/launch.hpp"
#include "ops/device.hpp"

namespace oriel::ops::cuda {
namespace {

constexpr int64_t most_rows = std::numeric_limits<int32_t>::max();

/// One call over all stretches, of which those without `keys` get zeros. Keys lie anywhere: each stretch says where its
/// own begin and, by `keys`, how many they are.
at::Tensor flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const FlashStretches& stretches,
                 const at::Tensor& keys, bool is_causal, int64_t window, double scale) {
  // Queries of one token each would take a path of their own, and then their bits would depend on what is beside them.
  const int64_t most_queries = std::max<int64_t>(2, stretches.most_queries);
  // libtorch counts in 32 bits what it takes in 64; that many keys are all that there are.
  const auto left = window > 0 ? std::optional(std::min(window - 1, most_rows)) : std::nullopt;
  return std::get<0>(at::_flash_attention_forward(
      q, k, v, stretches.query_bounds, stretches.key_begins, most_queries, stretches.most_keys, /*dropout_p=*/0.0,
      is_causal, /*return_debug_mask=*/false, scale, left, /*window_size_right=*/std::nullopt, keys));
}

}  // namespace

bool has_tiles(std::span<const CausalRun> runs, const DecodeShape& shape, at::ScalarType dtype, c10::Device device) {
  if (!has_flash(runs, shape, dtype, device)) return false;
  const Chip chip = chip_of(device);
  if (!chip.has_sm90_code) return false;
  const kernels::CausalAttentionParams params{.heads = static_cast<int32_t>(shape.heads),
                                              .kv_heads = static_cast<int32_t>(shape.kv_heads),
                                              .head_dim = static_cast<int32_t>(shape.head_dim)};
  return kernels::causal_attention_supports(params, chip.major, chip.minor);
}

CausalTiles place_tiles(std::span<const CausalRun> runs, const DecodeShape& shape, int64_t window, c10::Device device) {
  std::vector<kernels::AttentionRun> stretches;
  for (const CausalRun& run : runs)
    for (const CausalStretch& stretch : cut_at_blocks(run))
      stretches.push_back({.query_begin = static_cast<int32_t>(stretch.query_begin),
                           .key_begin = static_cast<int32_t>(stretch.key_begin),
                           .queries = static_cast<int32_t>(stretch.queries),
                           .keys = static_cast<int32_t>(stretch.keys),
                           .causal = !stretch.is_block});
  const kernels::AttentionPlan plan =
      kernels::plan_causal_attention(stretches, {.heads = static_cast<int>(shape.heads),
                                                 .kv_heads = static_cast<int>(shape.kv_heads),
                                                 .head_dim = static_cast<int>(shape.head_dim),
                                                 .window = static_cast<int32_t>(std::min(window, most_rows)),
                                                 .sm_count = chip_of(device).processors});
  return {to_device(plan.bytes.data(), static_cast<int64_t>(plan.bytes.size()), at::kByte, device), plan.blocks};
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const CausalTiles& tiles,
                            double scale) {
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  check(kernels::causal_attention({.queries = q.const_data_ptr(),
                                   .keys = k.const_data_ptr(),
                                   .values = v.const_data_ptr(),
                                   .out = out.mutable_data_ptr(),
                                   .query_stride = q.stride(0),
                                   .key_stride = k.stride(0),
                                   .value_stride = v.stride(0),
                                   .tokens = static_cast<int32_t>(q.size(0)),
                                   .key_rows = static_cast<int32_t>(std::min(k.size(0), most_rows)),
                                   .heads = static_cast<int32_t>(q.size(1)),
                                   .kv_heads = static_cast<int32_t>(k.size(1)),
                                   .head_dim = static_cast<int32_t>(q.size(2)),
                                   .element = element_of(q),
                                   .scale = static_cast<float>(scale),
                                   .plan = tiles.plan.const_data_ptr(),
                                   .blocks = tiles.blocks},
                                  stream_of(q)),
        "causal_attention");
  return out;
}

bool has_flash(std::span<const CausalRun> runs, const DecodeShape& shape, at::ScalarType dtype, c10::Device device) {
  if (!device.is_cuda() || (dtype != at::kBFloat16 && dtype != at::kHalf) || chip_of(device).major < 8) return false;
  return shape.head_dim % 8 == 0 && shape.head_dim <= 256 &&
         std::all_of(runs.begin(), runs.end(), [](const CausalRun& run) {
           return run.query_begin + run.queries <= most_rows && run.key_begin + run.keys <= most_rows;
         });
}

FlashStretches place_stretches(std::span<const CausalRun> runs, c10::Device device) {
  std::vector<CausalStretch> all;
  for (const CausalRun& run : runs)
    for (const CausalStretch& stretch : cut_at_blocks(run)) all.push_back(stretch);
  const auto count = static_cast<int64_t>(all.size());
  at::Tensor numbers = at::empty({4, count + 1}, at::kInt);
  const auto row = [&](int64_t index) { return numbers.mutable_data_ptr<int32_t>() + index * (count + 1); };
  FlashStretches result;
  bool has_blocks = false;
  for (int64_t i = 0; i < count; ++i) {
    const CausalStretch& stretch = all[static_cast<size_t>(i)];
    const auto keys = static_cast<int32_t>(stretch.keys);
    row(0)[i] = static_cast<int32_t>(stretch.query_begin);
    row(1)[i] = static_cast<int32_t>(stretch.key_begin);
    row(2)[i] = stretch.is_block ? 0 : keys;
    row(3)[i] = stretch.is_block ? keys : 0;
    has_blocks = has_blocks || stretch.is_block;
    result.most_queries = std::max(result.most_queries, stretch.queries);
    result.most_keys = std::max(result.most_keys, stretch.keys);
  }
  row(0)[count] = static_cast<int32_t>(all.back().query_begin + all.back().queries);
  for (int64_t i = 1; i < 4; ++i) row(i)[count] = 0;
  const at::Tensor on_device = upload(numbers, device);
  result.query_bounds = on_device[0];
  result.key_begins = on_device[1];
  result.text_keys = on_device[2].narrow(0, 0, count);
  if (has_blocks) result.block_keys = on_device[3].narrow(0, 0, count);
  return result;
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const FlashStretches& stretches, int64_t window, double scale) {
  at::Tensor out = flash(q, k, v, stretches, stretches.text_keys, /*is_causal=*/true, window, scale);
  // Where one call computes, the other has zeros.
  if (stretches.block_keys.defined())
    out.add_(flash(q, k, v, stretches, stretches.block_keys, /*is_causal=*/false, window, scale));
  return out.view({q.size(0), q.size(1) * q.size(2)});
}

}  // namespace oriel::ops::cuda
