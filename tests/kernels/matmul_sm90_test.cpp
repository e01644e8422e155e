// The product with an activation in its epilogue, launched as it is, with either shape of tiles: ops choose between
// them, and between it and cuBLASLt, by sizes and by timing.
#include "matmul_sm90.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/sigmoid.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/random_on_gpu.hpp"
#include "ops/cuda/launch.hpp"

namespace oriel::ops {
namespace {

using kernels::MatmulSm90Params;

class MatmulSm90OnGpu : public RandomOnGpu {
 protected:
  void SetUp() override {
    RandomOnGpu::SetUp();
    if (IsSkipped()) return;
    chip_ = cuda::chip_of(at::Device(at::kCUDA, 0));
    if (chip_.major != 9 || chip_.minor != 0) GTEST_SKIP() << "this chip has no kernel for it";
    ASSERT_TRUE(chip_.has_sm90_code) << "the build has no code for this chip";
  }

  /// One product with its weight [parts, out, in], a gated one of two parts.
  struct Product {
    bool gated;
    at::Tensor x, weight, bias;

    Product(bool is_gated, int64_t rows, int64_t in, int64_t out, at::ScalarType dtype) : gated(is_gated) {
      const int64_t parts = gated ? 2 : 1;
      x = draw({rows, in}, dtype).cuda();
      weight = (draw({parts, out, in}, at::kFloat) / std::sqrt(static_cast<double>(in))).to(dtype).cuda();
      bias = draw({parts, out}, dtype).cuda();
    }
    [[nodiscard]] MatmulSm90Params params(const at::Tensor& y, bool deterministic) const {
      using E = kernels::ElementwiseFunction;
      return {.x = x.const_data_ptr(),
              .weight = weight.const_data_ptr(),
              .bias = bias.const_data_ptr(),
              .y = y.mutable_data_ptr(),
              .rows = x.size(0),
              .in = x.size(1),
              .out = weight.size(1),
              .x_stride = x.stride(0),
              .function = gated ? E::silu : E::quick_gelu,
              .gated = gated,
              .deterministic = deterministic,
              .element = cuda::element_of(x)};
    }
    /// In double.
    [[nodiscard]] at::Tensor truth() const {
      const auto part = [&](int64_t i) { return at::matmul(wide(x), wide(weight[i]).t()) + wide(bias[i]); };
      const at::Tensor first = part(0);
      return gated ? first * at::sigmoid(first) * part(1) : first * at::sigmoid(1.702 * first);
    }
  };

  [[nodiscard]] at::Tensor run(const Product& product, bool deterministic) const {
    at::Tensor y = at::full({product.x.size(0), product.weight.size(1)}, std::numeric_limits<double>::quiet_NaN(),
                            product.x.options());
    EXPECT_EQ(kernels::matmul_sm90(product.params(y, deterministic), chip_.processors, cuda::stream_of(y)),
              cudaSuccess);
    return y;
  }

  cuda::Chip chip_;
};

TEST_F(MatmulSm90OnGpu, BothShapesOfTilesFollowTheFormula) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf})
    for (const bool gated : {false, true})
      // Within a tile's part, a tile, a pair of tiles; behind each; and rows that fill square tiles.
      for (const int64_t rows : {1, 64, 65, 129, 256, 300, 1344, 1536, 5000}) {
        const Product product(gated, rows, 328, 424, dtype);
        const at::Tensor truth = product.truth();
        const double tolerance = dtype == at::kBFloat16 ? 4e-3 : 5e-4;  // one rounding of the result
        for (const bool deterministic : {false, true}) {
          SCOPED_TRACE(std::to_string(rows) + (gated ? ", gated" : "") + (deterministic ? ", square" : ""));
          EXPECT_LT(distance(run(product, deterministic), truth), tolerance);
        }
      }
}

TEST_F(MatmulSm90OnGpu, RowsFillSquareTilesOrGetFlatOnes) {
  const auto is_square = [](int64_t rows, bool deterministic = false) {
    return kernels::matmul_sm90_is_square({.rows = rows, .deterministic = deterministic});
  };
  for (const int64_t rows : {256, 512, 4096, 15529, 41472}) EXPECT_TRUE(is_square(rows)) << rows;
  for (const int64_t rows : {1, 257, 384, 1344, 5184}) EXPECT_FALSE(is_square(rows)) << rows;
  for (const int64_t rows : {1, 1344}) EXPECT_TRUE(is_square(rows, /*deterministic=*/true)) << rows;
}

}  // namespace
}  // namespace oriel::ops
