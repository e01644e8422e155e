#include "ops/activation.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>

#include <cmath>
#include <utility>
#include <vector>

#include "core/expect_error.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

double formula(double x, Activation activation) {
  switch (activation) {
    case Activation::identity:
      return x;
    case Activation::relu:
      return x > 0 ? x : 0;
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::gelu_erf:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::quick_gelu:
      return x * sigmoid(1.702 * x);
  }
  return NAN;
}

constexpr Activation all[] = {Activation::identity, Activation::relu,      Activation::silu,
                              Activation::gelu_erf, Activation::gelu_tanh, Activation::quick_gelu};

/// -12 to 12: both tails and the bend of every activation.
at::Tensor ramp() {
  at::Tensor x = at::empty({2401}, at::kFloat);
  for (int64_t i = 0; i < x.numel(); ++i) x.mutable_data_ptr<float>()[i] = static_cast<float>(i - 1200) / 100;
  return x;
}

TEST(Activation, EveryKindFollowsItsFormula) {
  const at::Tensor x = ramp();
  const std::vector<double> values = doubles(x);
  for (const Activation activation : all) {
    const std::vector<double> got = doubles(activate(x, activation));
    ASSERT_EQ(got.size(), values.size());
    for (size_t i = 0; i < got.size(); ++i)
      // A few float32 steps of the argument: the result inherits them.
      ASSERT_NEAR(got[i], formula(values[i], activation), 5e-7 * std::max(1.0, std::abs(values[i])))
          << "activation " << static_cast<int>(activation) << " at " << values[i];
  }
}

TEST(Activation, TheTwoGelusAreToldApart) {
  // They differ by up to 4.7e-4; the tolerance above is a thousand times smaller only if this holds.
  double difference = 0;
  const auto erf = doubles(activate(ramp(), Activation::gelu_erf));
  const auto tanh = doubles(activate(ramp(), Activation::gelu_tanh));
  for (size_t i = 0; i < erf.size(); ++i) difference = std::max(difference, std::abs(erf[i] - tanh[i]));
  EXPECT_GT(difference, 1e-4);
}

TEST(Activation, KeepsTheDtypeAndRoundsToIt) {
  const at::Tensor x = ramp().to(at::kBFloat16);
  const std::vector<double> values = doubles(x);
  for (const Activation activation : all) {
    if (activation == Activation::quick_gelu) continue;  // rounds three times, below
    const at::Tensor y = activate(x, activation);
    EXPECT_EQ(y.scalar_type(), at::kBFloat16);
    const std::vector<double> got = doubles(y);
    for (size_t i = 0; i < got.size(); ++i) {
      const double truth = formula(values[i], activation);
      // One rounding, and float32's own error where the tail is tiny.
      ASSERT_NEAR(got[i], truth, half_step(truth) + 1e-6)
          << "activation " << static_cast<int>(activation) << " at " << values[i];
    }
  }
}

TEST(Activation, QuickGeluIsRoundedAfterEveryStep) {
  const at::Tensor x = Random(1).normal({257}, 3).to(at::kBFloat16);
  std::vector<float> expected;
  bool one_rounding_would_differ = false;
  for (const float value : floats(x)) {
    const float scaled = rounded(value * 1.702F);
    const float gate = rounded(static_cast<float>(sigmoid(static_cast<double>(scaled))));
    expected.push_back(rounded(value * gate));
    const auto once = static_cast<float>(formula(static_cast<double>(value), Activation::quick_gelu));
    one_rounding_would_differ |= rounded(once) != expected.back();
  }
  EXPECT_TRUE(one_rounding_would_differ);
  expect_equal_values(activate(x, Activation::quick_gelu), expected, "seed 1");
}

TEST(Activation, QuickGeluInPlaceFollowsTheFormula) {
  // Beyond the range in which the exponential does not overflow too.
  const at::Tensor x = at::cat({ramp(), ramp() * 20});
  const std::vector<double> values = doubles(x);
  quick_gelu_in_place(x);
  const std::vector<double> got = doubles(x);
  for (size_t i = 0; i < got.size(); ++i) {
    const double truth = formula(values[i], Activation::quick_gelu);
    // The product with 1.702 is rounded before the exponential, whose relative error grows with its argument; far to
    // the left the exponential stays at e^88.
    ASSERT_NEAR(got[i], truth, 1e-35 + std::abs(truth) * (3e-7 + 1e-7 * std::abs(values[i]))) << values[i];
  }
}

TEST(Activation, QuickGeluInPlaceKeepsWhatIsNotANumber) {
  const at::Tensor x = ramp();
  x.mutable_data_ptr<float>()[5] = NAN;
  quick_gelu_in_place(x);
  EXPECT_TRUE(std::isnan(floats(x)[5]));
  EXPECT_FALSE(std::isnan(floats(x)[4]));
}

TEST(Activation, QuickGeluInPlaceIsTheSameInOtherDtypes) {
  const at::Tensor x = Random(2).normal({3, 700001}, 3).to(at::kBFloat16);  // more than one stretch
  const at::Tensor expected = activate(x, Activation::quick_gelu);
  quick_gelu_in_place(x);
  EXPECT_TRUE(at::equal(x, expected));
}

TEST(Activation, InPlaceEqualsTheCopy) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const Activation activation : {Activation::identity, Activation::relu, Activation::silu, Activation::gelu_erf,
                                        Activation::gelu_tanh, Activation::quick_gelu}) {
      if (activation == Activation::quick_gelu && dtype == at::kFloat) continue;  // in one step there, tested above
      SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(activation) << " in " << dtype);
      const at::Tensor x = Random(3).normal({5, 77}, 3).to(dtype);
      const at::Tensor expected = activate(x.clone(), activation);
      const at::Tensor got = activate_in_place(x, activation);
      EXPECT_EQ(got.const_data_ptr(), x.const_data_ptr());
      EXPECT_TRUE(at::equal(got, expected));
    }
}

TEST(Activation, NamesAreThoseOfTransformers) {
  const std::vector<std::pair<const char*, Activation>> names{{"gelu", Activation::gelu_erf},
                                                              {"gelu_python", Activation::gelu_erf},
                                                              {"gelu_pytorch_tanh", Activation::gelu_tanh},
                                                              {"gelu_python_tanh", Activation::gelu_tanh},
                                                              {"gelu_new", Activation::gelu_tanh},
                                                              {"quick_gelu", Activation::quick_gelu},
                                                              {"silu", Activation::silu},
                                                              {"swish", Activation::silu},
                                                              {"relu", Activation::relu},
                                                              {"linear", Activation::identity}};
  for (const auto& [name, activation] : names) EXPECT_EQ(parse_activation(name, "here"), activation) << name;
}

TEST(Activation, OtherNamesAreRefusedWithTheirPlace) {
  expect_error(ErrorCode::unsupported_model,
               "config.json: vision_config.hidden_act: expected one of gelu, gelu_pytorch_tanh, gelu_new, quick_gelu, "
               "silu, relu, linear, got \"gelu_fast\"",
               [] { (void)parse_activation("gelu_fast", "config.json: vision_config.hidden_act"); });
  EXPECT_THROW((void)parse_activation("", "x"), Error);
  EXPECT_THROW((void)parse_activation("GELU", "x"), Error);
}

}  // namespace
}  // namespace oriel::ops
