#include "ops/norm.hpp"

#include <cmath>
#include <vector>

#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

std::vector<double> layer_norm_truth(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                     double eps) {
  const std::vector<double> values = doubles(x);
  const std::vector<double> w = doubles(weight);
  const std::vector<double> b = doubles(bias);
  const size_t width = w.size();
  std::vector<double> result;
  for (size_t begin = 0; begin < values.size(); begin += width) {
    double mean = 0;
    for (size_t i = 0; i < width; ++i) mean += values[begin + i];
    mean /= static_cast<double>(width);
    double variance = 0;
    for (size_t i = 0; i < width; ++i) variance += (values[begin + i] - mean) * (values[begin + i] - mean);
    variance /= static_cast<double>(width);
    for (size_t i = 0; i < width; ++i)
      result.push_back((values[begin + i] - mean) / std::sqrt(variance + eps) * w[i] + b[i]);
  }
  return result;
}

/// The float32 factor of every row, step by step: exact where the sum of squares is (Random::quarters, and a width that
/// is a power of two), so that any order of summation gives these bits.
std::vector<float> row_factors(const std::vector<float>& values, size_t width, double eps) {
  std::vector<float> factors;
  for (size_t begin = 0; begin < values.size(); begin += width) {
    float sum = 0;
    for (size_t i = 0; i < width; ++i) sum += values[begin + i] * values[begin + i];
    const float mean = sum / static_cast<float>(width) + static_cast<float>(eps);
    factors.push_back(1.0F / std::sqrt(mean));
  }
  return factors;
}

TEST(LayerNorm, EqualsTheDefinitionInFloat32) {
  for (const int64_t width : {1, 2, 7, 64, 72, 1152}) {
    SCOPED_TRACE(testing::Message() << "width and seed " << width);
    Random random(static_cast<uint64_t>(width));
    // Rows far from zero: the mean has to be taken off before squaring.
    const at::Tensor x = random.normal({5, width}, 0.5, 10);
    const at::Tensor weight = random.normal({width});
    const at::Tensor bias = random.normal({width});
    for (const double eps : {1e-6, 1e-2})
      // The spread of a row is a twentieth of its mean, and less in a row of two: float32's step at 10 weighs that much
      // more after the division.
      EXPECT_LT(relative_error(doubles(layer_norm(x, weight, bias, eps)), layer_norm_truth(x, weight, bias, eps)),
                5e-5);
  }
}

TEST(LayerNorm, InBfloat16IsRoundedOnce) {
  Random random(11);
  const at::Tensor x = random.normal({37, 80}).to(at::kBFloat16);
  const at::Tensor weight = random.normal({80}).to(at::kBFloat16);
  const at::Tensor bias = random.normal({80}).to(at::kBFloat16);
  const at::Tensor y = layer_norm(x, weight, bias, 1e-6);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  const std::vector<double> got = doubles(y);
  const std::vector<double> truth = layer_norm_truth(x, weight, bias, 1e-6);
  for (size_t i = 0; i < got.size(); ++i)
    // One rounding, of a float32 value that is good to about 1e-6; a second one would err by up to as much again.
    ASSERT_NEAR(got[i], truth[i], half_step(truth[i]) + 5e-6) << "seed 11, element " << i;
}

TEST(RmsNorm, EqualsTheDefinitionInFloat32) {
  for (const int64_t width : {1, 3, 64, 97, 1280}) {
    SCOPED_TRACE(testing::Message() << "width and seed " << width);
    Random random(static_cast<uint64_t>(width));
    const at::Tensor x = random.normal({6, width}, 3);
    const at::Tensor weight = random.normal({width});
    const std::vector<double> values = doubles(x);
    const std::vector<double> w = doubles(weight);
    for (const double eps : {1e-6, 0.05}) {
      std::vector<double> expected;
      std::vector<double> expected_offset;
      for (size_t begin = 0; begin < values.size(); begin += w.size()) {
        double sum = 0;
        for (size_t i = 0; i < w.size(); ++i) sum += values[begin + i] * values[begin + i];
        const double factor = 1 / std::sqrt(sum / static_cast<double>(w.size()) + eps);
        for (size_t i = 0; i < w.size(); ++i) {
          expected.push_back(values[begin + i] * factor * w[i]);
          expected_offset.push_back(values[begin + i] * factor * (1 + w[i]));
        }
      }
      // The mean, its root and two products: a handful of roundings.
      EXPECT_LT(relative_error(doubles(rms_norm(x, weight, eps)), expected), 1e-6);
      EXPECT_LT(relative_error(doubles(rms_norm_offset(x, weight, eps)), expected_offset), 1e-6);
    }
  }
}

