#include "ops/linear.hpp"

#include <ATen/TensorOperators.h>
#include <fmt/format.h>

#include <cmath>
#include <vector>

#include "core/expect_error.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

struct Sizes {
  int64_t rows, in, out;
};
constexpr Sizes sizes[] = {{1, 1, 1},  {1, 3, 3},    {3, 1, 5},      {2, 7, 13},
                           {5, 31, 1}, {17, 97, 89}, {64, 588, 128}, {257, 320, 1031}};

constexpr Activation all[] = {Activation::identity, Activation::relu,      Activation::silu,
                              Activation::gelu_erf, Activation::gelu_tanh, Activation::quick_gelu};

/// x W^T + b in double, and for every element the sum of the magnitudes that were added.
struct Truth {
  std::vector<double> values;
  std::vector<double> magnitudes;
};

Truth product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const int64_t in = weight.size(1);
  const int64_t out = weight.size(0);
  const std::vector<double> a = doubles(x);
  const std::vector<double> w = doubles(weight);
  const std::vector<double> b = bias.defined() ? doubles(bias) : std::vector<double>(static_cast<size_t>(out), 0.0);
  Truth truth;
  for (int64_t row = 0; row < x.size(0); ++row)
    for (int64_t column = 0; column < out; ++column) {
      double sum = b[static_cast<size_t>(column)];
      double magnitude = std::abs(sum);
      for (int64_t k = 0; k < in; ++k) {
        const double term = a[static_cast<size_t>(row * in + k)] * w[static_cast<size_t>(column * in + k)];
        sum += term;
        magnitude += std::abs(term);
      }
      truth.values.push_back(sum);
      truth.magnitudes.push_back(magnitude);
    }
  return truth;
}

std::vector<double> activated(const std::vector<double>& values, Activation activation) {
  at::Tensor wide = at::empty({static_cast<int64_t>(values.size())}, at::kDouble);
  std::copy(values.begin(), values.end(), wide.mutable_data_ptr<double>());
  return doubles(activate(wide, activation));  // in float64; activation_test.cpp holds it to the formulas
}

struct Layer {
  at::Tensor x, weight, bias, residual;
};

Layer make_layer(const Sizes& size, bool with_bias, uint64_t seed) {
  Random random(seed);
  return {random.normal({size.rows, size.in}), random.normal({size.out, size.in}, 1 / std::sqrt(size.in)),
          with_bias ? random.normal({size.out}) : at::Tensor(), random.normal({size.rows, size.out})};
}

std::string describe(const Sizes& size, bool bias) {
  return fmt::format("{} x {} -> {}, bias {}, seed {}", size.rows, size.in, size.out, bias, size.in);
}

TEST(Linear, PackedFloat32StaysWithinTheRoundingOfASum) {
  for (const Sizes& size : sizes)
    for (const bool with_bias : {false, true}) {
      SCOPED_TRACE(describe(size, with_bias));
      const Layer layer = make_layer(size, with_bias, static_cast<uint64_t>(size.in));
      const Linear linear(layer.weight, layer.bias);
      ASSERT_TRUE(linear.is_packed());
      EXPECT_EQ(linear.in_features(), size.in);
      EXPECT_EQ(linear.out_features(), size.out);
      const Truth truth = product(layer.x, layer.weight, layer.bias);
      for (const Activation activation : all) {
        const std::vector<double> expected = activated(truth.values, activation);
        for (const at::Tensor& y :
             {linear(layer.x, activation), linear_reference(layer.x, layer.weight, layer.bias, activation)}) {
          ASSERT_EQ(y.sizes(), (std::vector{size.rows, size.out}));
          const std::vector<double> got = doubles(y);
          for (size_t i = 0; i < got.size(); ++i)
            // A sum of n terms in any order errs by at most n roundings of its magnitude; no activation is steeper
            // than 1.2, and each adds a few roundings of its own.
            ASSERT_NEAR(got[i], expected[i], 1.2 * static_cast<double>(size.in + 16) * 0x1p-24 * truth.magnitudes[i])
                << "activation " << static_cast<int>(activation) << ", element " << i;
        }
      }
    }
}

TEST(Linear, AddToAddsTheResidual) {
  for (const Sizes& size : sizes)
    for (const bool with_bias : {false, true}) {
      SCOPED_TRACE(describe(size, with_bias));
      const Layer layer = make_layer(size, with_bias, static_cast<uint64_t>(size.in));
      const Linear linear(layer.weight, layer.bias);
      const std::vector<double> before = doubles(layer.residual);
      const std::vector<double> got = doubles(linear.add_to(layer.residual, layer.x));
      const Truth truth = product(layer.x, layer.weight, layer.bias);
      ASSERT_EQ(got.size(), truth.values.size());
      for (size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], before[i] + truth.values[i],
                    static_cast<double>(size.in + 4) * 0x1p-24 * (truth.magnitudes[i] + std::abs(before[i])));
      EXPECT_EQ(doubles(layer.residual), before) << "the residual was written to";
    }
}

