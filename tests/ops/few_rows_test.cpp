#include "ops/few_rows.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <vector>

#include "ops/linear.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

using Layout = ReadableWeight::Layout;

struct Sizes {
  int64_t out, in;
};
// Below, at and above a panel, a vector, a pair and a stretch of inputs.
constexpr Sizes sizes[] = {{1, 1},    {3, 2},      {5, 17},     {64, 16},    {65, 31},
                           {63, 512}, {130, 1027}, {193, 1536}, {1031, 321}, {2, 5000}};

/// [out / 64, depth / pair, 64, pair], written without any of the code under test.
at::Tensor packed_panels(const at::Tensor& weight) {
  const int64_t pair = weight.scalar_type() == at::kFloat ? 1 : 2;
  const auto missing = [](int64_t size, int64_t multiple) { return (multiple - size % multiple) % multiple; };
  const at::Tensor filled =
      at::constant_pad_nd(weight, {0, missing(weight.size(1), 16 * pair), 0, missing(weight.size(0), 64)});
  const int64_t panels = filled.size(0) / 64;
  return filled.view({panels, 64, filled.size(1) / pair, pair}).transpose(1, 2).contiguous();
}

/// The weight in a layout, and the memory that it is in.
struct Held {
  at::Tensor memory;
  std::optional<ReadableWeight> weight;
};
Held hold(const at::Tensor& weight, Layout layout) {
  if (layout == Layout::rows) return {weight, readable_rows(weight)};
  const at::Tensor packed = packed_panels(weight);
  return {packed, readable_packed(weight, packed.const_data_ptr(), static_cast<int64_t>(packed.nbytes()))};
}

/// Calls body(weight, held) for every size, dtype and layout.
template <typename Body>
void for_all_weights(const Body& body) {
  for (const Sizes& size : sizes)
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
      for (const Layout layout : {Layout::rows, Layout::panels}) {
        SCOPED_TRACE(fmt::format("[{}, {}], {}, {}, seed {}", size.out, size.in, c10::toString(dtype),
                                 layout == Layout::rows ? "rows" : "panels", size.in));
        Random random(static_cast<uint64_t>(size.in));
        const at::Tensor weight = random.normal({size.out, size.in}, 1 / std::sqrt(size.in)).to(dtype);
        const Held held = hold(weight, layout);
        ASSERT_TRUE(held.weight);
        ASSERT_EQ(held.weight->layout, layout);
        body(random, weight, *held.weight);
      }
}

/// |error| of a float32 sum of these terms in any order, and of rounding it to the dtype.
void expect_close(const at::Tensor& got, const at::Tensor& expected, const at::Tensor& magnitudes, int64_t terms) {
  ASSERT_EQ(got.sizes(), expected.sizes());
  const std::vector<double> values = doubles(got);
  const std::vector<double> truth = doubles(expected);
  const std::vector<double> sizes_added = doubles(magnitudes);
  for (size_t i = 0; i < values.size(); ++i) {
    const double sum_error = static_cast<double>(terms) * 0x1p-24 * sizes_added[i];
    const double rounding = got.scalar_type() == at::kFloat ? 0 : half_step(std::abs(truth[i]) + sum_error);
    ASSERT_NEAR(values[i], truth[i], sum_error + rounding) << "element " << i;
  }
}

TEST(FewRows, AreTheSumsOfTheirProducts) {
  for_all_weights([](Random& random, const at::Tensor& weight, const ReadableWeight& readable) {
    for (int64_t rows = 1; rows <= readable.most_rows(); ++rows) {
      SCOPED_TRACE(rows);
      const at::Tensor x = random.normal({rows, weight.size(1)}).to(weight.scalar_type());
      const at::Tensor got = few_rows_product(x, readable, {});
      ASSERT_EQ(got.scalar_type(), weight.scalar_type());
      const at::Tensor a = x.to(at::kDouble);
      const at::Tensor w = weight.to(at::kDouble).t();
      expect_close(got, a.matmul(w), a.abs().matmul(w.abs()), weight.size(1) + 1);
    }
  });
}

TEST(FewRows, EndWithBiasSumAndFactor) {
  for_all_weights([](Random& random, const at::Tensor& weight, const ReadableWeight& readable) {
    const auto make = [&](std::vector<int64_t> shape) { return random.normal(shape).to(weight.scalar_type()); };
    const int64_t rows = 3;
    const at::Tensor x = make({rows, readable.in});
    const SumEnd end{
        .bias = make({readable.out}), .plus = make({rows, readable.out}), .times = make({rows, readable.out})};
    const at::Tensor a = x.to(at::kDouble);
    const at::Tensor w = weight.to(at::kDouble).t();
    const auto wide = [](const at::Tensor& tensor) { return tensor.to(at::kDouble); };
    const auto ended = [&](const at::Tensor& sums, const auto& part) {
      return (sums + part(end.bias) + part(end.plus)) * part(end.times);
    };
    expect_close(few_rows_product(x, readable, end), ended(a.matmul(w), wide),
                 ended(a.abs().matmul(w.abs()), [&](const at::Tensor& tensor) { return wide(tensor).abs(); }),
                 weight.size(1) + 4);
  });
}

