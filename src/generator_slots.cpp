// Who gets which slot of the cache, and what of it is of use to a new prompt.
#include <algorithm>
#include <utility>

#include "generator_impl.hpp"
#include "nn/decoder.hpp"

namespace oriel {

std::vector<int64_t> by_token(const at::Tensor& positions) {
  const at::Tensor columns = positions.t().contiguous();
  const int64_t* first = columns.const_data_ptr<int64_t>();
  return {first, first + columns.numel()};
}

void Generator::Impl::start(Job& job) {
  const std::vector<int64_t> positions = by_token(job.prompt.positions);
  std::vector<text::Block> blocks;
  for (const nn::TokenRange& block : job.prompt.blocks) blocks.push_back({block.begin, block.end});
  const text::Sequence prompt{job.prompt.ids, positions, blocks};

  size_t source = 0;
  int64_t tokens = 0;
  for (size_t i = 0; i < slots.size(); ++i) {
    const int64_t found = text::reusable_prefix({slots[i].ids, slots[i].positions, slots[i].blocks}, prompt);
    if (found > tokens || (found == tokens && !slots[source].is_free)) source = i, tokens = found;
  }
  // The slot itself where at least half of what it holds is of use; else a copy of that, in place of what was used
  // least recently.
  const bool takes_over =
      tokens > 0 && slots[source].is_free && std::cmp_greater_equal(2 * tokens, slots[source].ids.size());
  size_t target = source;
  if (!takes_over) {
    const auto is_better = [](const Slot& a, const Slot& b) {
      return std::pair(!a.is_free, a.last_used) < std::pair(!b.is_free, b.last_used);
    };
    target = static_cast<size_t>(std::ranges::min_element(slots, is_better) - slots.begin());
    if (tokens > 0 && target != source)
      cache.copy_prefix(static_cast<int64_t>(source), static_cast<int64_t>(target), tokens);
  }

  Slot& slot = slots[target];
  slot.ids.assign(job.prompt.ids.begin(), job.prompt.ids.begin() + tokens);
  slot.positions.assign(positions.begin(), positions.begin() + tokens * job.prompt.positions.size(0));
  slot.blocks = std::move(blocks);
  slot.is_free = false;
  slot.last_used = ++uses;
  job.slot = static_cast<int64_t>(target);
  job.prefilled = tokens;
  job.result.reused_tokens = tokens;
  job.started = Clock::now();
}

void Generator::Impl::forget(Slot& slot) {
  const int64_t index = &slot - slots.data();
  slot.ids.clear();
  slot.positions.clear();
  slot.blocks.clear();
  // A job that failed may leave NaN behind, which a mask does not hide: zero times NaN is NaN.
  try {
    for (int64_t layer = 0; layer < cache.shape().layers; ++layer) {
      cache.layer(layer).keys.select(0, index).zero_();
      cache.layer(layer).values.select(0, index).zero_();
    }
  } catch (const c10::Error&) {  // the device is lost: every later job says so itself
  }
}

}  // namespace oriel
