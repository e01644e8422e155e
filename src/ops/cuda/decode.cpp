#include "ops/cuda/decode.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "decode.h"
#include "ops/cuda/launch.hpp"

namespace oriel::ops::cuda {
namespace {

/// Tokens whose attention is computed at once, since each takes scratch for all parts of its keys. With as many blocks
/// every chip is busy, and no token's bits depend on the others.
constexpr int64_t most_attended = 64;

const void* data_or_null(const at::Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; }
void* room_or_null(const at::Tensor& x) { return x.defined() ? x.mutable_data_ptr() : nullptr; }
const int64_t* slots_of(const CachedTokens& cached) { return cached.places.const_data_ptr<int64_t>(); }
const int64_t* lengths_of(const CachedTokens& cached) { return slots_of(cached) + cached.places.stride(0); }

}  // namespace

bool has_decode_kernels(const DecodeShape& shape, at::ScalarType dtype, c10::Device device) {
  if (!device.is_cuda()) return false;
  const bool knows_dtype = dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
  return knows_dtype && kernels::decode_attention_supports(shape.heads, shape.kv_heads, shape.head_dim);
}

at::Tensor token_turns(const at::Tensor& positions, const at::Tensor& frequencies, const at::Tensor& axes) {
  const int64_t tokens = positions.size(1);
  const int64_t pairs = frequencies.size(0);
  at::Tensor turns = at::empty({tokens, 2 * pairs}, frequencies.options());
  check(kernels::token_turns({.positions = positions.const_data_ptr<int64_t>(),
                              .frequencies = frequencies.const_data_ptr<float>(),
                              .axes = axes.defined() ? axes.const_data_ptr<int64_t>() : nullptr,
                              .turns = turns.mutable_data_ptr<float>(),
                              .tokens = tokens,
                              .pairs = pairs,
                              .position_stride = positions.stride(0)},
                             stream_of(turns)),
        "token_turns");
  return turns;
}

void rotate_and_store(const at::Tensor& qkv, const at::Tensor& turns, const HeadNorms& norms, int64_t heads,
                      const CachedTokens& cached) {
  const bool has_cache = cached.keys.defined();
  check(kernels::rotate_and_store({.qkv = qkv.mutable_data_ptr(),
                                   .turns = turns.const_data_ptr<float>(),
                                   .query_norm = data_or_null(norms.query),
                                   .key_norm = data_or_null(norms.key),
                                   .keys = room_or_null(cached.keys),
                                   .values = room_or_null(cached.values),
                                   .slots = has_cache ? slots_of(cached) : nullptr,
                                   .lengths = has_cache ? lengths_of(cached) : nullptr,
                                   .tokens = qkv.size(0),
                                   .heads = heads,
                                   .kv_heads = (qkv.size(1) - heads) / 2,
                                   .head_dim = qkv.size(2),
                                   .capacity = has_cache ? cached.keys.size(1) : 0,
                                   .eps = static_cast<float>(norms.eps),
                                   .weight_plus_one = norms.is_offset,
                                   .element = element_of(qkv)},
                                  stream_of(qkv)),
        "rotate_and_store");
}

at::Tensor decode_attention(const at::Tensor& qkv, int64_t heads, const CachedTokens& cached, int64_t window,
                            double scale) {
  const int64_t tokens = qkv.size(0);
  const int64_t capacity = cached.keys.size(1);
  const int64_t kv_heads = cached.keys.size(2);
  const int64_t head_dim = cached.keys.size(3);
  // A file's window may be wider than any cache, and than the kernel counts.
  const bool is_cut = window > 0 && window < capacity;
  const int64_t seen = is_cut ? window : capacity;
  const kernels::Element element = element_of(qkv);
  const bool on_matrix_units = kernels::decode_attention_has_units(element, chip_of(qkv.device()).major);
  const int32_t splits = kernels::decode_attention_splits(kv_heads, seen);
  const int64_t together = std::min(tokens, most_attended);
  const at::Tensor partial = at::empty({kernels::decode_attention_scratch(together, heads, head_dim, splits)},
                                       qkv.options().dtype(at::kFloat));
  at::Tensor out = at::empty({tokens, heads * head_dim}, qkv.options());
  for (int64_t first = 0; first < tokens; first += together) {
    const int64_t count = std::min(together, tokens - first);
    check(kernels::decode_attention({.q = qkv.narrow(0, first, count).const_data_ptr(),
                                     .keys = cached.keys.const_data_ptr(),
                                     .values = cached.values.const_data_ptr(),
                                     .slots = slots_of(cached) + first,
                                     .lengths = lengths_of(cached) + first,
                                     .partial = partial.mutable_data_ptr<float>(),
                                     .out = out.narrow(0, first, count).mutable_data_ptr(),
                                     .q_stride = qkv.stride(0),
                                     .tokens = count,
                                     .heads = heads,
                                     .kv_heads = kv_heads,
                                     .head_dim = head_dim,
                                     .capacity = capacity,
                                     .window = is_cut ? window : 0,
                                     .splits = splits,
                                     .scale = static_cast<float>(scale),
                                     .element = element,
                                     .on_matrix_units = on_matrix_units},
                                    stream_of(qkv)),
          "decode_attention");
  }
  return out;
}

at::Tensor greedy_choices(const at::Tensor& logits) {
  using Params = kernels::GreedyParams;
  const at::Tensor dense = logits.stride(-1) == 1 ? logits : logits.contiguous();
  const int64_t rows = dense.size(0);
  const at::Tensor scratch = at::empty({2 * rows * Params::parts}, dense.options().dtype(at::kDouble));
  at::Tensor choices = at::empty({2, rows}, scratch.options());
  check(kernels::choose_greedily({.logits = dense.const_data_ptr<float>(),
                                  .scratch = scratch.mutable_data_ptr(),
                                  .choices = choices.mutable_data_ptr<double>(),
                                  .rows = rows,
                                  .width = dense.size(1),
                                  .stride = dense.stride(0)},
                                 stream_of(dense)),
        "choose_greedily");
  return choices;
}

}  // namespace oriel::ops::cuda
