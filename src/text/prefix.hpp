#pragma once
// How much of a prompt a KV cache holds already.
#include <cstdint>
#include <span>

namespace oriel::text {

/// Tokens [begin, end) that see each other in both directions.
struct Block {
  int64_t begin = 0;
  int64_t end = 0;
};

/// A sequence of tokens, or what a slot of the cache holds of one.
struct Sequence {
  std::span<const int64_t> ids = {};
  std::span<const int64_t> positions = {};  ///< [ids, axes]
  std::span<const Block> blocks = {};       ///< ascending
};

/// Tokens at the begin of `prompt` whose keys and values in `cached` are those of the prompt: ids and positions agree,
/// no block of either is cut, and at least the last token is left to compute.
[[nodiscard]] int64_t reusable_prefix(const Sequence& cached, const Sequence& prompt);

}  // namespace oriel::text
