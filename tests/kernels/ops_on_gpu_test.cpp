// The ops on a GPU against their references in float64 on the CPU: every kernel, all dtypes, odd sizes.
#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_norm.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/gpu.hpp"
#include "kernels/random_on_gpu.hpp"
#include "ops/activation.hpp"
#include "ops/attention.hpp"
#include "ops/device.hpp"
#include "ops/linear.hpp"
#include "ops/norm.hpp"
#include "ops/patch_merge.hpp"
#include "ops/rotary.hpp"
#include "ops/rows.hpp"

namespace oriel::ops {
namespace {

const std::vector<at::ScalarType> dtypes{at::kFloat, at::kBFloat16, at::kHalf};
const std::vector<at::ScalarType> short_dtypes{at::kBFloat16, at::kHalf};

/// Half a unit in the last place of a dtype, relative: what one rounding of the result may cost, with some room for
/// sums.
double tolerance(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return 4e-3;
  return dtype == at::kHalf ? 5e-4 : 2e-6;
}

class OpsOnGpu : public RandomOnGpu {};

TEST_F(OpsOnGpu, RowsAreMovedWhateverErrorAnotherLibraryLeftBehind) {
  const at::Tensor x = draw({64, 8}, at::kBFloat16).cuda();
  const at::Tensor order = at::arange(63, -1, -1, at::dtype(at::kLong).device(at::kCUDA));
  fail_elsewhere();
  const at::Tensor gathered = gather_rows(x, order);
  const at::Tensor pooled = average_pool(x, 8, 2);
  const at::Tensor merged = merge_raster_patches(x, 8, 8, 2);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_TRUE(gathered.equal(x.flip(0)));
  EXPECT_EQ(pooled.size(0), 16);
  EXPECT_TRUE(merged.equal(x.view({4, 2, 4, 2, 8}).permute({0, 2, 4, 1, 3}).reshape({16, 32})));
}

TEST_F(OpsOnGpu, NormsEqualTheDefinitionAtEveryWidth) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t width : {1, 7, 8, 72, 250, 256, 1000, 1024, 1152, 1280, 1536, 2048, 2056, 5120})
      for (const int64_t rows : {1, 3, 17}) {  // more of them: row_counts_test.cpp
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(width));
        const at::Tensor x = draw({rows, width}, dtype) * 3 + 1;
        const at::Tensor weight = draw({width}, dtype);
        const at::Tensor bias = draw({width}, dtype);
        const at::Tensor d = x.to(at::kDouble);
        const at::Tensor mean = d.mean(-1, true);
        const at::Tensor variance = (d - mean).square().mean(-1, true);
        const at::Tensor layer = (d - mean) / (variance + 1e-6).sqrt() * wide(weight) + wide(bias);
        EXPECT_LT(distance(layer_norm(x.cuda(), weight.cuda(), bias.cuda(), 1e-6), layer), tolerance(dtype));
        const at::Tensor unit = d / (d.square().mean(-1, true) + 1e-6).sqrt();
        EXPECT_LT(distance(rms_norm(x.cuda(), weight.cuda(), 1e-6), unit * wide(weight)), tolerance(dtype));
        EXPECT_LT(distance(rms_norm_offset(x.cuda(), weight.cuda(), 1e-6), unit * (1 + wide(weight))),
                  tolerance(dtype));
      }
}

TEST_F(OpsOnGpu, NanStaysInItsRow) {
  at::Tensor x = draw({9, 1280}, at::kBFloat16);
  x[4][77] = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor y = rms_norm(x.cuda(), at::ones({1280}, at::kBFloat16).cuda(), 1e-6).cpu();
  for (int64_t row = 0; row < 9; ++row) EXPECT_EQ(y[row].isnan().any().item<bool>(), row == 4);
}

