#include "ops/causal_attention.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "core/error.hpp"
#include "ops/device.hpp"

namespace oriel::ops {
namespace {

// Queries that share one mask. More would compute more of what is masked, fewer would load keys more often.
constexpr int64_t masked_stretch = 256;
constexpr int64_t most_masked_scores = int64_t{1} << 24;  ///< written out at once on a GPU, in float32

constexpr float hidden_key = -std::numeric_limits<float>::infinity();

/// [tokens, kv_heads, head_dim] -> [kv_heads, group, tokens, head_dim] without a copy.
at::Tensor shared_by_group(const at::Tensor& x, int64_t group) {
  return x.transpose(0, 1).unsqueeze(1).expand({x.size(1), group, x.size(0), x.size(2)});
}

/// float32 [queries, keys]: 0 where the query sees the key, else minus infinity. Undefined if all see all.
at::Tensor mask_on_cpu(std::span<const TokenRange> queries, TokenRange keys) {
  if (std::all_of(queries.begin(), queries.end(), [&](const TokenRange& seen) { return seen == keys; })) return {};
  const int64_t columns = keys.end - keys.begin;
  at::Tensor mask = at::full({static_cast<int64_t>(queries.size()), columns}, hidden_key, at::kFloat);
  auto* row = mask.mutable_data_ptr<float>();
  for (const TokenRange& seen : queries) {
    std::fill(row + (seen.begin - keys.begin), row + (seen.end - keys.begin), 0.0F);
    row += columns;
  }
  return mask;
}

/// bool [queries, keys] on the GPU of `bounds` [2, queries].
at::Tensor mask_on_gpu(const at::Tensor& bounds, TokenRange keys) {
  const at::Tensor index = at::arange(keys.begin, keys.end, bounds.options());
  return at::logical_and(index >= bounds[0].unsqueeze(1), index < bounds[1].unsqueeze(1));
}

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

/// Attention on a GPU where a mask says what is seen (bool [rows, keys], or [.., 1, 1, rows, keys]): q [.., kv_heads,
/// group, rows, head_dim], k and v [.., kv_heads, keys, head_dim]. By products in float32: libtorch 2.11's fused kernel
/// gets the last query wrong where its last tile has one, such as with 129 queries.
at::Tensor attend_masked_on_gpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask,
                                double scale) {
  const int64_t group = q.size(-3);
  const int64_t rows = q.size(-2);
  // The heads that share keys are rows of one product.
  const at::Tensor side_by_side = q.to(at::kFloat).flatten(-3, -2);
  const at::Tensor scores = at::matmul(side_by_side, k.to(at::kFloat).transpose(-2, -1)).mul_(scale);
  const at::Tensor by_head = scores.unflatten(-2, {group, rows});
  by_head.masked_fill_(mask.logical_not(), hidden_key);
  return at::matmul(at::softmax(scores, -1), v.to(at::kFloat)).unflatten(-2, {group, rows}).to(q.scalar_type());
}

/// How many queries are attended together.
int64_t stretch_of(const at::Tensor& q, const Visibility& visibility) {
  if (q.is_cpu()) return masked_stretch;
  if (visibility.causal) return q.size(0);                                    // without a mask
  const int64_t scores = q.size(1) * (visibility.begin + visibility.tokens);  // of a query
  return std::clamp<int64_t>(most_masked_scores / scores, 1, masked_stretch);
}

/// The queries [first, first + count) of a run.
at::Tensor attend_stretch(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Visibility& visibility,
                          int64_t first, int64_t count, double scale) {
  const int64_t kv_heads = k.size(1);
  const int64_t group = q.size(1) / kv_heads;
  const std::span seen = std::span(visibility.keys).subspan(static_cast<size_t>(first), static_cast<size_t>(count));
  TokenRange keys = seen.front();
  for (const TokenRange& range : seen) keys = {std::min(keys.begin, range.begin), std::max(keys.end, range.end)};
  const at::Tensor part = q.narrow(0, first, count);
  const at::Tensor near_k = k.narrow(0, keys.begin, keys.end - keys.begin);
  const at::Tensor near_v = v.narrow(0, keys.begin, keys.end - keys.begin);
  if (count == 1) {
    // The heads that share keys are the rows of one small product.
    return at::scaled_dot_product_attention(part.view({1, kv_heads, group, q.size(2)}),
                                            near_k.transpose(0, 1).unsqueeze(0), near_v.transpose(0, 1).unsqueeze(0),
                                            {}, 0.0, /*is_causal=*/false, scale)
        .reshape({1, q.size(1) * q.size(2)});
  }
  const bool plain = visibility.causal && first == 0 && keys.end == count;
  const at::Tensor by_head = part.unflatten(1, {kv_heads, group}).permute({1, 2, 0, 3});  // [kv, group, tokens, D]
  at::Tensor out;
  if (!plain && visibility.bounds.defined()) {
    const at::Tensor mask = mask_on_gpu(visibility.bounds.narrow(1, first, count), keys);
    out = attend_masked_on_gpu(by_head, near_k.transpose(0, 1), near_v.transpose(0, 1), mask, scale);
  } else {
    const at::Tensor mask = plain ? at::Tensor() : mask_on_cpu(seen, keys);
    out = at::scaled_dot_product_attention(by_head, shared_by_group(near_k, group), shared_by_group(near_v, group),
                                           optional(mask), 0.0, plain, scale);
  }
  return out.permute({2, 0, 1, 3}).reshape({count, q.size(1) * q.size(2)});
}

}  // namespace

