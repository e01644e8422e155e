// A tile is up to `attention_tile_units` units of 64 queries against all keys of their sequence. Its time is a constant
// for beginning and end, and its steps over the keys, which are shorter in a low tile, but not in proportion. With one
// block a multiprocessor and a few tiles a block, the last round decides: 5 equal tiles on 4 blocks take as long as 8.
// So the cut is a choice. Where there are fewer tiles than multiprocessors, the slowest are cut lower while each has
// one of its own: what would be idle costs nothing. Else sequences are cut into a few more, lower tiles than they need
// if the heaviest block then ends earlier. Tiles go heaviest first, each to the block that is free first; neighbours in
// that order share keys and values, which stay in the L2 cache.
#include "attention_plan.h"

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "attention.h"
#include "attention_schedule.h"

namespace oriel::kernels {
namespace {

/// How many more tiles than necessary are tried, in eighths; attention_plan_bytes relies on the last.
constexpr std::array<int, 5> kStretches = {9, 10, 11, 12, 13};

/// Calls with more tiles a block than this balance by themselves: not worth the time of trying.
constexpr std::int64_t kTilesWorthFitting = 8;

/// What beginning and ending a tile costs, in keys.
constexpr double kTileOverhead = 64;

/// Tiles of one height of one sequence, of all heads.
struct Cut {
  std::int32_t sequence_begin;
  std::int32_t keys;
  std::int32_t first_unit;  ///< where the first of the tiles begins in the sequence
  std::int32_t units;       ///< height
  std::int32_t count;       ///< tiles a head
  double cost;
};

std::int32_t divide_up(std::int64_t a, std::int64_t b) { return static_cast<std::int32_t>((a + b - 1) / b); }

double tile_cost(std::int32_t keys, std::int32_t units, int most_units) {
  // A step of a low tile loads the same keys and has fewer warpgroups to hide behind each other.
  const double step = units == most_units ? 1.0 : 0.3 + 0.7 * units / most_units;
  return kTileOverhead + step * keys;
}

/// The offsets as given.
struct Sequences {
  const std::int32_t* offsets;
  std::size_t size;  ///< of offsets: one more than there are sequences

  std::size_t count() const { return size - 1; }
  std::int32_t keys(std::size_t i) const { return offsets[i + 1] - offsets[i]; }
  std::int32_t units(std::size_t i) const { return divide_up(keys(i), kAttentionUnit); }
};

/// Tiles a head of each sequence, none for an empty one.
using TileCounts = std::vector<std::int32_t>;

TileCounts tiles_of_height(const Sequences& sequences, int units) {
  TileCounts tiles(sequences.count());
  for (std::size_t i = 0; i < tiles.size(); ++i) tiles[i] = divide_up(sequences.units(i), units);
  return tiles;
}

/// stretch / 8 times as many as `most_units` high ones would be.
TileCounts stretched_tiles(const Sequences& sequences, int most_units, int stretch) {
  TileCounts tiles = tiles_of_height(sequences, most_units);
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    const std::int32_t units = sequences.units(i);
    const auto stretched = static_cast<std::int32_t>(std::int64_t{units} * stretch / (8 * most_units));
    tiles[i] = std::min(units, std::max(tiles[i], stretched));
  }
  return tiles;
}

std::int64_t count_tiles(const TileCounts& tiles, int heads) {
  return std::accumulate(tiles.begin(), tiles.end(), std::int64_t{0}) * heads;
}

/// Cuts the slowest tiles lower, as long as no multiprocessor gets a second one.
void use_idle_processors(const Sequences& sequences, int heads, int most_units, int sm_count, TileCounts& tiles) {
  const auto height = [&](std::size_t i) { return divide_up(sequences.units(i), tiles[i]); };
  std::int64_t idle = sm_count - count_tiles(tiles, heads);
  while (idle > 0) {
    std::size_t slowest = 0;
    double most = 0;
    for (std::size_t i = 0; i < tiles.size(); ++i) {
      const double cost = tiles[i] == 0 ? 0 : tile_cost(sequences.keys(i), height(i), most_units);
      if (cost <= most) continue;
      most = cost;
      slowest = i;
    }
    if (height(slowest) == 1) return;
    const std::int32_t lower = divide_up(sequences.units(slowest), height(slowest) - 1);
    idle -= std::int64_t{lower - tiles[slowest]} * heads;
    if (idle >= 0) tiles[slowest] = lower;
  }
}

/// Heaviest first. Each sequence gives tiles of two heights at most, one unit apart.
std::vector<Cut> cut_sequences(const Sequences& sequences, const TileCounts& tiles, int most_units) {
  std::vector<Cut> cuts;
  for (std::size_t i = 0; i < tiles.size(); ++i) {
    if (tiles[i] == 0) continue;
    const std::int32_t begin = sequences.offsets[i], keys = sequences.keys(i), units = sequences.units(i);
    const std::int32_t low = units / tiles[i], tall = units % tiles[i];  // `tall` tiles of low + 1 units, then the rest
    if (tall > 0) cuts.push_back({begin, keys, 0, low + 1, tall, tile_cost(keys, low + 1, most_units)});
    cuts.push_back({begin, keys, tall * (low + 1), low, tiles[i] - tall, tile_cost(keys, low, most_units)});
  }
  std::stable_sort(cuts.begin(), cuts.end(), [](const Cut& a, const Cut& b) { return a.cost > b.cost; });
  return cuts;
}

std::int64_t count_tiles(const std::vector<Cut>& cuts, int heads) {
  std::int64_t tiles = 0;
  for (const Cut& cut : cuts) tiles += std::int64_t{cut.count} * heads;
  return tiles;
}

Schedule schedule(const std::vector<Cut>& cuts, int heads, int sm_count,
                  double worth = std::numeric_limits<double>::infinity()) {
  std::vector<EqualTiles> tiles;
  tiles.reserve(cuts.size());
  for (const Cut& cut : cuts) tiles.push_back({cut.cost, std::int64_t{cut.count} * heads});
  return schedule_tiles(tiles, sm_count, worth);
}

AttentionTile tile_of(const Cut& cut, std::int32_t index, std::int32_t head) {
  const std::int32_t row = (cut.first_unit + index * cut.units) * kAttentionUnit;
  AttentionTile tile{};
  tile.query_begin = cut.sequence_begin + row;
  tile.key_begin = cut.sequence_begin;
  tile.keys = cut.keys;
  tile.rows = static_cast<std::uint16_t>(std::min(cut.units * kAttentionUnit, cut.keys - row));
  tile.head = static_cast<std::uint16_t>(head);
  return tile;
}

/// Tile by tile of a head, head by head of a cut.
AttentionPlan write_tiles(const std::vector<Cut>& cuts, int heads, const Schedule& schedule) {
  auto cut = cuts.begin();
  std::int32_t head = 0, index = 0;
  return write_plan(schedule, [&] {
    const AttentionTile tile = tile_of(*cut, index, head);
    if (++index == cut->count) {
      index = 0;
      ++head;
    }
    if (head == heads) {
      head = 0;
      ++cut;
    }
    return tile;
  });
}

AttentionPlan planned(const std::vector<Cut>& cuts, int heads, int sm_count) {
  return write_tiles(cuts, heads, schedule(cuts, heads, sm_count));
}

void check(const Sequences& sequences, int heads, int sm_count) {
  const auto fail = [](const std::string& what) { throw std::invalid_argument("plan_attention: " + what); };
  const std::int32_t* const offsets = sequences.offsets;
  if (heads < 1 || heads > 65535) fail("heads: expected 1 to 65535, got " + std::to_string(heads));
  if (sm_count < 1) fail("sm_count: expected at least 1, got " + std::to_string(sm_count));
  if (sequences.size == 0) fail("cu_seqlens: expected to begin with 0, got nothing");
  if (offsets[0] != 0) fail("cu_seqlens: expected to begin with 0, got " + std::to_string(offsets[0]));
  for (std::size_t i = 1; i < sequences.size; ++i) {
    if (offsets[i] < offsets[i - 1]) {
      fail("cu_seqlens[" + std::to_string(i) + "]: expected at least " + std::to_string(offsets[i - 1]) + ", got " +
           std::to_string(offsets[i]));
    }
  }
}

}  // namespace

