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

}  // namespace

std::shared_ptr<const PlacedArrangement> ArrangementCache::get(const std::vector<Grid>& grids, int64_t stream,
                                                               const Make& make) {
  int64_t patches = 0;
  for (const Grid& grid : grids) patches += grid.patches();
  if (patches > most_patches) return std::make_shared<const PlacedArrangement>(make());
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = find(grids, stream); found != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, found);
      return entries_.front().arrangement;
    }
  }
  auto made = std::make_shared<const PlacedArrangement>(make());
  const int64_t bytes = bytes_of(*made);
  if (bytes > most_bytes) return made;
  const std::lock_guard lock(mutex_);
  entries_.push_front({grids, stream, made, bytes});
  bytes_ += bytes;
  for (; bytes_ > most_bytes; entries_.pop_back()) bytes_ -= entries_.back().bytes;
  return made;
}

bool ArrangementCache::holds(const std::vector<Grid>& grids, int64_t stream) const {
  const std::lock_guard lock(mutex_);
  return find(grids, stream) != entries_.end();
}

std::list<ArrangementCache::Entry>::const_iterator ArrangementCache::find(const std::vector<Grid>& grids,
                                                                          int64_t stream) const {
  return std::find_if(entries_.begin(), entries_.end(),
                      [&](const Entry& entry) { return entry.stream == stream && entry.grids == grids; });
}

}  // namespace oriel