TEST(RmsNorm, InBfloat16IsRoundedBeforeTheWeight) {
  Random random(12);
  const at::Tensor x = random.quarters({40, 64}, 4).to(at::kBFloat16);
  const at::Tensor weight = random.normal({64}).to(at::kBFloat16);
  const std::vector<float> values = floats(x);
  const std::vector<float> w = floats(weight);
  const std::vector<float> factors = row_factors(values, 64, 1e-5);
  std::vector<float> expected;
  bool one_rounding_would_differ = false;
  for (size_t i = 0; i < values.size(); ++i) {
    const float normalised = values[i] * factors[i / 64];
    expected.push_back(rounded(rounded(normalised) * w[i % 64]));
    one_rounding_would_differ |= rounded(normalised * w[i % 64]) != expected.back();
  }
  EXPECT_TRUE(one_rounding_would_differ);
  const at::Tensor y = rms_norm(x, weight, 1e-5);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  expect_equal_values(y, expected, "seed 12");
}

TEST(RmsNorm, WithOffsetInBfloat16IsRoundedAtTheEnd) {
  Random random(13);
  const at::Tensor x = random.quarters({40, 64}, 4).to(at::kBFloat16);
  const at::Tensor weight = random.normal({64}).to(at::kBFloat16);
  const std::vector<float> values = floats(x);
  const std::vector<float> w = floats(weight);
  const std::vector<float> factors = row_factors(values, 64, 1e-6);
  std::vector<float> expected;
  bool two_roundings_would_differ = false;
  for (size_t i = 0; i < values.size(); ++i) {
    const float normalised = values[i] * factors[i / 64];
    expected.push_back(rounded(normalised * (1 + w[i % 64])));
    two_roundings_would_differ |= rounded(rounded(normalised) * rounded(1 + w[i % 64])) != expected.back();
  }
  EXPECT_TRUE(two_roundings_would_differ);
  const at::Tensor y = rms_norm_offset(x, weight, 1e-6);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  expect_equal_values(y, expected, "seed 13");
}

TEST(RmsNorm, EpsKeepsARowOfZerosFinite) {
  const at::Tensor zeros = at::empty({2, 8}, at::kFloat).zero_();
  const at::Tensor weight = Random(14).normal({8});
  expect_equal_values(rms_norm(zeros, weight, 1e-6), std::vector<float>(16, 0), "rms_norm");
  expect_equal_values(rms_norm_offset(zeros, weight, 1e-6), std::vector<float>(16, 0), "rms_norm_offset");
}

TEST(RmsNorm, OnePassEqualsTheReferenceAtEveryWidth) {
  for (const int64_t width : {1, 2, 15, 16, 17, 31, 33, 100, 1280}) {
    SCOPED_TRACE(testing::Message() << "width and seed " << width);
    Random random(static_cast<uint64_t>(width));
    const at::Tensor x = random.normal({37, width}, 3);
    const at::Tensor weight = random.normal({width});
    EXPECT_LT(relative_error(doubles(rms_norm(x, weight, 1e-6)), doubles(rms_norm_reference(x, weight, 1e-6))), 1e-6);
    EXPECT_LT(
        relative_error(doubles(rms_norm_offset(x, weight, 1e-6)), doubles(rms_norm_offset_reference(x, weight, 1e-6))),
        1e-6);
  }
}

TEST(RmsNorm, OnePassIsRoundedLikeTheReferenceInShorterDtypes) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf})
    for (const int64_t width : {1, 17, 100, 1280}) {
      SCOPED_TRACE(testing::Message() << dtype << ", width and seed " << width);
      Random random(static_cast<uint64_t>(width));
      const at::Tensor x = random.normal({300, width}, 3).to(dtype);
      const at::Tensor weight = random.normal({width}).to(dtype);
      const at::Tensor y = rms_norm(x, weight, 1e-6);
      EXPECT_EQ(y.scalar_type(), dtype);
      // The sum of squares differs by its order alone: once in some thousand values it decides a rounding.
      const std::vector<float> got = floats(y);
      const std::vector<float> expected = floats(rms_norm_reference(x, weight, 1e-6));
      size_t differ = 0;
      for (size_t i = 0; i < got.size(); ++i) {
        differ += got[i] != expected[i] ? 1 : 0;
        EXPECT_NEAR(got[i], expected[i], 0.02F * std::abs(expected[i])) << "place " << i;
      }
      EXPECT_LE(differ, 1 + got.size() / 500);
    }
}

TEST(RmsNorm, NanStaysInItsRow) {
  Random random(4);
  at::Tensor x = random.normal({5, 40});
  const at::Tensor weight = random.normal({40});
  const std::vector<float> clean = floats(rms_norm(x, weight, 1e-6));
  x[2][7] = std::nanf("");
  const std::vector<float> spoilt = floats(rms_norm(x, weight, 1e-6));
  for (size_t i = 0; i < clean.size(); ++i) {
    if (i / 40 == 2)
      EXPECT_TRUE(std::isnan(spoilt[i])) << i;
    else
      EXPECT_EQ(spoilt[i], clean[i]) << i;
  }
}

}  // namespace
}  // namespace oriel::ops