TEST_F(OpsOnGpu, ActivationsFollowTheirFormulas) {
  for (const at::ScalarType dtype : dtypes)
    for (const Activation activation :
         {Activation::relu, Activation::silu, Activation::gelu_erf, Activation::gelu_tanh, Activation::quick_gelu})
      for (const int64_t width : {1, 13, 8192}) {
        SCOPED_TRACE(static_cast<int>(activation));
        // An identity product, so that the activation is all that acts, inside the product or behind it.
        const at::Tensor x = draw({5, width}, dtype) * 4;
        if (width > 1000) {
          const at::Tensor truth = activate(x.to(at::kDouble), activation);
          const Linear identity(at::ones({1, 1}, dtype).cuda(), {});
          const at::Tensor ours = identity(x.reshape({-1, 1}).cuda(), activation).reshape({5, width});
          EXPECT_LT(distance(ours, truth), tolerance(dtype) + (activation == Activation::gelu_tanh ? 1e-4 : 0));
        }
        const at::Tensor gate = draw({7, 32}, dtype);
        const at::Tensor up = draw({7, 32}, dtype);
        const at::Tensor in = draw({width, 32}, dtype);
        const GatedLinear gated(Linear(gate.cuda(), {}), Linear(up.cuda(), {}));
        const at::Tensor both = gated(in.cuda(), activation);
        ASSERT_EQ(both.size(1), 8);  // 7, rounded up
        const at::Tensor g = at::matmul(wide(in), wide(gate).t()).to(dtype).to(at::kDouble);
        const at::Tensor u = at::matmul(wide(in), wide(up).t()).to(dtype).to(at::kDouble);
        // Sums that fall between two values of the dtype may round either way.
        EXPECT_LT(distance(both.narrow(1, 0, 7), activate(g, activation) * u), 4 * tolerance(dtype));
        EXPECT_EQ(both.narrow(1, 7, 1).abs().max().item<float>(), 0.0F);
      }
}

TEST_F(OpsOnGpu, LinearTakesAnyShapeBiasAndResidual) {
  for (const at::ScalarType dtype : dtypes)
    for (const auto& [rows, in, out] : std::vector<std::tuple<int64_t, int64_t, int64_t>>{
             {1, 8, 8}, {1, 588, 1152}, {3, 33, 17}, {197, 72, 216}, {1000, 1024, 3072}, {31, 3420, 1280}}) {
      SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out));
      const at::Tensor x = draw({rows, in}, dtype);
      const at::Tensor weight = draw({out, in}, dtype);
      const at::Tensor bias = draw({out}, dtype);
      const at::Tensor residual = draw({rows, out}, dtype);
      const Linear linear(weight.cuda(), bias.cuda());
      const at::Tensor product = at::matmul(wide(x), wide(weight).t()) + wide(bias);
      EXPECT_LT(distance(linear(x.cuda()), product), tolerance(dtype));
      EXPECT_LT(distance(linear(x.cuda()), product), tolerance(dtype)) << "with the algorithm that was chosen";
      EXPECT_LT(distance(linear(x.cuda(), Activation::gelu_tanh), activate(product, Activation::gelu_tanh)),
                2 * tolerance(dtype));
      EXPECT_LT(distance(linear.add_to(residual.cuda(), x.cuda()), product + wide(residual)), tolerance(dtype));
      EXPECT_LT(distance(Linear(weight.cuda(), {})(x.cuda()), product - wide(bias)), tolerance(dtype));
    }
}

struct ProductCase {
  int64_t in = 0;
  int64_t out = 0;
  Activation activation = Activation::silu;
  bool gated = false;
  bool bias = true;
};

const std::vector<ProductCase> activated_products{
    {8, 8, Activation::silu, true},        {64, 64, Activation::silu, true, false},
    {72, 136, Activation::silu, true},     {1024, 1024, Activation::silu, true, false},
    {1280, 3420, Activation::silu, true},  {8, 8, Activation::quick_gelu},
    {200, 264, Activation::quick_gelu},    {1280, 1536, Activation::quick_gelu, false, false},
    {640, 1288, Activation::gelu_erf},     {33, 520, Activation::gelu_tanh},
    {136, 72, Activation::gelu_erf, true},
};

/// A layer of the case, and what it means.
struct Product {
  at::Tensor weight, bias, up_weight, up_bias;

