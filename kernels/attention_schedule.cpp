#include "attention_schedule.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <utility>

namespace oriel::kernels {

Schedule schedule_tiles(const std::vector<EqualTiles>& tiles, int sm_count) {
  using Free = std::pair<double, std::int32_t>;  // when, which block; ties go to the lower number
  std::priority_queue<Free, std::vector<Free>, std::greater<>> blocks;
  std::int64_t count = 0;
  for (const EqualTiles& some : tiles) count += some.count;
  for (std::int32_t b = 0; b < std::min<std::int64_t>(sm_count, count); ++b) blocks.emplace(0.0, b);
  Schedule schedule;
  schedule.blocks.reserve(static_cast<std::size_t>(count));
  for (const EqualTiles& some : tiles) {
    for (std::int64_t i = 0; i < some.count; ++i) {
      const auto [free, block] = blocks.top();
      blocks.pop();
      schedule.blocks.push_back(block);
      schedule.finish = std::max(schedule.finish, free + some.cost);
      blocks.emplace(free + some.cost, block);
    }
  }
  return schedule;
}

std::vector<std::int32_t> first_tiles(const Schedule& schedule) {
  // The first tiles go to the blocks in turn, so that the highest number tells how many there are.
  const std::int32_t last_block = *std::max_element(schedule.blocks.begin(), schedule.blocks.end());
  std::vector<std::int32_t> first(static_cast<std::size_t>(last_block) + 2, 0);
  for (const std::int32_t block : schedule.blocks) ++first[static_cast<std::size_t>(block) + 1];
  for (std::size_t b = 1; b < first.size(); ++b) first[b] += first[b - 1];
  return first;
}

}  // namespace oriel::kernels
