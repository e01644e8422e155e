#pragma once
// How much of a prompt a KV cache holds already.
#include <cstdint>
#include <span>
#include <utility>

namespace oriel::text {

/// Half-open range of tokens that see each other in both directions.
using Block = std::pair<int64_t, int64_t>;

/// A sequence of tokens, or what a slot of the cache holds of one.
struct Sequence {
  std::span<const int64_t> ids = {};
  std::span<const int64_t> positions = {};  ///< [axes, stride], of which the first ids.size() columns count
  int64_t axes = 0;
  int64_t stride = 0;
  std::span<const Block> blocks = {};  ///< ascending
};

/// Tokens at the begin of `prompt` whose keys and values in `cached` are those of the prompt: ids and positions agree,
/// no block of either is cut, and at least the last token is left to compute.
[[nodiscard]] int64_t reusable_prefix(const Sequence& cached, const Sequence& prompt);

}  // namespace oriel::text
