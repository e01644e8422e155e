#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../kernels/attention.h"
#include "../../kernels/causal_attention.h"
#include "../../kernels/causal_attention_plan.h"

namespace oriel::kernels {
namespace {

using Runs = std::vector<AttentionRun>;

std::vector<CausalTile> tiles_of(const AttentionPlan& plan) {
  if (plan.blocks == 0) return {};
  const auto offset = static_cast<std::size_t>(attention_tiles_offset(plan.blocks));
  std::vector<CausalTile> tiles((plan.bytes.size() - offset) / sizeof(CausalTile));
  std::memcpy(tiles.data(), plan.bytes.data() + offset, plan.bytes.size() - offset);
  return tiles;
}

std::vector<std::int32_t> first_tiles_of(const AttentionPlan& plan) {
  std::vector<std::int32_t> first(static_cast<std::size_t>(plan.blocks) + 1);
  std::memcpy(first.data(), plan.bytes.data(), 4 * first.size());
  return first;
}

const AttentionRun* run_of(const Runs& runs, std::int32_t query) {
  for (const AttentionRun& run : runs)
    if (run.query_begin <= query && query < run.query_begin + run.queries) return &run;
  return nullptr;
}

/// What the query of a tile's row sees is what its run says.
void expect_row(const CausalTile& tile, std::int32_t row, const Runs& runs, std::int32_t window) {
  const AttentionRun* run = run_of(runs, tile.query_begin + row);
  ASSERT_NE(run, nullptr);
  ASSERT_EQ(tile.key_begin, run->key_begin);
  const std::int32_t place = run->keys - run->queries + tile.query_begin + row - run->query_begin;
  ASSERT_EQ(place % kAttentionUnit, row % kAttentionUnit) << "units stand at multiples of 64 in their sequence";
  ASSERT_EQ(std::max(0, tile.begin + row), window > 0 ? std::max(0, place + 1 - window) : 0);
  ASSERT_EQ(std::min(tile.keys, tile.end + row), run->causal ? place + 1 : run->keys);
}

/// Every query of every head in exactly one tile.
void expect_covers(const std::vector<CausalTile>& tiles, const Runs& runs, const CausalPlanShape& shape) {
  std::int32_t rows = 0;
  std::size_t queries = 0;
  for (const AttentionRun& run : runs) {
    rows = std::max(rows, run.query_begin + run.queries);
    queries += static_cast<std::size_t>(run.queries);
  }
  std::vector<int> covered(static_cast<std::size_t>(rows) * static_cast<std::size_t>(shape.heads), 0);
  for (const CausalTile& tile : tiles) {
    ASSERT_LT(tile.first_row, kAttentionUnit);
    ASSERT_LT(tile.first_row, tile.rows);
    ASSERT_LE(tile.rows, kAttentionUnit * attention_tile_units(shape.head_dim));
    ASSERT_LT(tile.head, shape.heads);
    ASSERT_EQ(tile.kv_head, tile.head / (shape.heads / shape.kv_heads));
    for (std::int32_t row = tile.first_row; row < tile.rows; ++row) {
      ASSERT_NO_FATAL_FAILURE(expect_row(tile, row, runs, shape.window)) << "row " << row;
      const auto query = static_cast<std::size_t>(tile.query_begin + row);
      ++covered[query * static_cast<std::size_t>(shape.heads) + tile.head];
    }
  }
  EXPECT_EQ(std::count(covered.begin(), covered.end(), 1),
            static_cast<std::ptrdiff_t>(queries * static_cast<std::size_t>(shape.heads)));
  EXPECT_EQ(std::count_if(covered.begin(), covered.end(), [](int times) { return times > 1; }), 0);
}

TEST(CausalAttentionPlan, CoversEveryQueryOnce) {
  std::mt19937 random(11);
  const auto below = [&](std::uint32_t limit) { return static_cast<std::int32_t>(random() % limit); };
  for (int round = 0; round < 200; ++round) {
    Runs runs(1 + random() % 4);
    std::int32_t query = below(50), key = 0;
    for (AttentionRun& run : runs) {
      run = {query, key, below(400), 0, below(3) > 0};
      run.keys = run.queries + (below(3) > 0 ? below(500) : 0);
      query += run.queries + below(3);
      key += run.keys + below(100);
    }
    CausalPlanShape shape;
    shape.kv_heads = 1 + below(2);
    shape.heads = shape.kv_heads * (1 + below(4));
    shape.head_dim = 64 << below(3);
    shape.window = below(2) * (1 + below(300));
    shape.sm_count = 1 + below(140);
    SCOPED_TRACE("round " + std::to_string(round));
    const AttentionPlan plan = plan_causal_attention(runs, shape);
    ASSERT_LE(plan.blocks, shape.sm_count);
    expect_covers(tiles_of(plan), runs, shape);
  }
}

/// Keys times units of the busiest block over those of an even share, of causal runs without a window.
double imbalance(const AttentionPlan& plan, int sm_count) {
  const std::vector<CausalTile> tiles = tiles_of(plan);
  const std::vector<std::int32_t> first = first_tiles_of(plan);
  double most = 0, all = 0;
  for (std::size_t b = 0; b + 1 < first.size(); ++b) {
    double work = 0;
    for (std::int32_t i = first[b]; i < first[b + 1]; ++i) {
      const CausalTile& tile = tiles[static_cast<std::size_t>(i)];
      for (std::int32_t row = 0; row < tile.rows; row += kAttentionUnit) work += tile.end + row;
    }
    most = std::max(most, work);
    all += work;
  }
  return most * sm_count / all;
}

TEST(CausalAttentionPlan, SharesPromptsEvenly) {
  const CausalPlanShape shape{28, 4, 128, 0, 132};
  EXPECT_LT(imbalance(plan_causal_attention(Runs{{0, 0, 2048, 2048}}, shape), 132), 1.1);
  EXPECT_LT(imbalance(plan_causal_attention(Runs{{0, 0, 8192, 8192}}, shape), 132), 1.03);
  EXPECT_LT(imbalance(plan_causal_attention(Runs{{0, 0, 700, 700}, {700, 9000, 2048, 2048}}, shape), 132), 1.08);
}

TEST(CausalAttentionPlan, GivesTheHeaviestTilesFirst) {
  const AttentionPlan plan = plan_causal_attention(Runs{{0, 0, 3072, 3072}}, {8, 8, 128, 0, 7});
  const std::vector<CausalTile> tiles = tiles_of(plan);
  const std::vector<std::int32_t> first = first_tiles_of(plan);
  for (std::size_t b = 0; b + 1 < first.size(); ++b)
    for (std::int32_t i = first[b] + 1; i < first[b + 1]; ++i)
      EXPECT_GE(tiles[static_cast<std::size_t>(i - 1)].keys, tiles[static_cast<std::size_t>(i)].keys) << "block " << b;
}

TEST(CausalAttentionPlan, UsesIdleMultiprocessors) {
  // 8 units of 28 heads, of which tiles of three would make 84.
  EXPECT_EQ(plan_causal_attention(Runs{{0, 0, 512, 512}}, {28, 4, 128, 0, 132}).blocks, 132);
}

TEST(CausalAttentionPlan, SkipsKeysThatNoQuerySees) {
  const AttentionPlan plan = plan_causal_attention(Runs{{0, 0, 64, 4096}}, {1, 1, 64, 100, 132});
  const std::vector<CausalTile> tiles = tiles_of(plan);
  ASSERT_EQ(tiles.size(), 1u);
  EXPECT_EQ(tiles[0].begin, 4032 - 99);
  EXPECT_EQ(tiles[0].keys, 4096);
}

TEST(CausalAttentionPlan, WindowsThatReachBeyondAllKeysAreNone) {
  const Runs runs{{0, 0, 300, 5000}};
  const AttentionPlan plain = plan_causal_attention(runs, {2, 1, 128, 0, 132});
  const std::int32_t longest = std::numeric_limits<std::int32_t>::max();
  EXPECT_EQ(plan_causal_attention(runs, {2, 1, 128, longest, 132}).bytes, plain.bytes);
}

TEST(CausalAttentionPlan, IsEmptyWithoutQueries) {
  for (const Runs& runs : {Runs{}, Runs{{0, 0, 0, 0}, {0, 5, 0, 9}}}) {
    const AttentionPlan plan = plan_causal_attention(runs, {4, 2, 64, 0, 132});
    EXPECT_EQ(plan.blocks, 0);
    EXPECT_TRUE(plan.bytes.empty());
  }
}

void expect_refused(const Runs& runs, const CausalPlanShape& shape, const std::string& message) {
  try {
    plan_causal_attention(runs, shape);
    ADD_FAILURE() << "accepted, expected: " << message;
  } catch (const std::invalid_argument& error) {
    EXPECT_EQ(error.what(), "plan_causal_attention: " + message);
  }
}

TEST(CausalAttentionPlan, RefusesRunsAndShapesThatContradictThemselves) {
  const CausalPlanShape fine{4, 2, 64, 0, 132};
  expect_refused({{0, 0, 5, 5}, {0, 0, 5, 4}}, fine, "runs[1].keys: expected at least 5, got 4");
  expect_refused({{0, 0, -1, 4}}, fine, "runs[0].queries: expected at least 0, got -1");
  expect_refused({{-1, 0, 1, 4}}, fine, "runs[0].query_begin: expected at least 0, got -1");
  expect_refused({{0, -2, 1, 4}}, fine, "runs[0].key_begin: expected at least 0, got -2");
  expect_refused({{0, 0, 1, 1}}, {0, 2, 64, 0, 132}, "heads: expected 1 to 65535, got 0");
  expect_refused({{0, 0, 1, 1}}, {4, 3, 64, 0, 132}, "kv_heads: expected a divisor of 4, got 3");
  expect_refused({{0, 0, 1, 1}}, {4, 2, 64, -1, 132}, "window: expected at least 0, got -1");
  expect_refused({{0, 0, 1, 1}}, {4, 2, 64, 0, 0}, "sm_count: expected at least 1, got 0");
}

}  // namespace
}  // namespace oriel::kernels
