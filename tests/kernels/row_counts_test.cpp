// The ops on a GPU with one row, with some, and with a large prime number of them, against their definitions in float64
// on the GPU. Widths and formulas are varied in ops_on_gpu_test.cpp.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randperm.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/cached_on_gpu.hpp"
#include "ops/activation.hpp"
#include "ops/cuda/launch.hpp"
#include "ops/linear.hpp"
#include "ops/norm.hpp"
#include "ops/patch_merge.hpp"
#include "ops/rotary.hpp"
#include "ops/rows.hpp"

namespace oriel::ops {
namespace {

constexpr int64_t many = 32771;  // a prime: the last block, tile or warp of whatever kernel is not full

class RowCountsOnGpu : public RandomOnGpu {
 protected:
  static at::Tensor draw(std::vector<int64_t> shape, at::ScalarType dtype, double spread = 1) {
    return (at::randn(shape, at::dtype(at::kFloat).device(at::kCUDA)) * spread).to(dtype);
  }
  static at::Tensor wide(const at::Tensor& x) { return x.to(at::kDouble); }
  /// Norm over norm of all rows, and of the worst one: a row that is left out or doubled among 32,771 shows.
  static void expect_near(const at::Tensor& ours, const at::Tensor& truth, double tolerance) {
    ASSERT_EQ(ours.sizes(), truth.sizes());
    const at::Tensor difference = (wide(ours) - truth).flatten(1);
    EXPECT_LT((difference.norm() / truth.norm()).item<double>(), tolerance);
    const at::Tensor by_row = difference.square().sum(1).sqrt() / truth.flatten(1).square().sum(1).sqrt();
    // Rows average the rounding of their values over less than all rows do; 6 is far from what one wrong row is off by.
    EXPECT_LT(by_row.max().item<double>(), 6 * tolerance);
  }
  /// What results will find in their memory: a value that was not written shows.
  static void leave_nan(at::IntArrayRef shape, at::ScalarType dtype) {
    (void)at::full(shape, std::numeric_limits<double>::quiet_NaN(), at::dtype(dtype).device(at::kCUDA));
  }
};

// RMS norms of rows of more than 4096 bytes are a block's work each, those of shorter rows a warp's.
TEST_F(RowCountsOnGpu, Norms) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t width : {72, 1152, 1280, 2048, 5120})
      for (const int64_t rows : {int64_t{1}, int64_t{257}, many}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(width));
        const at::Tensor x = draw({rows, width}, dtype, 3) + 1;
        const at::Tensor weight = draw({width}, dtype);
        const at::Tensor bias = draw({width}, dtype);
        const at::Tensor d = wide(x);
        leave_nan({rows, width}, dtype);
        {
          const at::Tensor centred = d - d.mean(-1, true);
          const at::Tensor unit = centred / (centred.square().mean(-1, true) + 1e-6).sqrt();
          expect_near(layer_norm(x, weight, bias, 1e-6), unit * wide(weight) + wide(bias), tolerance(dtype));
        }
        const at::Tensor unit = d / (d.square().mean(-1, true) + 1e-6).sqrt();
        expect_near(rms_norm(x, weight, 1e-6), unit * wide(weight), tolerance(dtype));
        expect_near(rms_norm_offset(x, weight, 1e-6), unit * (1 + wide(weight)), tolerance(dtype));
        // The residual is added to the rounded norm.
        const at::Tensor residual = draw({rows, width}, dtype);
        const at::Tensor rounded = wide((unit * wide(weight)).to(dtype));
        expect_near(cuda::rms_norm(x, weight, 1e-6, false, residual), rounded + wide(residual), 2 * tolerance(dtype));
      }
}