TEST(FewRows, ARowsBitsDoNotDependOnTheOthers) {
  for_all_weights([](Random& random, const at::Tensor& weight, const ReadableWeight& readable) {
    const at::Tensor x = random.normal({readable.most_rows(), readable.in}).to(weight.scalar_type());
    for (int64_t rows = 2; rows <= readable.most_rows(); ++rows) {
      SCOPED_TRACE(rows);
      const std::vector<double> together = doubles(few_rows_product(x.narrow(0, 0, rows), readable, {}));
      std::vector<double> alone;
      for (int64_t row = 0; row < rows; ++row)
        for (const double value : doubles(few_rows_product(x.narrow(0, row, 1), readable, {}))) alone.push_back(value);
      ASSERT_EQ(together, alone);
    }
  });
}

TEST(FewRows, ReadWhatOneDnnPacked) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(c10::toString(dtype));
    Random random(3);
    const at::Tensor weight = random.normal({1152, 896}, 0.03).to(dtype);  // a layout for large layers
    const Linear linear(weight, {});
    if (!linear.is_readable()) GTEST_SKIP() << "oneDNN packs otherwise for this processor";
    const Linear plain = Linear::sharing(weight);
    ASSERT_TRUE(plain.is_readable());
    linear.expect_few_rows();
    for (const int64_t rows : {1, 4, 5, 9}) {
      SCOPED_TRACE(rows);
      const at::Tensor x = random.normal({rows, 896}).to(dtype);
      const at::Tensor a = x.to(at::kDouble);
      const at::Tensor w = weight.to(at::kDouble).t();
      for (const Linear& one : {linear, plain}) expect_close(one(x), a.matmul(w), a.abs().matmul(w.abs()), 897);
    }
  }
}

TEST(FewRows, AnotherLayoutIsNotRead) {
  Random random(4);
  const at::Tensor weight = random.normal({130, 64});
  const at::Tensor packed = packed_panels(weight);
  const auto bytes = static_cast<int64_t>(packed.nbytes());
  ASSERT_TRUE(readable_packed(weight, packed.const_data_ptr(), bytes));
  EXPECT_FALSE(readable_packed(weight, packed.const_data_ptr(), bytes - 1)) << "ends filled up lie beyond the memory";
  const at::Tensor whole = random.normal({128, 64});  // nothing to fill up
  const at::Tensor columns = whole.t().contiguous();
  EXPECT_FALSE(readable_packed(whole, columns.const_data_ptr(), static_cast<int64_t>(columns.nbytes())));
  EXPECT_FALSE(readable_packed(weight, nullptr, bytes));
  EXPECT_FALSE(readable_rows(weight.to(at::kHalf)));
  EXPECT_FALSE(readable_rows(weight.t()));
  for (const int64_t place : {int64_t{0}, packed.numel() - 1}) {
    at::Tensor damaged = packed.clone();
    damaged.mutable_data_ptr<float>()[place] += 1;
    EXPECT_FALSE(readable_packed(weight, damaged.const_data_ptr(), bytes)) << place;
  }
}

/// Its first and last panel are zeros, which lie alike in every layout.
TEST(FewRows, ZerosTellNoLayout) {
  Random random(5);
  const at::Tensor weight = random.normal({192, 64});
  weight.narrow(0, 0, 64).zero_();
  weight.narrow(0, 128, 64).zero_();
  at::Tensor other = weight.clone();
  other.narrow(0, 64, 64).copy_(weight.narrow(0, 64, 64).flip(0));
  EXPECT_FALSE(readable_packed(weight, other.const_data_ptr(), static_cast<int64_t>(other.nbytes())).has_value());
}

TEST(FewRows, WhatIsNoNumberStaysInItsRow) {
  for_all_weights([](Random& random, const at::Tensor& weight, const ReadableWeight& readable) {
    at::Tensor x = random.normal({2, readable.in});
    x.mutable_data_ptr<float>()[readable.in - 1] = std::numeric_limits<float>::quiet_NaN();
    const at::Tensor both = few_rows_product(x.to(weight.scalar_type()), readable, {});
    for (const double value : doubles(both[0])) ASSERT_TRUE(std::isnan(value));
    for (const double value : doubles(both[1])) ASSERT_TRUE(std::isfinite(value));
  });
}

}  // namespace
}  // namespace oriel::ops
