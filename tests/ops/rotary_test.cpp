#include "ops/rotary.hpp"

#include <cmath>
#include <vector>

#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

constexpr int64_t tokens = 11;
constexpr int64_t heads = 3;

Rotary random_rotary(Random& random, int64_t head_dim) {
  const at::Tensor angles = random.normal({tokens, head_dim}, 3);
  return {angles.cos(), angles.sin()};
}

/// rotate_half and the two products as loops; `round` is applied after every step.
template <typename Round>
std::vector<float> rotated(const at::Tensor& x, const Rotary& rotary, Round&& round) {
  const std::vector<float> values = floats(x);
  const std::vector<float> cos = floats(rotary.cos);
  const std::vector<float> sin = floats(rotary.sin);
  const auto dim = static_cast<size_t>(x.size(2));
  std::vector<float> result;
  for (size_t token = 0; token < tokens; ++token)
    for (size_t head = 0; head < heads; ++head)
      for (size_t i = 0; i < dim; ++i) {
        const size_t row = (token * heads + head) * dim;
        const float other = i < dim / 2 ? -values[row + i + dim / 2] : values[row + i - dim / 2];
        const float kept = round(values[row + i] * round(cos[token * dim + i]));
        const float turned = round(other * round(sin[token * dim + i]));
        result.push_back(round(kept + turned));
      }
  return result;
}

TEST(Rotate, EqualsTheLoopInFloat32) {
  for (const int64_t head_dim : {4, 20, 64, 80}) {
    SCOPED_TRACE(testing::Message() << "head_dim and seed " << head_dim);
    Random random(static_cast<uint64_t>(head_dim));
    const at::Tensor x = random.normal({tokens, heads, head_dim}, 2);
    const Rotary rotary = random_rotary(random, head_dim);
    const std::vector<float> expected = rotated(x, rotary, [](float value) { return value; });
    for (const RotaryPrecision precision : {RotaryPrecision::working, RotaryPrecision::float32})
      expect_equal_values(rotate(x, rotary, precision), expected, "rotate");
  }
}

TEST(Rotate, InWorkingPrecisionRoundsAfterEveryStep) {
  Random random(21);
  const at::Tensor x = random.normal({tokens, heads, 20}, 2).to(at::kBFloat16);
  const Rotary rotary = random_rotary(random, 20);
  const at::Tensor y = rotate(x, rotary, RotaryPrecision::working);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  expect_equal_values(y, rotated(x, rotary, rounded), "seed 21");
}

TEST(Rotate, InFloat32RoundsOnce) {
  Random random(22);
  const at::Tensor x = random.normal({tokens, heads, 20}, 2).to(at::kBFloat16);
  const Rotary rotary = random_rotary(random, 20);
  std::vector<float> expected = rotated(x, rotary, [](float value) { return value; });
  for (float& value : expected) value = rounded(value);
  ASSERT_NE(expected, rotated(x, rotary, rounded)) << "the two precisions could not be told apart";
  const at::Tensor y = rotate(x, rotary, RotaryPrecision::float32);
  EXPECT_EQ(y.scalar_type(), at::kBFloat16);
  expect_equal_values(y, expected, "seed 22");
}

TEST(Rotate, ReadsOneOfThreeInterleavedTensors) {
  Random random(23);
  const at::Tensor qkv = random.normal({tokens, 3, heads, 16});
  const Rotary rotary = random_rotary(random, 16);
  for (int64_t i = 0; i < 2; ++i)
    expect_equal_values(rotate(qkv.select(1, i), rotary, RotaryPrecision::float32),
                        rotated(qkv.select(1, i), rotary, [](float value) { return value; }), "strided");
}

TEST(InverseFrequencies, FallGeometricallyFromOne) {
  for (const double theta : {10000.0, 300.0, 1e6})
    for (const int64_t dimensions : {2, 10, 32, 64, 80}) {
      const std::vector<double> got = doubles(inverse_frequencies(theta, dimensions));
      ASSERT_EQ(got.size(), static_cast<size_t>(dimensions / 2));
      EXPECT_EQ(got[0], 1.0);
      for (size_t k = 0; k < got.size(); ++k) {
        const double exact = std::pow(theta, -2.0 * static_cast<double>(k) / static_cast<double>(dimensions));
        // The exponent is rounded to float32 before the power, which magnifies it by log(theta) < 14.
        EXPECT_NEAR(got[k], exact, exact * 14 * 0x1p-23) << theta << ", " << dimensions << ", " << k;
      }
    }
}

