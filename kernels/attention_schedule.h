// What the plans of the attention kernels share: tiles are given to blocks, and written block by block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "attention.h"
#include "attention_plan.h"

namespace oriel::kernels {

/// Tiles that take the same time, in any unit.
struct EqualTiles {
  double cost;
  std::int64_t count;
};

struct Schedule {
  std::vector<std::int32_t> blocks;  ///< of every tile, in the order given
  double finish = 0;                 ///< of the last block
};

/// Each tile goes to the block that is free first. Give the heaviest first. Given up where the last block would end at
/// `worth` or later: `finish` is that much or more then, and `blocks` are incomplete.
Schedule schedule_tiles(const std::vector<EqualTiles>& tiles, int sm_count,
                        double worth = std::numeric_limits<double>::infinity());

/// Where each block's tiles begin: [blocks + 1].
std::vector<std::int32_t> first_tiles(const Schedule& schedule);

/// @param next_tile  gives the tiles in the order of the schedule
template <class NextTile>
AttentionPlan write_plan(const Schedule& schedule, NextTile&& next_tile) {
  std::vector<std::int32_t> first = first_tiles(schedule);
  AttentionPlan plan;
  plan.blocks = static_cast<std::int32_t>(first.size()) - 1;
  const auto offset = static_cast<std::size_t>(attention_tiles_offset(plan.blocks));
  plan.bytes.resize(offset + schedule.blocks.size() * sizeof(next_tile()));
  std::memcpy(plan.bytes.data(), first.data(), first.size() * sizeof(std::int32_t));
  for (const std::int32_t block : schedule.blocks) {
    const auto tile = next_tile();
    const auto slot = static_cast<std::size_t>(first[static_cast<std::size_t>(block)]++);
    std::memcpy(plan.bytes.data() + offset + slot * sizeof(tile), &tile, sizeof(tile));
  }
  return plan;
}

}  // namespace oriel::kernels
