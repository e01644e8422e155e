#pragma once
// Attention of a decoder: queries are the newest tokens of a sequence, keys are all of its tokens.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

namespace oriel::ops {

/// Tokens [begin, end) of a sequence.
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;
  friend bool operator==(const TokenRange&, const TokenRange&) = default;
};

/// Which keys the queries `begin` .. `begin + tokens - 1` of a sequence see. Query i sees key j <= i; also every key of
/// the block that i is in, if it is in one; and of these, where `window` is set, only those with j > i - window.
struct Visibility {
  int64_t begin = 0;
  int64_t tokens = 0;
  int64_t window = 0;              ///< 0: none
  std::vector<TokenRange> blocks;  ///< in order, apart from each other
  std::vector<TokenRange> keys;    ///< those that each query sees: they are neighbours always
  at::Tensor bounds;               ///< int64 [2, tokens] on a GPU: begin and end of `keys`; undefined on the CPU
  bool causal = false;             ///< nothing but j <= i, from the sequence's beginning
};
[[nodiscard]] Visibility make_visibility(int64_t begin, int64_t tokens, int64_t window,
                                         std::span<const TokenRange> blocks, c10::Device device);

/// softmax(q k^T * scale) v over the visible keys. q [tokens, heads, head_dim]; k and v [at least begin + tokens,
/// kv_heads, head_dim], of which heads / kv_heads query heads in a row share one; any strides with a dense last
/// dimension. Result [tokens, heads * head_dim]. Nothing is copied for the sharing, and never more of a mask, and on a
/// GPU of scores under it, made than some hundred queries need.
[[nodiscard]] at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const Visibility& visibility, double scale);

/// The same with mask and scores written out.
[[nodiscard]] at::Tensor causal_attention_reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                    const Visibility& visibility, double scale);

/// One query each of several sequences, in one call for all. q [queries, heads, head_dim]; k and v [slots, capacity,
/// kv_heads, head_dim]; query i sees the newest `window` (0: all) of the first lengths[i] tokens of slots[i]. What lies
/// behind a slot's tokens must be finite.
struct SlotQueries {
  std::vector<int64_t> slots;
  std::vector<int64_t> lengths;
  at::Tensor places;  ///< int64 [2, queries] on a GPU: slot and length; undefined on the CPU
};
[[nodiscard]] SlotQueries make_slot_queries(std::vector<int64_t> slots, std::vector<int64_t> lengths,
                                            c10::Device device);
[[nodiscard]] at::Tensor slot_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                        const SlotQueries& queries, int64_t window, double scale);

}  // namespace oriel::ops
