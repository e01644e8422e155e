#include "ops/patch_merge.hpp"

#include <vector>

#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

/// Every value says where it came from: row * 1000 + channel.
at::Tensor numbered(int64_t rows, int64_t channels) {
  at::Tensor x = at::empty({rows, channels}, at::kFloat);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t channel = 0; channel < channels; ++channel)
      x.mutable_data_ptr<float>()[row * channels + channel] = static_cast<float>(row * 1000 + channel);
  return x;
}

TEST(MergeRasterPatches, OrdersABlockByChannelThenRowThenColumn) {
  for (const int64_t m : {1, 2, 3})
    for (const auto& [block_rows, block_columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {2, 5}, {4, 1}}) {
      SCOPED_TRACE(testing::Message() << m << " x " << m << ", " << block_rows << " x " << block_columns);
      const int64_t h = block_rows * m;
      const int64_t w = block_columns * m;
      constexpr int64_t channels = 5;
      std::vector<float> expected;
      for (int64_t block_row = 0; block_row < block_rows; ++block_row)
        for (int64_t block_column = 0; block_column < block_columns; ++block_column)
          for (int64_t channel = 0; channel < channels; ++channel)
            for (int64_t dy = 0; dy < m; ++dy)
              for (int64_t dx = 0; dx < m; ++dx)
                expected.push_back(
                    static_cast<float>(((block_row * m + dy) * w + block_column * m + dx) * 1000 + channel));
      const at::Tensor got = merge_raster_patches(numbered(h * w, channels), h, w, m);
      ASSERT_EQ(got.sizes(), (std::vector{block_rows * block_columns, channels * m * m}));
      expect_equal_values(got, expected, "merged");
    }
}

/// Pools in double; `side` need not be a multiple of k.
std::vector<double> pooled(const at::Tensor& x, int64_t pictures, int64_t side, int64_t k) {
  const std::vector<double> values = doubles(x);
  const int64_t channels = x.size(1);
  const int64_t cells = side / k;
  std::vector<double> result;
  for (int64_t picture = 0; picture < pictures; ++picture)
    for (int64_t row = 0; row < cells; ++row)
      for (int64_t column = 0; column < cells; ++column)
        for (int64_t channel = 0; channel < channels; ++channel) {
          double sum = 0;
          for (int64_t dy = 0; dy < k; ++dy)
            for (int64_t dx = 0; dx < k; ++dx)
              sum += values[static_cast<size_t>(((picture * side + row * k + dy) * side + column * k + dx) * channels +
                                                channel)];
          result.push_back(sum / static_cast<double>(k * k));
        }
  return result;
}

TEST(AveragePool, EqualsTheLoopAndLeavesTheRemainderOut) {
  for (const auto& [side, k] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {4, 2}, {6, 3}, {7, 2}, {8, 3}, {9, 9}}) {
    SCOPED_TRACE(testing::Message() << "side " << side << ", k " << k << ", seed " << side);
    constexpr int64_t pictures = 3;
    const at::Tensor x = Random(static_cast<uint64_t>(side)).normal({pictures * side * side, 6});
    const at::Tensor got = average_pool(x, side, k);
    ASSERT_EQ(got.sizes(), (std::vector{pictures * (side / k) * (side / k), int64_t{6}}));
    // k * k additions and a division in float32.
    EXPECT_LT(relative_error(doubles(got), pooled(x, pictures, side, k)), 81 * 0x1p-24);
  }
}

TEST(AveragePool, InBfloat16IsSummedInFloat32AndRoundedOnce) {
  // Sums of quarters are exact in float32, and so is the division by 16: any order gives these bits.
  const at::Tensor x = Random(41).quarters({2 * 8 * 8, 5}, 30).to(at::kBFloat16);
  std::vector<float> expected;
  for (const double value : pooled(x, 2, 8, 4)) expected.push_back(rounded(static_cast<float>(value)));
  const at::Tensor got = average_pool(x, 8, 4);
  EXPECT_EQ(got.scalar_type(), at::kBFloat16);
  expect_equal_values(got, expected, "seed 41");
}

}  // namespace
}  // namespace oriel::ops
