#include "text/prefix.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace oriel::text {
namespace {

/// Ids at positions 0, 1, 2, ... unless others are given.
struct Tokens {
  std::vector<int64_t> ids;
  std::vector<Block> blocks = {};
  std::vector<int64_t> positions = {};

  Sequence sequence() {
    if (positions.empty())
      for (size_t i = 0; i < ids.size(); ++i) positions.push_back(static_cast<int64_t>(i));
    return {ids, positions, blocks};
  }
};

int64_t reusable(Tokens cached, Tokens prompt) { return reusable_prefix(cached.sequence(), prompt.sequence()); }

TEST(Prefix, EqualIdsAreReusedUpToTheFirstThatDiffers) {
  EXPECT_EQ(reusable({{1, 2, 3, 4}}, {{1, 2, 5, 4, 6}}), 2);
  EXPECT_EQ(reusable({{1, 2, 3}}, {{1, 2, 3, 4, 5}}), 3);
  EXPECT_EQ(reusable({{7, 2, 3}}, {{1, 2, 3}}), 0);
  EXPECT_EQ(reusable_prefix({}, Tokens{{1, 2}}.sequence()), 0);
}

TEST(Prefix, TheLastTokenIsAlwaysComputed) {
  EXPECT_EQ(reusable({{1, 2, 3}}, {{1, 2, 3}}), 2);
  EXPECT_EQ(reusable({{1, 2, 3, 4, 5}}, {{1, 2, 3}}), 2);
  EXPECT_EQ(reusable({{1}}, {{1}}), 0);
}

TEST(Prefix, ACutInABlockGoesBackToItsBegin) {
  EXPECT_EQ(reusable({{1, 2, 3, 4, 9}}, {{1, 2, 3, 4, 5, 6}, {{2, 5}}}), 2);
  EXPECT_EQ(reusable({{1, 2, 3, 4, 5}, {{2, 5}}}, {{1, 2, 3, 4, 6}}), 2) << "the rows of 3 and 4 have seen 5";
  EXPECT_EQ(reusable({{1, 2, 3, 4, 5}, {{2, 4}}}, {{1, 2, 3, 4, 6}, {{2, 4}}}), 4) << "a whole block is no cut";
  EXPECT_EQ(reusable({{1, 2, 3}, {{0, 3}}}, {{1, 2, 3}, {{0, 3}}}), 0) << "the last token is in the block";
}

TEST(Prefix, BackingOffForOneMayMeetABlockOfTheOther) {
  EXPECT_EQ(reusable({{1, 2, 3, 4, 5, 6}, {{3, 6}}}, {{1, 2, 3, 4, 5, 7}, {{1, 4}}}), 1);
}

TEST(Prefix, PositionsThatDifferEndIt) {
  EXPECT_EQ(reusable({{1, 2, 3, 4}, {}, {0, 1, 2, 3}}, {{1, 2, 3, 4}, {}, {0, 1, 5, 6}}), 2);
  // Three axes; the third differs at the second token.
  EXPECT_EQ(reusable({{1, 2, 3}, {}, {0, 0, 0, 1, 1, 1, 2, 2, 2}}, {{1, 2, 3}, {}, {0, 0, 0, 1, 1, 9, 2, 2, 2}}), 1);
}

}  // namespace
}  // namespace oriel::text
