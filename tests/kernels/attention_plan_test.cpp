#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../../kernels/attention.h"
#include "../../kernels/attention_plan.h"

namespace oriel::kernels {
namespace {

struct Decoded {
  std::vector<std::int32_t> first_tile;  // [blocks + 1]
  std::vector<AttentionTile> tiles;
};

Decoded decode(const AttentionPlan& plan) {
  Decoded decoded;
  if (plan.blocks == 0) return decoded;
  decoded.first_tile.resize(static_cast<std::size_t>(plan.blocks) + 1);
  std::memcpy(decoded.first_tile.data(), plan.bytes.data(), 4 * decoded.first_tile.size());
  const auto offset = static_cast<std::size_t>(attention_tiles_offset(plan.blocks));
  decoded.tiles.resize((plan.bytes.size() - offset) / sizeof(AttentionTile));
  std::memcpy(decoded.tiles.data(), plan.bytes.data() + offset, plan.bytes.size() - offset);
  return decoded;
}

std::vector<std::int32_t> offsets(const std::vector<std::int32_t>& lengths) {
  std::vector<std::int32_t> cu = {0};
  for (const std::int32_t length : lengths) cu.push_back(cu.back() + length);
  return cu;
}

/// Every row of every head in exactly one tile, against its whole sequence, at multiples of 64 from its begin.
void expect_covers(const Decoded& plan, const std::vector<std::int32_t>& cu, int heads, int head_dim) {
  std::vector<int> covered(static_cast<std::size_t>(cu.back()) * static_cast<std::size_t>(heads), 0);
  for (const AttentionTile& tile : plan.tiles) {
    const auto end = std::find(cu.begin() + 1, cu.end(), tile.key_begin + tile.keys);
    ASSERT_NE(end, cu.end()) << tile.key_begin << " + " << tile.keys;
    ASSERT_LE(cu.front(), tile.key_begin);
    ASSERT_NE(std::find(cu.begin(), cu.end(), tile.key_begin), cu.end());
    const std::int32_t row = tile.query_begin - tile.key_begin;
    ASSERT_EQ(row % kAttentionUnit, 0);
    ASSERT_GT(tile.rows, 0);
    ASSERT_LE(tile.rows, kAttentionUnit * attention_tile_units(head_dim));
    ASSERT_LE(row + tile.rows, tile.keys);
    ASSERT_TRUE(tile.rows % kAttentionUnit == 0 || row + tile.rows == tile.keys);
    ASSERT_LT(tile.head, heads);
    for (std::int32_t i = 0; i < tile.rows; ++i) {
      ++covered[static_cast<std::size_t>(tile.query_begin + i) * static_cast<std::size_t>(heads) + tile.head];
    }
  }
  EXPECT_EQ(std::count(covered.begin(), covered.end(), 1), static_cast<std::ptrdiff_t>(covered.size()));
}

/// Keys times 64-row units of the busiest block over those of an even share.
double imbalance(const Decoded& plan, int sm_count) {
  double most = 0, all = 0;
  for (std::size_t b = 0; b + 1 < plan.first_tile.size(); ++b) {
    double work = 0;
    for (std::int32_t i = plan.first_tile[b]; i < plan.first_tile[b + 1]; ++i) {
      const AttentionTile& tile = plan.tiles[static_cast<std::size_t>(i)];
      work += static_cast<double>(tile.keys) * ((tile.rows + kAttentionUnit - 1) / kAttentionUnit);
    }
    most = std::max(most, work);
    all += work;
  }
  return most * sm_count / all;
}

TEST(AttentionPlan, CoversEveryRowOnceWithinTheAnnouncedBytes) {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<std::int32_t> lengths(1 + random() % 12);
    const std::uint32_t longest = round % 3 == 0 ? 70 : round % 3 == 1 ? 700 : 5000;
    for (auto& length : lengths) length = static_cast<std::int32_t>(random() % longest);
    lengths[random() % lengths.size()] += 1;  // never all empty
    const auto cu = offsets(lengths);
    const int heads = 1 + static_cast<int>(random() % 17), head_dim = round % 2 == 0 ? 72 : 128;
    const int sm_count = 1 + static_cast<int>(random() % 140);
    const AttentionPlan plan = plan_attention(cu, heads, head_dim, sm_count);
    const Decoded decoded = decode(plan);
    SCOPED_TRACE("round " + std::to_string(round));
    ASSERT_LE(plan.blocks, sm_count);
    ASSERT_EQ(decoded.first_tile.front(), 0);
    ASSERT_EQ(decoded.first_tile.back(), static_cast<std::int32_t>(decoded.tiles.size()));
    for (std::size_t b = 1; b < decoded.first_tile.size(); ++b) {
      ASSERT_LT(decoded.first_tile[b - 1], decoded.first_tile[b]) << "a block without work";
    }
    expect_covers(decoded, cu, heads, head_dim);
    ASSERT_LE(plan.bytes.size(),
              attention_plan_bytes(cu.back(), static_cast<std::int64_t>(lengths.size()), heads, head_dim, sm_count));
  }
}

TEST(AttentionPlan, SharesLongAndMixedSequencesEvenly) {
  const std::vector<std::vector<std::int32_t>> cases = {
      {16384}, {4096}, std::vector<std::int32_t>(8, 4096), {4096, 1536, 1536, 441, 2560, 1024, 3136, 1200}};
  for (const auto& lengths : cases) {
    const Decoded plan = decode(plan_attention(offsets(lengths), 16, 64, 132));
    EXPECT_LT(imbalance(plan, 132), 1.07) << lengths.size() << " sequences, first " << lengths[0];
  }
}

TEST(AttentionPlan, CutsLowerTilesWhereTheLastRoundWouldBeEmpty) {
  // 9 x 16 tiles of 256 rows would be two rounds of 132 blocks, the second nearly empty.
  const Decoded plan = decode(plan_attention(offsets({2304}), 16, 64, 132));
  EXPECT_LT(imbalance(plan, 132), 1.4);
  EXPECT_GT(plan.tiles.size(), std::size_t{9 * 16});
}

/// Blocks, tiles, and units of the highest tile.
using Cutting = std::tuple<std::int32_t, std::size_t, int>;

Cutting cutting(const AttentionPlan& plan) {
  const Decoded decoded = decode(plan);
  int rows = 0;
  for (const AttentionTile& tile : decoded.tiles) rows = std::max<int>(rows, tile.rows);
  return {plan.blocks, decoded.tiles.size(), (rows + kAttentionUnit - 1) / kAttentionUnit};
}

TEST(AttentionPlan, CutsLowerTilesWhereMultiprocessorsWouldBeIdle) {
  const auto one = [](std::int32_t tokens, int head_dim) {
    return cutting(plan_attention(offsets({tokens}), 16, head_dim, 132));
  };
  EXPECT_EQ(one(64, 64), Cutting(16, 16, 1));
  EXPECT_EQ(one(256, 64), Cutting(64, 64, 1));
  EXPECT_EQ(one(324, 80), Cutting(96, 96, 1));
  EXPECT_EQ(one(512, 64), Cutting(128, 128, 1));
  EXPECT_EQ(one(576, 72), Cutting(80, 80, 2));  // 9 units: 144 blocks would be needed for tiles of one
  EXPECT_EQ(one(729, 72), Cutting(96, 96, 2));
  EXPECT_EQ(one(1024, 64), Cutting(128, 128, 2));
  EXPECT_EQ(one(1296, 80), Cutting(112, 112, 3));
  EXPECT_EQ(one(1024, 128), Cutting(128, 128, 2));
  // What fills the multiprocessors twice over is left whole.
  EXPECT_EQ(cutting(plan_attention(offsets(std::vector<std::int32_t>(16, 256)), 16, 64, 132)), Cutting(132, 256, 4));
  EXPECT_EQ(cutting(plan_attention(offsets(std::vector<std::int32_t>(4, 1024)), 16, 64, 132)), Cutting(132, 256, 4));
}

TEST(AttentionPlan, CutsTheSlowestSequencesWhereNotAllCanBe) {
  const Decoded plan = decode(plan_attention(offsets({1024, 256, 256}), 16, 64, 132));
  EXPECT_EQ(plan.tiles.size(), 6u * 16 + 2 * 16);
  for (const AttentionTile& tile : plan.tiles) EXPECT_LE(tile.rows, tile.keys == 1024 ? 192 : 256);
}

TEST(AttentionPlan, TakesAnyHeightWhereToldTo) {
  const auto cu = offsets({300, 64, 1000, 0, 129});
  for (const int head_dim : {64, 128}) {
    for (int units = 1; units <= attention_tile_units(head_dim); ++units) {
      const AttentionPlan plan = plan_attention_of_height(cu.data(), cu.size(), 3, head_dim, 132, units);
      expect_covers(decode(plan), cu, 3, head_dim);
      EXPECT_EQ(std::get<2>(cutting(plan)), units);
    }
  }
}

TEST(AttentionPlan, GivesEachBlockItsHeaviestTilesFirst) {
  const Decoded plan = decode(plan_attention(offsets({300, 4000, 64, 1500}), 4, 80, 7));
  for (std::size_t b = 0; b + 1 < plan.first_tile.size(); ++b) {
    for (std::int32_t i = plan.first_tile[b] + 1; i < plan.first_tile[b + 1]; ++i) {
      const AttentionTile &before = plan.tiles[static_cast<std::size_t>(i - 1)],
                          &tile = plan.tiles[static_cast<std::size_t>(i)];
      EXPECT_GE(before.keys, tile.keys) << "block " << b;
    }
  }
}

TEST(AttentionPlan, IsTheSameForTheSameArguments) {
  const auto cu = offsets({1000, 65, 4096, 12});
  EXPECT_EQ(plan_attention(cu, 16, 80, 132).bytes, plan_attention(cu, 16, 80, 132).bytes);
}

TEST(AttentionPlan, IsEmptyWithoutTokens) {
  for (const auto& cu : {std::vector<std::int32_t>{0}, std::vector<std::int32_t>{0, 0, 0}}) {
    const AttentionPlan plan = plan_attention(cu, 16, 64, 132);
    EXPECT_EQ(plan.blocks, 0);
    EXPECT_TRUE(plan.bytes.empty());
  }
  EXPECT_EQ(attention_plan_bytes(0, 3, 16, 64, 132), 0u);
}

void expect_refused(const std::vector<std::int32_t>& cu, int heads, int sm_count, const std::string& message) {
  try {
    plan_attention(cu, heads, 64, sm_count);
    ADD_FAILURE() << "accepted, expected: " << message;
  } catch (const std::invalid_argument& error) {
    EXPECT_EQ(error.what(), "plan_attention: " + message);
  }
}

TEST(AttentionPlan, RefusesSequencesThatRunBackwards) {
  expect_refused({0, 10, 9}, 16, 132, "cu_seqlens[2]: expected at least 10, got 9");
  expect_refused({0, -1}, 16, 132, "cu_seqlens[1]: expected at least 0, got -1");
  expect_refused({1, 10}, 16, 132, "cu_seqlens: expected to begin with 0, got 1");
  expect_refused({}, 16, 132, "cu_seqlens: expected to begin with 0, got nothing");
  expect_refused({0, 10}, 0, 132, "heads: expected 1 to 65535, got 0");
  expect_refused({0, 10}, 65536, 132, "heads: expected 1 to 65535, got 65536");
  expect_refused({0, 10}, 16, 0, "sm_count: expected at least 1, got 0");
}

}  // namespace
}  // namespace oriel::kernels
