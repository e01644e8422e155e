#include "text/greedy.hpp"

#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace oriel::text {
namespace {

at::Tensor logits_of_noise() { return at::randn({5, 1000}, at::kFloat).mul(4); }

TEST(Greedy, EqualsTheSamplerRowByRow) {
  const at::Tensor logits = logits_of_noise();
  logits[2][700] = 99.0F;
  logits[2][30] = 99.0F;  // a tie
  const std::vector<Choice> found = choose_greedily(logits);
  ASSERT_EQ(found.size(), 5U);
  EXPECT_EQ(found[2].id, 30);
  for (int64_t row = 0; row < 5; ++row) {
    const Choice expected = Sampler({}, 1000, 0).choose({logits[row].const_data_ptr<float>(), 1000});
    EXPECT_EQ(found[static_cast<size_t>(row)].id, expected.id);
    // Both round a sum of a thousand exponentials to float32.
    EXPECT_NEAR(found[static_cast<size_t>(row)].logprob, expected.logprob, 1e-5);
  }
}

TEST(Greedy, RowsThatAreNotFiniteShowAndTouchNoOther) {
  const at::Tensor logits = logits_of_noise();
  logits[1][4] = std::numeric_limits<float>::quiet_NaN();
  logits[3][999] = std::numeric_limits<float>::infinity();
  const std::vector<Choice> found = choose_greedily(logits);
  for (size_t row = 0; row < found.size(); ++row) EXPECT_EQ(std::isnan(found[row].logprob), row == 1 || row == 3);
}

}  // namespace
}  // namespace oriel::text
