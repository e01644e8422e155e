// A run's queries are cut where their place in the sequence is a multiple of 64, and up to `attention_tile_units` of
// these units make a tile. A unit's work is the steps of 64 keys from the first that one of its queries sees to the
// last; a tile's steps are those of all its units. A step takes a part of its time however few units have work in it:
// so tall tiles take less in all, and low ones share more evenly. Heights are tried while there are few tiles.
#include "causal_attention_plan.h"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "attention_schedule.h"
#include "causal_attention.h"

namespace oriel::kernels {
namespace {

/// Where windows begin that have no end. No lower, so that no sum with it overflows.
constexpr std::int32_t kNoWindow = INT32_MIN / 2;

/// How many more tiles than necessary are tried, in eighths; the last cuts every tile to one unit.
constexpr std::array<int, 10> kStretches = {8, 9, 10, 11, 12, 13, 14, 16, 24, 32};

/// Calls with more tiles a block than this balance by themselves: not worth the time of trying.
constexpr std::int64_t kTilesWorthFitting = 8;

/// What beginning and ending a tile costs, in steps.
constexpr double kTileOverhead = 1;

/// The part of a step's time that does not depend on the units that have work in it.
constexpr double kStepOverhead = 0.3;

struct CostedTile {
  CausalTile tile;  ///< of head 0
  double cost;
};

std::int32_t steps_of(std::int32_t keys) { return (keys + kAttentionUnit - 1) / kAttentionUnit; }

double cost_of(const CausalTile& tile, int most_units) {
  const std::int32_t first = std::max(tile.begin, 0) / kAttentionUnit, last = steps_of(tile.keys);
  double work = 0;
  for (std::int32_t row = 0; row < tile.rows; row += kAttentionUnit) {
    work +=
        std::min(last, steps_of(tile.end + row + kAttentionUnit - 1)) - std::max(tile.begin + row, 0) / kAttentionUnit;
  }
  return kTileOverhead + kStepOverhead * (last - first) + (1 - kStepOverhead) * work / most_units;
}

/// The tile whose row 0 is the sequence's token `place`.
CausalTile make_tile(const AttentionRun& run, std::int32_t place, int units, std::int32_t window) {
  const std::int32_t first_query = run.keys - run.queries;
  const std::int32_t rows = std::min(units * kAttentionUnit, run.keys - place);
  CausalTile tile{};
  tile.query_begin = run.query_begin + place - first_query;
  tile.key_begin = run.key_begin;
  tile.keys = run.causal ? place + rows : run.keys;
  tile.begin = window > 0 ? std::max(place + 1 - window, kNoWindow) : kNoWindow;
  tile.end = run.causal ? place + 1 : run.keys;
  tile.first_row = static_cast<std::uint16_t>(std::max(0, first_query - place));
  tile.rows = static_cast<std::uint16_t>(rows);
  return tile;
}

/// Heaviest first. A run has stretch / 8 times as many tiles as it needs, of two heights at most, one unit apart.
std::vector<CostedTile> cut_runs(const AttentionRun* runs, std::size_t count, const CausalPlanShape& shape,
                                 int stretch) {
  const int most_units = attention_tile_units(shape.head_dim);
  std::vector<CostedTile> tiles;
  for (const AttentionRun* run = runs; run != runs + count; ++run) {
    if (run->queries == 0) continue;
    const std::int32_t first = (run->keys - run->queries) / kAttentionUnit, last = steps_of(run->keys);
    const std::int32_t units = last - first, needed = (units + most_units - 1) / most_units;
    const auto wanted = static_cast<std::int32_t>(std::int64_t{units} * stretch / (8 * most_units));
    const std::int32_t number = std::min(units, std::max(needed, wanted));
    std::int32_t unit = first;
    for (std::int32_t i = 0; i < number; ++i) {
      const std::int32_t height = units / number + (i < units % number ? 1 : 0);
      const CausalTile tile = make_tile(*run, unit * kAttentionUnit, height, shape.window);
      tiles.push_back({tile, cost_of(tile, most_units)});
      unit += height;
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(), [](const auto& a, const auto& b) { return a.cost > b.cost; });
  return tiles;
}

Schedule schedule(const std::vector<CostedTile>& tiles, const CausalPlanShape& shape,
                  double worth = std::numeric_limits<double>::infinity()) {
  std::vector<EqualTiles> equal;
  equal.reserve(tiles.size());
  for (const CostedTile& some : tiles) equal.push_back({some.cost, shape.heads});
  return schedule_tiles(equal, shape.sm_count, worth);
}

/// Head by head of a tile: those that share keys stand together.
AttentionPlan write_tiles(const std::vector<CostedTile>& tiles, const CausalPlanShape& shape,
                          const Schedule& schedule) {
  const int group = shape.heads / shape.kv_heads;
  auto next = tiles.begin();
  int head = 0;
  return write_plan(schedule, [&] {
    CausalTile tile = next->tile;
    tile.head = static_cast<std::uint16_t>(head);
    tile.kv_head = static_cast<std::uint16_t>(head / group);
    if (++head == shape.heads) {
      head = 0;
      ++next;
    }
    return tile;
  });
}

void check(const AttentionRun* runs, std::size_t count, const CausalPlanShape& shape) {
  const auto fail = [](const std::string& what) { throw std::invalid_argument("plan_causal_attention: " + what); };
  const auto expect = [&](bool condition, const std::string& what, std::int64_t got) {
    if (!condition) fail(what + ", got " + std::to_string(got));
  };
  expect(shape.heads >= 1 && shape.heads <= 65535, "heads: expected 1 to 65535", shape.heads);
  expect(shape.kv_heads >= 1 && shape.heads % shape.kv_heads == 0,
         "kv_heads: expected a divisor of " + std::to_string(shape.heads), shape.kv_heads);
  expect(shape.window >= 0, "window: expected at least 0", shape.window);
  expect(shape.sm_count >= 1, "sm_count: expected at least 1", shape.sm_count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::string name = "runs[" + std::to_string(i) + "].";
    expect(runs[i].query_begin >= 0, name + "query_begin: expected at least 0", runs[i].query_begin);
    expect(runs[i].key_begin >= 0, name + "key_begin: expected at least 0", runs[i].key_begin);
    expect(runs[i].queries >= 0, name + "queries: expected at least 0", runs[i].queries);
    expect(runs[i].keys >= runs[i].queries, name + "keys: expected at least " + std::to_string(runs[i].queries),
           runs[i].keys);
  }
}

}  // namespace

AttentionPlan plan_causal_attention(const AttentionRun* runs, std::size_t count, const CausalPlanShape& shape) {
  check(runs, count, shape);
  std::vector<CostedTile> best = cut_runs(runs, count, shape, kStretches.front());
  if (best.empty()) return {};
  Schedule best_schedule = schedule(best, shape);
  for (std::size_t i = 1; i < kStretches.size(); ++i) {
    std::vector<CostedTile> tiles = cut_runs(runs, count, shape, kStretches[i]);
    if (static_cast<std::int64_t>(tiles.size()) * shape.heads >= kTilesWorthFitting * shape.sm_count) break;
    if (tiles.size() == best.size()) continue;
    const double worth = 0.995 * best_schedule.finish;
    Schedule tried = schedule(tiles, shape, worth);
    if (tried.finish < worth) {
      best = std::move(tiles);
      best_schedule = std::move(tried);
    }
  }
  return write_tiles(best, shape, best_schedule);
}

}  // namespace oriel::kernels