  Product(const ProductCase& c, at::ScalarType dtype) {
    const auto draw = [&](std::vector<int64_t> shape) { return at::randn(shape, at::kFloat).to(dtype); };
    weight = draw({c.out, c.in}) / std::sqrt(static_cast<double>(c.in));
    if (c.bias) bias = draw({c.out});
    if (!c.gated) return;
    up_weight = draw({c.out, c.in}) / std::sqrt(static_cast<double>(c.in));
    if (c.bias) up_bias = draw({c.out});
  }
  static at::Tensor on_gpu(const at::Tensor& x) { return x.defined() ? x.cuda() : x; }
  [[nodiscard]] at::Tensor ours(const at::Tensor& x, const ProductCase& c) const {
    const Linear first(weight.cuda(), on_gpu(bias));
    if (!c.gated) return first(x, c.activation);
    return GatedLinear(first, Linear(up_weight.cuda(), on_gpu(up_bias)))(x, c.activation).narrow(1, 0, c.out);
  }
  [[nodiscard]] at::Tensor truth(const at::Tensor& x, const ProductCase& c) const {
    const auto product = [&](const at::Tensor& w, const at::Tensor& b) {
      const at::Tensor sums = at::matmul(x.to(at::kDouble), w.to(at::kDouble).t());
      return b.defined() ? sums + b.to(at::kDouble) : sums;
    };
    const at::Tensor result = activate(product(weight, bias), c.activation);
    return c.gated ? result * product(up_weight, up_bias) : result;
  }
};

TEST_F(OpsOnGpu, ActivationsInsideProductsFollowTheirFormulas) {
  for (const at::ScalarType dtype : short_dtypes)
    for (const ProductCase& c : activated_products)
      for (const int64_t rows : {1, 64, 127, 129, 300, 1025}) {
        const DeterministicProducts inside(rows % 2 == 1);  // on Hopper the other way depends on the rows
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(c.in) + " to " + std::to_string(c.out));
        const Product product(c, dtype);
        const at::Tensor x = draw({rows, c.in}, dtype);
        // What the result will find in its memory: a value that was not written shows.
        (void)at::full({rows, c.out + 8}, NAN, at::dtype(dtype).device(at::kCUDA));
        // Two kernels round in between, too.
        EXPECT_LT(distance(product.ours(x.cuda(), c), product.truth(x, c)), 2 * tolerance(dtype));
      }
}

TEST_F(OpsOnGpu, RowsOfActivatedProductsDependOnThemselvesAlone) {
  const DeterministicProducts deterministic(true);
  for (const at::ScalarType dtype : short_dtypes)
    for (const ProductCase& c : activated_products) {
      SCOPED_TRACE(std::to_string(c.in) + " to " + std::to_string(c.out));
      const Product product(c, dtype);
      const at::Tensor x = draw({20000, c.in}, dtype).cuda();  // enough for the widest tiles
      x[4097].fill_(std::numeric_limits<float>::quiet_NaN());
      const at::Tensor packed = product.ours(x, c);
      for (const auto& [begin, rows] :
           std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {77, 300}, {4090, 7}, {4098, 130}})
        EXPECT_TRUE(packed.narrow(0, begin, rows).equal(product.ours(x.narrow(0, begin, rows), c)));
      EXPECT_TRUE(packed[4097].isnan().all().item<bool>());
    }
}

TEST_F(OpsOnGpu, HopperGatesInsideTheProductWhereThatIsFaster) {
  const at::Device device(at::kCUDA, 0);
  if (compute_capability(device) != 90) GTEST_SKIP() << "this chip has no kernel for it";
  const auto held = [&](int64_t rows, at::ScalarType dtype, Activation activation) {
    return GatedLinear::results_held({rows, 4096, activation}, dtype, device);
  };
  EXPECT_EQ(held(32768, at::kBFloat16, Activation::silu), 1);
  EXPECT_EQ(held(32768, at::kHalf, Activation::silu), 1);
  EXPECT_EQ(held(32768, at::kFloat, Activation::silu), 3);
  EXPECT_EQ(held(32768, at::kHalf, Activation::relu), 3);
  EXPECT_EQ(held(64, at::kBFloat16, Activation::silu), 3) << "timed: it may be either";
  EXPECT_EQ(held(300, at::kBFloat16, Activation::silu), 3) << "96 tiles for 66 pairs of multiprocessors: so, too";
  const DeterministicProducts deterministic(true);
  EXPECT_EQ(held(300, at::kBFloat16, Activation::silu), 1);
}