Visibility make_visibility(int64_t begin, int64_t tokens, int64_t window, std::span<const TokenRange> blocks,
                           c10::Device device) {
  Visibility result{.begin = begin,
                    .tokens = tokens,
                    .window = window,
                    .blocks = {blocks.begin(), blocks.end()},
                    .keys = {},
                    .bounds = {},
                    .causal = begin == 0};
  result.keys.reserve(static_cast<size_t>(tokens));
  auto block = blocks.begin();
  for (int64_t i = begin; i < begin + tokens; ++i) {
    while (block != blocks.end() && block->end <= i) ++block;
    const bool in_block = block != blocks.end() && block->begin <= i;
    const TokenRange seen{window > 0 ? std::max<int64_t>(0, i - window + 1) : 0, in_block ? block->end : i + 1};
    if (seen.end > begin + tokens)
      throw_error(ErrorCode::internal, "attention: the block [{}, {}) is cut at {}", block->begin, block->end,
                  begin + tokens);
    result.causal = result.causal && seen == TokenRange{0, i + 1};
    result.keys.push_back(seen);
  }
  if (device.is_cuda() && !result.causal) {
    at::Tensor bounds = at::empty({2, tokens}, at::kLong);
    auto* begins = bounds.mutable_data_ptr<int64_t>();
    for (int64_t i = 0; i < tokens; ++i) {
      begins[i] = result.keys[static_cast<size_t>(i)].begin;
      begins[tokens + i] = result.keys[static_cast<size_t>(i)].end;
    }
    result.bounds = upload(bounds, device);
  }
  return result;
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Visibility& visibility,
                            double scale) {
  const int64_t tokens = q.size(0);
  const int64_t stretch = stretch_of(q, visibility);
  if (tokens <= stretch) return attend_stretch(q, k, v, visibility, 0, tokens, scale);
  at::Tensor out = at::empty({tokens, q.size(1) * q.size(2)}, q.options());
  for (int64_t first = 0; first < tokens; first += stretch) {
    const int64_t count = std::min(stretch, tokens - first);
    out.narrow(0, first, count).copy_(attend_stretch(q, k, v, visibility, first, count, scale));
  }
  return out;
}

