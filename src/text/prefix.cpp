#include "text/prefix.hpp"

#include <algorithm>

namespace oriel::text {
namespace {

bool agree(const Sequence& a, const Sequence& b, size_t token) {
  if (a.ids[token] != b.ids[token]) return false;
  for (int64_t axis = 0; axis < a.axes; ++axis)
    if (a.positions[static_cast<size_t>(axis * a.stride) + token] !=
        b.positions[static_cast<size_t>(axis * b.stride) + token])
      return false;
  return true;
}

/// `cut`, or the begin of the block that it lies in.
int64_t before_block(std::span<const Block> blocks, int64_t cut) {
  for (const auto& [begin, end] : blocks)
    if (begin < cut && cut < end) return begin;
  return cut;
}

}  // namespace

int64_t reusable_prefix(const Sequence& cached, const Sequence& prompt) {
  if (cached.axes != prompt.axes || prompt.ids.empty()) return 0;
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