TEST(AxialRotary, TurnsQuartersWithRowsAndColumns) {
  Random random(24);
  constexpr int64_t quarter = 5;
  const at::Tensor of_rows = random.normal({quarter}).abs();
  const at::Tensor of_columns = random.normal({quarter}).abs();
  at::Tensor rows = at::empty({tokens}, at::kLong);
  at::Tensor columns = at::empty({tokens}, at::kLong);
  for (int64_t i = 0; i < tokens; ++i) {
    rows.mutable_data_ptr<int64_t>()[i] = (7 * i) % 13;
    columns.mutable_data_ptr<int64_t>()[i] = (5 * i + 3) % 64;
  }
  const Rotary rotary = axial_rotary(rows, columns, of_rows, of_columns);
  ASSERT_EQ(rotary.cos.sizes(), (std::vector{tokens, 4 * quarter}));
  ASSERT_EQ(rotary.cos.scalar_type(), at::kFloat);
  EXPECT_TRUE(rotary.defined());
  EXPECT_FALSE(Rotary().defined());
  const std::vector<double> cos = doubles(rotary.cos);
  const std::vector<double> sin = doubles(rotary.sin);
  const std::vector<float> row_frequencies = floats(of_rows);
  const std::vector<float> column_frequencies = floats(of_columns);
  for (int64_t i = 0; i < tokens; ++i)
    for (int64_t d = 0; d < 4 * quarter; ++d) {
      const auto k = static_cast<size_t>(d % quarter);
      const bool by_row = (d / quarter) % 2 == 0;
      const float angle = by_row ? static_cast<float>(rows.const_data_ptr<int64_t>()[i]) * row_frequencies[k]
                                 : static_cast<float>(columns.const_data_ptr<int64_t>()[i]) * column_frequencies[k];
      const auto place = static_cast<size_t>(i * 4 * quarter + d);
      // The angle is the same float32 number; sine and cosine are good to a step or two.
      EXPECT_NEAR(cos[place], std::cos(static_cast<double>(angle)), 2e-7) << "token " << i << ", dimension " << d;
      EXPECT_NEAR(sin[place], std::sin(static_cast<double>(angle)), 2e-7) << "token " << i << ", dimension " << d;
    }
}

TEST(RotateInPlace, EqualsRotateAndLeavesWhatLiesBetween) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t head_dim : {4, 20, 64}) {
      Random random(static_cast<uint64_t>(head_dim));
      const Rotary rotary = random_rotary(random, head_dim);
      const at::Tensor wide = random.normal({tokens, heads + 2, head_dim}, 2).to(dtype);
      const at::Tensor before = wide.clone();
      rotate_in_place(wide.narrow(1, 1, heads), rotary, RotaryPrecision::working);
      expect_equal_values(wide.narrow(1, 1, heads),
                          floats(rotate(before.narrow(1, 1, heads), rotary, RotaryPrecision::working)), "rotated");
      for (const int64_t head : {int64_t{0}, heads + 1})
        expect_equal_values(wide.select(1, head), floats(before.select(1, head)), "others");
    }
}

TEST(TokenRotary, EachPairTurnsWithItsAxis) {
  const std::vector<float> frequencies{1.0F, 0.5F, 0.25F};
  const std::vector<int64_t> axes{2, 0, 1};
  const std::vector<int64_t> positions{0, 7, 1000, 3, 5, 20, 4, 6, 90000};  // [3 axes, 3 tokens]
  const auto row = [](const auto& values, at::ScalarType dtype) {
    at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, dtype);
    std::copy(values.begin(), values.end(),
              static_cast<std::remove_cvref_t<decltype(values[0])>*>(result.mutable_data_ptr()));
    return result;
  };
  const at::Tensor places = row(positions, at::kLong).view({3, 3});
  for (const bool one_axis : {false, true}) {
    const Rotary rotary = token_rotary(one_axis ? places.narrow(0, 0, 1) : places, row(frequencies, at::kFloat),
                                       one_axis ? at::Tensor() : row(axes, at::kLong));
    const std::vector<float> cos = floats(rotary.cos);
    const std::vector<float> sin = floats(rotary.sin);
    ASSERT_EQ(cos.size(), 18U);
    for (size_t token = 0; token < 3; ++token)
      for (size_t d = 0; d < 6; ++d) {
        const size_t axis = one_axis ? 0 : static_cast<size_t>(axes[d % 3]);
        const float angle = static_cast<float>(positions[axis * 3 + token]) * frequencies[d % 3];
        EXPECT_NEAR(cos[token * 6 + d], std::cos(static_cast<double>(angle)), 2e-7) << token << ", " << d;
        EXPECT_NEAR(sin[token * 6 + d], std::sin(static_cast<double>(angle)), 2e-7) << token << ", " << d;
      }
  }
}

TEST(RotateQueryKey, EqualsRotateWhereTheyLieAndLeavesTheValues) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const int64_t head_dim : {4, 20, 64, 72, 80})
      for (const RotaryPrecision precision : {RotaryPrecision::working, RotaryPrecision::float32})
        for (const bool strided : {false, true}) {
          SCOPED_TRACE(testing::Message() << "head_dim " << head_dim << ", strided " << strided);
          Random random(static_cast<uint64_t>(head_dim));
          const Rotary rotary = random_rotary(random, head_dim);
          const at::Tensor wide = random.normal({tokens, 4, heads, head_dim}, 2).to(dtype);
          const at::Tensor qkv = strided ? wide.narrow(1, 0, 3) : wide.narrow(1, 0, 3).contiguous();
          const at::Tensor before = qkv.clone();
          rotate_query_key(qkv, rotary, precision);
          for (const int64_t part : {0, 1})
            expect_equal_values(qkv.select(1, part), floats(rotate(before.select(1, part), rotary, precision)), "q, k");
          expect_equal_values(qkv.select(1, 2), floats(before.select(1, 2)), "v");
        }
}

}  // namespace
}  // namespace oriel::ops
