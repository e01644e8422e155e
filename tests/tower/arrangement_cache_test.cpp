// Arrangements that are kept for later calls: by grids and stream, within a number of bytes.
#include "tower_arrangement.hpp"

#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace oriel {
namespace {

class KeptArrangements : public ::testing::Test {
 protected:
  /// Asks for the arrangement of one picture of so many patches; whether it had to be made.
  bool makes(int64_t patches, int64_t bytes, int64_t stream = 0) {
    bool made = false;
    (void)cache_.get({{1, 1, patches}}, stream, [&] {
      made = true;
      PlacedArrangement result;
      result.input.positions = at::empty({bytes}, at::kByte);
      return result;
    });
    return made;
  }

  ArrangementCache cache_;
};

TEST_F(KeptArrangements, OfManySizesAreAllFound) {
  for (int64_t patches = 1; patches <= 60; ++patches) EXPECT_TRUE(makes(patches, 1000));
  for (int64_t patches = 1; patches <= 60; ++patches) {
    EXPECT_TRUE(cache_.holds({{1, 1, patches}}, 0));
    EXPECT_FALSE(makes(patches, 1000));
  }
}

TEST_F(KeptArrangements, OfAnotherStreamAreNotSeen) {
  EXPECT_TRUE(makes(7, 1000, 0));
  EXPECT_FALSE(cache_.holds({{1, 1, 7}}, 1));
  EXPECT_TRUE(makes(7, 1000, 1));
  EXPECT_FALSE(makes(7, 1000, 0));
}

TEST_F(KeptArrangements, GiveWayByBytesTheLeastRecentlyUsedFirst) {
  constexpr int64_t third = ArrangementCache::most_bytes / 3;
  for (const int64_t patches : {1, 2, 3}) EXPECT_TRUE(makes(patches, third));
  EXPECT_FALSE(makes(1, third));
  EXPECT_TRUE(makes(4, third));
  for (const int64_t patches : {1, 3, 4}) EXPECT_FALSE(makes(patches, third));
  EXPECT_TRUE(makes(2, third));
  EXPECT_TRUE(makes(5, ArrangementCache::most_bytes + 1)) << "more than is kept at all";
  EXPECT_FALSE(cache_.holds({{1, 1, 5}}, 0));
  EXPECT_TRUE(cache_.holds({{1, 1, 4}}, 0)) << "nothing gives way to it";
}

TEST_F(KeptArrangements, OfLargeCallsDisplaceNoSmallOnes) {
  constexpr int64_t half = ArrangementCache::most_bytes / 2;
  EXPECT_TRUE(makes(ArrangementCache::small_patches, 1000));
  for (const int64_t more : {1, 2, 3}) EXPECT_TRUE(makes(ArrangementCache::small_patches + more, half));
  EXPECT_FALSE(makes(ArrangementCache::small_patches, 1000));
  EXPECT_FALSE(makes(ArrangementCache::small_patches + 3, half));
  EXPECT_TRUE(makes(ArrangementCache::small_patches + 1, half)) << "the third took its place";
}

TEST_F(KeptArrangements, BeyondTheLargestCallAreNot) {
  EXPECT_TRUE(makes(ArrangementCache::most_patches + 1, 1));
  EXPECT_TRUE(makes(ArrangementCache::most_patches + 1, 1));
}

}  // namespace
}  // namespace oriel