AttentionPlan plan_attention(const std::int32_t* cu_seqlens, std::size_t cu_seqlens_size, int heads, int head_dim,
                             int sm_count) {
  const Sequences sequences{cu_seqlens, cu_seqlens_size};
  check(sequences, heads, sm_count);
  if (cu_seqlens[cu_seqlens_size - 1] == 0) return {};
  const int most_units = attention_tile_units(head_dim);
  TileCounts fewest = tiles_of_height(sequences, most_units);
  if (count_tiles(fewest, heads) <= sm_count) {
    use_idle_processors(sequences, heads, most_units, sm_count, fewest);
    return planned(cut_sequences(sequences, fewest, most_units), heads, sm_count);
  }
  std::vector<Cut> best = cut_sequences(sequences, fewest, most_units);
  Schedule best_schedule = schedule(best, heads, sm_count);
  if (count_tiles(best, heads) < kTilesWorthFitting * sm_count) {
    for (const int stretch : kStretches) {
      std::vector<Cut> cuts = cut_sequences(sequences, stretched_tiles(sequences, most_units, stretch), most_units);
      const double worth = 0.995 * best_schedule.finish;
      Schedule tried = schedule(cuts, heads, sm_count, worth);
      if (tried.finish < worth) {
        best = std::move(cuts);
        best_schedule = std::move(tried);
      }
    }
  }
  return write_tiles(best, heads, best_schedule);
}

AttentionPlan plan_attention_of_height(const std::int32_t* cu_seqlens, std::size_t cu_seqlens_size, int heads,
                                       int head_dim, int sm_count, int units) {
  const Sequences sequences{cu_seqlens, cu_seqlens_size};
  check(sequences, heads, sm_count);
  if (cu_seqlens[cu_seqlens_size - 1] == 0) return {};
  const int most_units = attention_tile_units(head_dim);
  const TileCounts tiles = tiles_of_height(sequences, std::clamp(units, 1, most_units));
  return planned(cut_sequences(sequences, tiles, most_units), heads, sm_count);
}

std::size_t attention_plan_bytes(std::int64_t tokens, std::int64_t sequences, int heads, int head_dim, int sm_count) {
  if (tokens <= 0 || sequences <= 0) return 0;
  // A sequence of n tokens has at most n / 64 + 1 units, and at most 1 + stretch / (8 most_units) tiles a unit. Where
  // tiles are cut lower than that, there are no more than multiprocessors.
  const std::int64_t units = tokens / kAttentionUnit + sequences;
  const std::int64_t stretched = units * kStretches.back() / (8 * attention_tile_units(head_dim)) + sequences;
  const std::int64_t tiles = std::max(stretched * heads, std::min<std::int64_t>(units * heads, sm_count));
  return static_cast<std::size_t>(attention_tiles_offset(sm_count) + tiles * std::int64_t{sizeof(AttentionTile)});
}

}  // namespace oriel::kernels
