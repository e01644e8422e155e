// Who gets which slot of the cache, and what of it is of use to a new prompt.
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <utility>

#include "generator_impl.hpp"

namespace oriel {

std::vector<int64_t> by_token(const at::Tensor& positions) {
  const at::Tensor columns = positions.t().contiguous();
  const int64_t* first = columns.const_data_ptr<int64_t>();
  return {first, first + columns.numel()};
}

Generator::Impl::Prefix Generator::Impl::longest_prefix(const Job& job) const {
  Prefix best;
  if (job.options.prompt_logits) return best;  // there are none of what is not computed
  for (size_t i = 0; i < slots.size(); ++i) {
    const int64_t tokens = text::reusable_prefix({slots[i].ids, slots[i].positions, slots[i].blocks}, job.sequence());
    if (tokens > best.tokens || (tokens == best.tokens && !slots[best.slot].is_free)) best = {i, tokens};
  }
  return best;
}

bool Generator::Impl::is_being_computed(const Job& job) const {
  if (job.options.prompt_logits) return false;
  const int64_t there = longest_prefix(job).tokens;
  return std::ranges::any_of(jobs, [&](const auto& entry) {
    const Job& other = entry.second;
    return other.slot >= 0 && !other.is_prefilled() && text::reusable_prefix(other.sequence(), job.sequence()) > there;
  });
}

void Generator::Impl::start(Job& job) {
  const auto [source, tokens] = longest_prefix(job);
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
    slots[target].ids.clear();  // holds nothing, should something fail on the way
    if (tokens > 0 && target != source)
      cache.copy_prefix(static_cast<int64_t>(source), static_cast<int64_t>(target), tokens);
  }

  Slot& slot = slots[target];
  slot.blocks = job.blocks;
  slot.positions.assign(job.positions.begin(), job.positions.begin() + tokens * job.prompt.positions.size(0));
  slot.ids.assign(job.prompt.ids.begin(), job.prompt.ids.begin() + tokens);
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
  // A job that failed may leave NaN behind, which a mask does not hide: zero times NaN is NaN. (On a GPU the slots of a
  // batch are read to the end of the longest.)
  const c10::InferenceMode guard;
  for (int64_t layer = 0; layer < cache.shape().layers; ++layer) {
    cache.layer(layer).keys.select(0, index).zero_();
    cache.layer(layer).values.select(0, index).zero_();
  }
}

}  // namespace oriel
