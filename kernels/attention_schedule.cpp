#include "attention_schedule.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace oriel::kernels {

namespace {

/// When a block is free, and which; ties go to the lower number.
using Free = std::pair<double, std::int32_t>;

/// A heap whose first is free first: gives that a new time, and moves it to its place.
void put_back(std::vector<Free>& heap, double until) {
  const Free value{until, heap.front().second};
  std::size_t at = 0;
  for (std::size_t child = 1; child < heap.size(); child = 2 * at + 1) {
    if (child + 1 < heap.size() && heap[child + 1] < heap[child]) ++child;
    if (value < heap[child]) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = value;
}

}  // namespace

Schedule schedule_tiles(const std::vector<EqualTiles>& tiles, int sm_count, double worth) {
  std::int64_t count = 0;
  double work = 0;
  for (const EqualTiles& some : tiles) {
    count += some.count;
    work += static_cast<double>(some.count) * some.cost;
  }
  Schedule schedule;
  schedule.finish = work / sm_count;
  if (schedule.finish >= worth) return schedule;
  schedule.finish = 0;
  std::vector<Free> blocks;
  for (std::int32_t b = 0; b < std::min<std::int64_t>(sm_count, count); ++b) blocks.emplace_back(0.0, b);
  schedule.blocks.reserve(static_cast<std::size_t>(count));
  for (const EqualTiles& some : tiles) {
    for (std::int64_t i = 0; i < some.count; ++i) {
      const auto [free, block] = blocks.front();
      schedule.blocks.push_back(block);
      schedule.finish = std::max(schedule.finish, free + some.cost);
      put_back(blocks, free + some.cost);
    }
    if (schedule.finish >= worth) return schedule;
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
