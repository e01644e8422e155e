#include "tower_arrangement.hpp"

#include <algorithm>
#include <utility>

namespace oriel {
namespace {

int64_t bytes_of(const PlacedArrangement& arrangement) {
  const nn::VitInput& input = arrangement.input;
  int64_t bytes = 0;
  for (const at::Tensor& x :
       {arrangement.order, input.positions, input.rotary.cos, input.rotary.sin, input.rotary.turns,
        input.segments.cu_seqlens, input.segments.plan, input.window_segments.cu_seqlens, input.window_segments.plan})
    if (x.defined()) bytes += static_cast<int64_t>(x.nbytes());
  return bytes;
}

int64_t patches_of(const std::vector<Grid>& grids) {
  int64_t patches = 0;
  for (const Grid& grid : grids) patches += grid.patches();
  return patches;
}

}  // namespace

std::shared_ptr<const PlacedArrangement> ArrangementCache::get(const std::vector<Grid>& grids, int64_t stream,
                                                               const Make& make) {
  const int64_t patches = patches_of(grids);
  if (patches > most_patches) return std::make_shared<const PlacedArrangement>(make());
  Kept& kept = patches <= small_patches ? small_ : large_;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = kept.find(grids, stream); found != kept.entries.end()) {
      kept.entries.splice(kept.entries.begin(), kept.entries, found);
      return kept.entries.front().arrangement;
    }
  }
  auto made = std::make_shared<const PlacedArrangement>(make());
  const int64_t bytes = bytes_of(*made);
  if (bytes > most_bytes) return made;
  const std::lock_guard lock(mutex_);
  kept.entries.push_front({grids, stream, made, bytes});
  kept.bytes += bytes;
  for (; kept.bytes > most_bytes; kept.entries.pop_back()) kept.bytes -= kept.entries.back().bytes;
  return made;
}

bool ArrangementCache::holds(const std::vector<Grid>& grids, int64_t stream) const {
  const Kept& kept = patches_of(grids) <= small_patches ? small_ : large_;
  const std::lock_guard lock(mutex_);
  return kept.find(grids, stream) != kept.entries.end();
}

std::list<ArrangementCache::Entry>::const_iterator ArrangementCache::Kept::find(const std::vector<Grid>& grids,
                                                                                int64_t stream) const {
  return std::find_if(entries.begin(), entries.end(),
                      [&](const Entry& entry) { return entry.stream == stream && entry.grids == grids; });
}

}  // namespace oriel
