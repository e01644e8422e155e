#include "ops/rows.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/tensor.h>

#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

TEST(Rows, AreGatheredFromWhereTheIndexSays) {
  const at::Tensor x = at::tensor({0., 1., 10., 11., 20., 21.}).view({3, 2});
  const at::Tensor some = gather_rows(x, at::tensor({int64_t{2}, int64_t{0}, int64_t{2}, int64_t{1}}));
  EXPECT_TRUE(some.equal(at::tensor({20., 21., 0., 1., 20., 21., 10., 11.}).view({4, 2})));
}

TEST(Rows, AreScatteredBack) {
  const at::Tensor x = Random(1).normal({97, 5});
  const at::Tensor order = at::randperm(97, at::kLong);
  EXPECT_TRUE(scatter_rows(gather_rows(x, order), order).equal(x));
  EXPECT_TRUE(scatter_rows(x, order)[order[3].item<int64_t>()].equal(x[3]));
}

}  // namespace
}  // namespace oriel::ops