TEST_F(OpsOnGpu, RotationTurnsQueryAndKeyWhereTheyLieAndScalesTheQuery) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t head_dim : {8, 64, 72, 80, 128})
      for (const int64_t tokens : {1, 61}) {
        SCOPED_TRACE(head_dim);
        const at::Tensor rows = at::randint(40, {tokens}, at::kLong);
        const at::Tensor columns = at::randint(40, {tokens}, at::kLong);
        const at::Tensor frequencies = inverse_frequencies(10000.0, head_dim / 2);
        const Rotary on_cpu = axial_rotary(rows, columns, frequencies, frequencies);
        const Rotary on_gpu = axial_rotary(rows.cuda(), columns.cuda(), frequencies, frequencies);
        const at::Tensor qkv = draw({tokens, 3, 5, head_dim}, dtype);
        const at::Tensor turned = qkv.cuda();
        EXPECT_EQ(rotate_query_key(turned, on_gpu, RotaryPrecision::float32, 0.3), 0.3);
        const Rotary precise{on_cpu.cos.to(at::kDouble), on_cpu.sin.to(at::kDouble)};
        const auto truth = [&](int64_t part) {
          const at::Tensor x = wide(qkv.select(1, part));
          const int64_t half = head_dim / 2;
          const at::Tensor other = at::cat({x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)}, -1);
          return x * precise.cos.unsqueeze(1) + other * precise.sin.unsqueeze(1);
        };
        EXPECT_LT(distance(turned.select(1, 0), 0.3 * truth(0)), tolerance(dtype));
        EXPECT_LT(distance(turned.select(1, 1), truth(1)), tolerance(dtype));
        EXPECT_TRUE(turned.select(1, 2).cpu().equal(qkv.select(1, 2)));
      }
}

TEST_F(OpsOnGpu, PoolingAndMergingEqualTheCpu) {
  for (const at::ScalarType dtype : dtypes) {
    for (const auto& [side, k] : std::vector<std::pair<int64_t, int64_t>>{{64, 4}, {7, 2}, {5, 5}, {3, 1}}) {
      const at::Tensor x = draw({2 * side * side, 24}, dtype);
      EXPECT_LT(distance(average_pool(x.cuda(), side, k), average_pool(x.to(at::kDouble), side, k)), tolerance(dtype));
    }
    for (const auto& [h, w, m] :
         std::vector<std::tuple<int64_t, int64_t, int64_t>>{{4, 6, 2}, {2, 2, 2}, {9, 3, 3}, {5, 7, 1}}) {
      const at::Tensor x = draw({h * w, 40}, dtype);
      EXPECT_TRUE(merge_raster_patches(x.cuda(), h, w, m).cpu().equal(merge_raster_patches(x, h, w, m)));
    }
  }
}

struct AttentionCase {
  std::vector<int64_t> bounds;
  int64_t longest_possible = 0;
  bool by_flash = false;
};

const std::vector<AttentionCase> attention_cases{
    {{0, 1}},         {{0, 64}},          {{0, 1, 3, 20, 84}}, {{0, 1009}},
    {{0, 700, 1401}}, {{0, 64, 128}, 64}, {{0, 1, 4, 68}, 64}, {{0, 36, 100, 101, 130}, 64},
};

/// Without a table: a rotation is tested apart.
at::Tensor attend(const at::Tensor& qkv, const AttentionCase& c, bool rotated) {
  const auto tokens = qkv.size(0);
  const auto head_dim = qkv.size(3);
  Rotary rotary;
  if (rotated) {
    const at::Tensor at_zero = at::zeros({tokens}, at::dtype(at::kLong).device(qkv.device()));
    const at::Tensor frequencies = inverse_frequencies(10000.0, head_dim / 2);
    rotary = axial_rotary(at_zero, at_zero, frequencies, frequencies);  // turns nothing, but folds the scale in
  }
  const Segments segments =
      make_segments(c.bounds, {qkv.size(2), head_dim, c.longest_possible, c.by_flash}, qkv.device());
  return rotary_attention(qkv.clone(), rotary, RotaryPrecision::float32, segments);
}