TEST_F(RowCountsOnGpu, RotationOfQueryAndKey) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t head_dim : {64, 72, 80, 128})
      for (const int64_t tokens : {int64_t{1}, int64_t{61}, many}) {
        SCOPED_TRACE(std::to_string(tokens) + " tokens, head dim " + std::to_string(head_dim));
        const at::Tensor rows = at::randint(200, {tokens}, at::dtype(at::kLong).device(at::kCUDA));
        const at::Tensor columns = at::randint(200, {tokens}, rows.options());
        const at::Tensor frequencies = inverse_frequencies(10000.0, head_dim / 2);
        const Rotary rotary = axial_rotary(rows, columns, frequencies, frequencies);
        const at::Tensor qkv = draw({tokens, 3, 3, head_dim}, dtype);
        const at::Tensor turned = qkv.clone();
        EXPECT_EQ(rotate_query_key(turned, rotary, RotaryPrecision::float32, 0.3), 0.3);
        const auto truth = [&](int64_t part) {
          const at::Tensor x = wide(qkv.select(1, part));
          const int64_t half = head_dim / 2;
          const at::Tensor other = at::cat({x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)}, -1);
          return x * wide(rotary.cos).unsqueeze(1) + other * wide(rotary.sin).unsqueeze(1);
        };
        expect_near(turned.select(1, 0), 0.3 * truth(0), tolerance(dtype));
        expect_near(turned.select(1, 1), truth(1), tolerance(dtype));
        EXPECT_TRUE(turned.select(1, 2).equal(qkv.select(1, 2)));
      }
}

TEST_F(RowCountsOnGpu, Products) {
  for (const bool wanted : {false, true}) {
    const DeterministicProducts deterministic(wanted);
    for (const at::ScalarType dtype : dtypes)
      for (const auto& [in, out] : std::vector<std::pair<int64_t, int64_t>>{{588, 1152}, {1280, 3420}, {1024, 1024}})
        for (const int64_t rows : {int64_t{1}, int64_t{61}, many}) {
          SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(in) + " x " + std::to_string(out) +
                       (wanted ? ", deterministic" : ""));
          const double spread = 1 / std::sqrt(static_cast<double>(in));
          const at::Tensor x = draw({rows, in}, dtype);
          const at::Tensor weight = draw({out, in}, dtype, spread);
          const at::Tensor bias = draw({out}, dtype);
          const at::Tensor residual = draw({rows, out}, dtype);
          const at::Tensor product = at::matmul(wide(x), wide(weight).t()) + wide(bias);
          const Linear linear(weight, bias);
          leave_nan({rows, out}, dtype);
          for (int call = 0; call < 2; ++call)  // choosing an algorithm, and by the one that was chosen
            expect_near(linear(x), product, tolerance(dtype));
          expect_near(linear.add_to(residual, x), product + wide(residual), tolerance(dtype));
          expect_near(linear(x, Activation::gelu_tanh), activate(product, Activation::gelu_tanh), 2 * tolerance(dtype));
          const at::Tensor up = draw({out, in}, dtype, spread);
          const GatedLinear gated(linear, Linear(up, bias));
          const at::Tensor truth =
              activate(product, Activation::silu) * (at::matmul(wide(x), wide(up).t()) + wide(bias));
          expect_near(gated(x, Activation::silu).narrow(1, 0, out), truth, 2 * tolerance(dtype));
        }
  }
}

TEST_F(RowCountsOnGpu, RowsThatAreMovedOrJoined) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t width : {1, 3, 40, 1176, 1280})
      for (const int64_t rows : {int64_t{1}, int64_t{61}, many}) {
        SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(width));
        const at::Tensor x = draw({rows, width}, dtype);
        const at::Tensor order = at::randperm(rows, at::dtype(at::kLong).device(at::kCUDA));
        const at::Tensor gathered = gather_rows(x, order);
        EXPECT_TRUE(gathered.equal(x.index_select(0, order)));
        EXPECT_TRUE(scatter_rows(gathered, order).equal(x));
        const at::Tensor some = at::randint(rows, {97}, order.options());
        EXPECT_TRUE(gather_rows(x, some).equal(x.index_select(0, some)));
        EXPECT_TRUE(merge_raster_patches(x, 1, rows, 1).equal(x));
      }
  for (const at::ScalarType dtype : dtypes) {
    const at::Tensor pictures = draw({2 * 180 * 180, 72}, dtype);
    const at::Tensor blocks = wide(pictures).view({2, 45, 4, 45, 4, 72}).mean(4, false).mean(2, false);
    expect_near(average_pool(pictures, 180, 4), blocks.reshape({-1, 72}), tolerance(dtype));
    const at::Tensor picture = draw({182 * 186, 40}, dtype);
    const at::Tensor squares = picture.view({91, 2, 93, 2, 40}).permute({0, 2, 4, 1, 3});
    EXPECT_TRUE(merge_raster_patches(picture, 182, 186, 2).equal(squares.reshape({-1, 160})));
  }
}

}  // namespace
}  // namespace oriel::ops
