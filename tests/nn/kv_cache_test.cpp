#include "nn/kv_cache.hpp"

#include "core/expect_error.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::nn {
namespace {

constexpr KvCache::Shape shape{.layers = 2, .slots = 3, .capacity = 5, .kv_heads = 2, .head_dim = 4};

TEST(KvCache, StartsWithZerosOfItsShape) {
  const KvCache cache(shape, at::kFloat, at::kCPU);
  for (int64_t i = 0; i < 2; ++i) {
    const LayerCache layer = cache.layer(i);
    for (const at::Tensor& part : {layer.keys, layer.values}) {
      EXPECT_EQ(part.sizes(), (std::vector<int64_t>{3, 5, 2, 4}));
      expect_equal_values(part, std::vector<float>(120, 0), "zeros");
    }
  }
  EXPECT_EQ(KvCache::bytes_per_token(shape, at::kFloat), 2 * 2 * 2 * 4 * 4);
  EXPECT_EQ(KvCache::bytes_per_token(shape, at::kBFloat16), 2 * 2 * 2 * 4 * 2);
}

TEST(KvCache, ACopiedPrefixIsThatOfTheOtherSlotAndNoMore) {
  KvCache cache(shape, at::kFloat, at::kCPU);
  Random random(1);
  for (int64_t i = 0; i < 2; ++i) {
    cache.layer(i).keys.copy_(random.normal({3, 5, 2, 4}));
    cache.layer(i).values.copy_(random.normal({3, 5, 2, 4}));
  }
  const at::Tensor before = cache.layer(1).values.clone();
  cache.copy_prefix(2, 0, 3);
  const at::Tensor after = cache.layer(1).values;
  expect_equal_values(after[0].narrow(0, 0, 3), floats(before[2].narrow(0, 0, 3)), "the prefix");
  expect_equal_values(after[0].narrow(0, 3, 2), floats(before[0].narrow(0, 3, 2)), "behind it");
  for (const int64_t slot : {1, 2}) expect_equal_values(after[slot], floats(before[slot]), "other slots");
  cache.copy_prefix(1, 1, 5);
  cache.copy_prefix(1, 2, 0);
  expect_equal_values(cache.layer(1).values, floats(after), "nothing to copy");
}

TEST(KvCache, WhatDoesNotFitIsRefused) {
  KvCache cache(shape, at::kFloat, at::kCPU);
  expect_error(ErrorCode::internal, "KV cache: expected 3 slots of 5 tokens, got 6 tokens from 0 to 1",
               [&] { cache.copy_prefix(0, 1, 6); });
  expect_error(ErrorCode::internal, "KV cache: expected 3 slots of 5 tokens, got 1 tokens from 3 to 1",
               [&] { cache.copy_prefix(3, 1, 1); });
  KvCache::Shape huge = shape;
  huge.capacity = int64_t{1} << 60;
  EXPECT_THROW(KvCache(huge, at::kFloat, at::kCPU), Error);
}

}  // namespace
}  // namespace oriel::nn