TEST_F(OpsOnGpu, AttentionEqualsTheDefinitionForEveryHeadAndSegment) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t head_dim : {8, 20, 64, 72, 80, 128})
      for (const AttentionCase& c : attention_cases)
        for (const bool rotated : {false, true}) {
          if (rotated && head_dim % 8 != 0) continue;
          SCOPED_TRACE(std::to_string(head_dim) + " to " + std::to_string(c.bounds.back()));
          const at::Tensor qkv = draw({c.bounds.back(), 3, 3, head_dim}, dtype);
          const at::Tensor d = qkv.to(at::kDouble);
          const at::Tensor truth = attention_reference(d.select(1, 0), d.select(1, 1), d.select(1, 2), c.bounds,
                                                       1 / std::sqrt(static_cast<double>(head_dim)));
          // Probabilities are rounded before the second product, as in every flash attention.
          EXPECT_LT(distance(attend(qkv.cuda(), c, rotated), truth),
                    dtype == at::kFloat ? 2e-5 : 1.5 * tolerance(dtype));
        }
}

// What other chips take: the same answer by other sums.
TEST_F(OpsOnGpu, FlashAttentionEqualsTheDefinitionAndOurs) {
  for (const at::ScalarType dtype : short_dtypes)
    for (const int64_t head_dim : {64, 72, 80, 128})
      for (const AttentionCase& c : attention_cases)
        for (const bool rotated : {false, true}) {
          SCOPED_TRACE(std::to_string(head_dim) + " to " + std::to_string(c.bounds.back()));
          const at::Tensor qkv = draw({c.bounds.back(), 3, 3, head_dim}, dtype);
          const at::Tensor d = qkv.to(at::kDouble);
          const at::Tensor truth = attention_reference(d.select(1, 0), d.select(1, 1), d.select(1, 2), c.bounds,
                                                       1 / std::sqrt(static_cast<double>(head_dim)));
          const at::Tensor ours = attend(qkv.cuda(), c, rotated);
          const at::Tensor flash = attend(qkv.cuda(), {c.bounds, c.longest_possible, /*by_flash=*/true}, rotated);
          EXPECT_LT(distance(flash, truth), 1.5 * tolerance(dtype));
          EXPECT_LT(distance(ours, wide(flash)), 2 * tolerance(dtype));
          if (c.bounds.back() > 1000 && compute_capability(at::Device(at::kCUDA, 0)) == 90) {
            EXPECT_FALSE(ours.equal(flash)) << "it was to be another kernel";
          }
        }
}

TEST_F(OpsOnGpu, SegmentsAreIsolatedAndPackedEqualsSingle) {
  for (const at::ScalarType dtype : short_dtypes)
    for (const int64_t head_dim : {64, 72, 80}) {
      const at::Tensor qkv = draw({900, 3, 2, head_dim}, dtype).cuda();
      qkv.narrow(0, 333, 200).fill_(std::numeric_limits<float>::quiet_NaN());
      const at::Tensor packed = attend(qkv, {{0, 333, 533, 900}}, false);
      EXPECT_TRUE(packed.narrow(0, 0, 333).equal(attend(qkv.narrow(0, 0, 333), {{0, 333}}, false)));
      EXPECT_TRUE(packed.narrow(0, 533, 367).equal(attend(qkv.narrow(0, 533, 367), {{0, 367}}, false)));
    }
}

TEST_F(OpsOnGpu, PaddedSegmentsGiveTheSameRows) {
  const at::Tensor qkv = draw({320, 3, 2, 80}, at::kBFloat16).cuda();
  for (const AttentionCase& c : {AttentionCase{{0, 100, 250}}, AttentionCase{{0, 64, 100, 150, 214, 250}, 64}}) {
    const AttentionShape shape{2, 80, c.longest_possible};
    const Segments segments = make_segments(c.bounds, shape, qkv.device());
    const Segments padded = pad_segments(segments, 320, 32, shape, qkv.device());
    const auto run = [&](const at::Tensor& x, const Segments& s) {
      return rotary_attention(x.clone(), {}, RotaryPrecision::float32, s);
    };
    const at::Tensor alone = run(qkv.narrow(0, 0, 250), segments);
    EXPECT_TRUE(run(qkv, padded).narrow(0, 0, 250).equal(alone));
    Segments other = pad_segments(make_segments({0, 30, 60}, shape, qkv.device()), 320, 32, shape, qkv.device());
    refill(other, padded);
    EXPECT_TRUE(run(qkv, other).narrow(0, 0, 250).equal(alone));
  }
}

}  // namespace
}  // namespace oriel::ops
