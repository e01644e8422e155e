#include "tower_arrangement.hpp"

#include <algorithm>
#include <utility>

namespace oriel {

std::shared_ptr<const PlacedArrangement> ArrangementCache::get(const std::vector<Grid>& grids, int64_t stream,
                                                               const Make& make) {
  int64_t patches = 0;
  for (const Grid& grid : grids) patches += grid.patches();
  if (patches > most_patches) return std::make_shared<const PlacedArrangement>(make());
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(entries_.begin(), entries_.end(),
                                    [&](const Entry& entry) { return entry.stream == stream && entry.grids == grids; });
    if (found != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, found);
      return found->arrangement;
    }
  }
  auto made = std::make_shared<const PlacedArrangement>(make());
  const std::lock_guard lock(mutex_);
  entries_.push_front({grids, stream, made});
  if (entries_.size() > most) entries_.pop_back();
  return made;
}

}  // namespace oriel
