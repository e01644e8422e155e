#pragma once
// What tests of single kernels share: random inputs, and how far results are from the truth.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "kernels/gpu.hpp"

namespace oriel::ops {

/// Skips without a GPU.
class RandomOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << no_gpu;
    at::globalContext().setAllowTF32CuBLAS(false);
  }

  /// Normal values, rounded to `dtype`: the same on both sides.
  static at::Tensor draw(std::vector<int64_t> shape, at::ScalarType dtype) {
    return at::randn(shape, at::kFloat).to(dtype);
  }
  static at::Tensor wide(const at::Tensor& x) { return x.to(at::kCPU).to(at::kDouble); }

  /// Norm over norm.
  static double distance(const at::Tensor& ours, const at::Tensor& truth) {
    EXPECT_EQ(ours.sizes(), truth.sizes());
    return (wide(ours) - truth).norm().item<double>() / std::max(truth.norm().item<double>(), 1e-30);
  }
  const c10::InferenceMode guard_;
};

}  // namespace oriel::ops
