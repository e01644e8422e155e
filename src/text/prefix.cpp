#include "text/prefix.hpp"

#include <algorithm>

namespace oriel::text {
namespace {

size_t axes_of(const Sequence& sequence) { return sequence.positions.size() / sequence.ids.size(); }

bool agree(const Sequence& a, const Sequence& b, size_t token) {
  const size_t axes = axes_of(a);
  return a.ids[token] == b.ids[token] &&
         std::ranges::equal(a.positions.subspan(token * axes, axes), b.positions.subspan(token * axes, axes));
}

/// `cut`, or the begin of the block that it lies in.
int64_t before_block(std::span<const Block> blocks, int64_t cut) {
  for (const auto& [begin, end] : blocks)
    if (begin < cut && cut < end) return begin;
  return cut;
}

}  // namespace

int64_t reusable_prefix(const Sequence& cached, const Sequence& prompt) {
  if (cached.ids.empty() || prompt.ids.empty() || axes_of(cached) != axes_of(prompt)) return 0;
  const size_t longest = std::min(cached.ids.size(), prompt.ids.size() - 1);
  size_t token = 0;
  while (token < longest && agree(cached, prompt, token)) ++token;
  auto cut = static_cast<int64_t>(token);
  // Backing off for one may lead into a block of the other.
  for (int64_t before = -1; before != cut;) {
    before = cut;
    cut = before_block(prompt.blocks, before_block(cached.blocks, cut));
  }
  return cut;
}

}  // namespace oriel::text