at::Tensor causal_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const Visibility& visibility, double scale) {
  const int64_t keys = visibility.begin + visibility.tokens;
  const int64_t group = q.size(1) / k.size(1);
  const auto heads_first = [&](const at::Tensor& x) {
    return x.narrow(0, 0, keys).transpose(0, 1).repeat_interleave(group, 0);  // [heads, keys, head_dim]
  };
  at::Tensor mask = at::full({visibility.tokens, keys}, hidden_key, at::kFloat);
  auto* values = mask.mutable_data_ptr<float>();
  for (int64_t row = 0; row < visibility.tokens; ++row)
    for (int64_t j = 0; j < keys; ++j) {
      const int64_t i = visibility.begin + row;
      bool seen = j <= i;
      for (const TokenRange& block : visibility.blocks)
        seen = seen || (block.begin <= i && i < block.end && block.begin <= j && j < block.end);
      if (visibility.window > 0) seen = seen && j > i - visibility.window;
      if (seen) values[row * keys + j] = 0.0F;
    }
  const at::Tensor scores = at::matmul(q.transpose(0, 1), heads_first(k).transpose(1, 2)) * scale;
  const at::Tensor weights = at::softmax(scores.to(at::kFloat) + mask.to(q.device()), -1).to(q.scalar_type());
  return at::matmul(weights, heads_first(v)).transpose(0, 1).flatten(1);
}

SlotQueries make_slot_queries(std::vector<int64_t> slots, std::vector<int64_t> lengths, c10::Device device) {
  SlotQueries result{.slots = std::move(slots), .lengths = std::move(lengths), .places = {}};
  if (device.is_cuda()) {
    const auto count = static_cast<int64_t>(result.slots.size());
    at::Tensor places = at::empty({2, count}, at::kLong);
    std::copy(result.slots.begin(), result.slots.end(), places.mutable_data_ptr<int64_t>());
    std::copy(result.lengths.begin(), result.lengths.end(), places.mutable_data_ptr<int64_t>() + count);
    result.places = upload(places, device);
  }
  return result;
}

namespace {

/// All slots between the first and the last asked for are computed, those between that nobody asks for in vain.
at::Tensor slot_attention_batched(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const SlotQueries& queries, int64_t window, double scale) {
  const auto [low, high] = std::minmax_element(queries.slots.begin(), queries.slots.end());
  const int64_t first = *low;
  const int64_t count = *high - first + 1;
  const int64_t keys = *std::max_element(queries.lengths.begin(), queries.lengths.end());
  const int64_t kv_heads = k.size(2);
  const at::Tensor place = queries.places[0] - first;
  const at::Tensor length = at::full({count}, 1, place.options()).index_copy_(0, place, queries.places[1]);
  const at::Tensor index = at::arange(keys, length.options());
  at::Tensor mask = index < length.unsqueeze(1);
  if (window > 0) mask = at::logical_and(mask, index >= length.unsqueeze(1) - window);
  const at::Tensor by_slot = at::zeros({count, q.size(1), q.size(2)}, q.options()).index_copy_(0, place, q);
  const auto near = [&](const at::Tensor& x) {
    return x.narrow(0, first, count).narrow(1, 0, keys).transpose(1, 2);  // [count, kv_heads, keys, head_dim]
  };
  const at::Tensor by_head = by_slot.unflatten(1, {kv_heads, q.size(1) / kv_heads}).unsqueeze(3);
  return attend_masked_on_gpu(by_head, near(k), near(v), mask.view({count, 1, 1, 1, keys}), scale)
      .reshape({count, q.size(1) * q.size(2)})
      .index_select(0, place);
}

}  // namespace

at::Tensor slot_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const SlotQueries& queries,
                          int64_t window, double scale) {
  if (queries.places.defined()) return slot_attention_batched(q, k, v, queries, window, scale);
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  for (size_t i = 0; i < queries.slots.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    const int64_t length = queries.lengths[i];
    const Visibility newest{.begin = length - 1,
                            .tokens = 1,
                            .window = window,
                            .blocks = {},
                            .keys = {{window > 0 ? std::max<int64_t>(0, length - window) : 0, length}},
                            .bounds = {},
                            .causal = false};
    out.narrow(0, row, 1).copy_(attend_stretch(q.narrow(0, row, 1), k.select(0, queries.slots[i]),
                                               v.select(0, queries.slots[i]), newest, 0, 1, scale));
  }
  return out;
}

}  // namespace oriel::ops