TEST(Linear, MultiplyWithMultipliesElementwise) {
  for (const Sizes& size : sizes)
    for (const bool with_bias : {false, true}) {
      SCOPED_TRACE(describe(size, with_bias));
      const Layer layer = make_layer(size, with_bias, static_cast<uint64_t>(size.in));
      const Linear linear(layer.weight, layer.bias);
      const std::vector<double> factors = doubles(layer.residual);
      const std::vector<double> got = doubles(linear.multiply_with(layer.residual, layer.x));
      const Truth truth = product(layer.x, layer.weight, layer.bias);
      ASSERT_EQ(got.size(), truth.values.size());
      for (size_t i = 0; i < got.size(); ++i)
        ASSERT_NEAR(got[i], factors[i] * truth.values[i],
                    static_cast<double>(size.in + 4) * 0x1p-24 * truth.magnitudes[i] * std::abs(factors[i]));
      EXPECT_EQ(doubles(layer.residual), factors) << "the factors were written to";
    }
}

TEST(Linear, InBfloat16IsAsCloseToTheTruthAsTheReference) {
  for (const Sizes& size : sizes)
    for (const bool with_bias : {false, true}) {
      SCOPED_TRACE(describe(size, with_bias));
      Layer layer = make_layer(size, with_bias, static_cast<uint64_t>(size.in));
      for (at::Tensor* tensor : {&layer.x, &layer.weight, &layer.bias, &layer.residual})
        if (tensor->defined()) *tensor = tensor->to(at::kBFloat16);
      const Linear linear(layer.weight, layer.bias);
      const Truth truth = product(layer.x, layer.weight, layer.bias);
      // Both round float32 sums to 8 bits. The reference rounds again after activating and adding; the packed product
      // may round once. One value in a layer may fall the other way of a tie: 1.01, and 1e-6 where the reference is
      // exact.
      const auto as_close = [&](const at::Tensor& got, const at::Tensor& reference, const std::vector<double>& wide) {
        EXPECT_EQ(got.scalar_type(), at::kBFloat16);
        EXPECT_LE(relative_error(doubles(got), wide), 1.01 * relative_error(doubles(reference), wide) + 1e-6);
        if (!linear.is_packed() && !(linear.is_readable() && size.rows <= 8)) {  // at::linear ran
          EXPECT_EQ(doubles(got), doubles(reference));
        }
      };
      for (const Activation activation : all) {
        SCOPED_TRACE(static_cast<int>(activation));
        as_close(linear(layer.x, activation), linear_reference(layer.x, layer.weight, layer.bias, activation),
                 activated(truth.values, activation));
      }
      std::vector<double> sums = doubles(layer.residual);
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += truth.values[i];
      as_close(linear.add_to(layer.residual, layer.x),
               layer.residual + linear_reference(layer.x, layer.weight, layer.bias), sums);
    }
}

TEST(Linear, ReadsStridedInputs) {
  Random random(5);
  const at::Tensor wide = random.normal({12, 40});
  const at::Tensor weight = random.normal({9, 16});
  const at::Tensor view = wide.narrow(1, 7, 16);
  const Linear linear(weight, {});
  ASSERT_TRUE(linear.is_packed());
  EXPECT_EQ(doubles(linear(view)), doubles(linear(view.contiguous())));
  const at::Tensor residual = random.normal({9, 12}).t();
  EXPECT_EQ(doubles(linear.add_to(residual, view)), doubles(linear.add_to(residual.contiguous(), view.contiguous())));
}

TEST(Linear, KeepsNothingOfTheGivenWeight) {
  Random random(6);
  at::Tensor weight = random.normal({8, 8});
  const at::Tensor x = random.normal({4, 8});
  const Linear linear(weight, {});
  const std::vector<double> before = doubles(linear(x));
  weight.zero_();
  EXPECT_EQ(doubles(linear(x)), before);
}

TEST(Linear, SharingAWeightKeepsItAndComputesTheSame) {
  Random random(6);
  const at::Tensor weight = random.normal({9, 21});
  const at::Tensor x = random.normal({4, 21});
  const Linear shared = Linear::sharing(weight);
  EXPECT_FALSE(shared.is_packed());
  EXPECT_EQ(weight.use_count(), 2U);
  EXPECT_LT(relative_error(doubles(shared(x)), doubles(linear_reference(x, weight, {}))), 1e-6);
  EXPECT_EQ(shared.in_features(), 21);
  EXPECT_EQ(shared.out_features(), 9);
}

TEST(Linear, WrongWidthIsRefused) {
  const Linear linear(Random(7).normal({4, 5}), {});
  expect_error(ErrorCode::internal, "linear: expected 5 columns, got 6", [&] {
    (void)linear(Random(8).normal({2, 6}));
  });
  EXPECT_FALSE(Linear().defined());
  EXPECT_TRUE(linear.defined());
}

}  // namespace
}  // namespace oriel::ops
