// Kernels that begin while the one before them ends (kernels/launch.cuh): the bits of kernels that are waited for.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "kernels/gpu.hpp"
#include "nn/cuda/graph_capture.hpp"
#include "ops/cuda/launch.hpp"
#include "ops/linear.hpp"
#include "ops/rotary.hpp"

namespace oriel::ops {
namespace {

constexpr int64_t heads = 4;
constexpr int64_t head_dim = 64;
constexpr int64_t width = heads * head_dim;
constexpr int64_t middle = 4 * width;
constexpr int64_t rows = 320;

/// All kernels that overlap, in an order in which most of them follow each other in a tower. Results are given up as
/// soon as they were read, so that later ones lie where they lay: what is written too early is seen.
class Chain {
 public:
  explicit Chain(at::ScalarType dtype) : dtype_(dtype) {
    const at::Tensor at = at::arange(rows, at::dtype(at::kLong).device(at::kCUDA));
    const at::Tensor frequencies = inverse_frequencies(10000.0, head_dim / 2);
    rotary_ = axial_rotary(at, at, frequencies, frequencies);
    const c10::Device device(at::kCUDA, 0);
    whole_ = make_segments({0, 100, rows}, {heads, head_dim, 0}, device);
    windows_ = make_segments({0, 64, 128, 130, 194, 258, rows}, {heads, head_dim, 64}, device);
  }

  [[nodiscard]] at::Tensor input() const { return at::randn({rows, width}, at::dtype(dtype_).device(at::kCUDA)); }

  /// `waiting`: for every kernel.
  [[nodiscard]] at::Tensor run(const at::Tensor& input, bool waiting) const {
    const auto after = [&](at::Tensor x) {
      if (waiting) cuda::check(cudaDeviceSynchronize(), "kernel");
      return x;
    };
    at::Tensor x = input;
    for (const Segments* const segments : {&whole_, &windows_}) {
      at::Tensor qkv =
          after(cuda::linear(after(cuda::rms_norm(x, ones_, 1e-6, false)), qkv_, bias_, {}, Activation::identity))
              .view({rows, 3, heads, head_dim});
      EXPECT_TRUE(cuda::rotate_query_key(qkv, rotary_, 0.18));
      at::Tensor attended = after(cuda::attention(after(std::move(qkv)), *segments, 0.125, true));
      x = after(cuda::linear(attended, output_, {}, x, Activation::identity));
      attended.reset();
      at::Tensor y =
          after(cuda::linear(after(cuda::layer_norm(x, ones_, zeros_, 1e-6)), gate_up_, {}, {}, Activation::identity));
      x = after(cuda::linear(after(cuda::gate(y, Activation::silu)), down_, {}, x, Activation::identity));
      y = after(cuda::gated_linear(after(cuda::rms_norm(x, ones_, 1e-6, true)), gate_up_, {}, Activation::silu));
      x = after(cuda::linear(y, down_, {}, x, Activation::identity));
      y = after(cuda::linear(after(cuda::layer_norm(x, ones_, zeros_, 1e-6)), up_, {}, {}, Activation::quick_gelu));
      y = after(cuda::activate_in_place(y, Activation::gelu_erf));
      x = after(cuda::linear(y, down_, {}, x, Activation::identity));
    }
    return x;
  }

 private:
  [[nodiscard]] at::Tensor weight(int64_t out, int64_t in) const {
    return at::randn({out, in}, at::dtype(dtype_).device(at::kCUDA)) / std::sqrt(static_cast<double>(in));
  }

  at::ScalarType dtype_;
  at::Tensor qkv_ = weight(3 * width, width), bias_ = weight(1, 3 * width).view(-1), output_ = weight(width, width);
  at::Tensor gate_up_ = weight(2 * middle, width), up_ = weight(middle, width), down_ = weight(width, middle);
  at::Tensor ones_ = at::randn({width}, at::dtype(dtype_).device(at::kCUDA)), zeros_ = at::zeros_like(ones_);
  Rotary rotary_;
  Segments whole_, windows_;
};

class OverlapOnGpu : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << no_gpu;
    if (cuda::chip_of({at::kCUDA, 0}).major != 9) GTEST_SKIP() << "the scale in q is for Hopper's attention";
  }
  const c10::InferenceMode guard_;
};

TEST_P(OverlapOnGpu, KernelsThatOverlapGiveTheBitsOfKernelsThatAreWaitedFor) {
  const DeterministicProducts deterministic(GetParam());
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const Chain chain(dtype);
    (void)chain.run(chain.input(), true);  // chooses algorithms
    std::vector<at::Tensor> inputs, overlapped;
    for (int i = 0; i < 100; ++i) inputs.push_back(chain.input());
    for (const at::Tensor& input : inputs) overlapped.push_back(chain.run(input, false));
    for (size_t i = 0; i < inputs.size(); ++i) ASSERT_TRUE(chain.run(inputs[i], true).equal(overlapped[i])) << i;
    ASSERT_FALSE(overlapped[0].equal(overlapped[1]));
    ASSERT_TRUE(overlapped[0].isfinite().all().item<bool>());
  }
}

TEST_P(OverlapOnGpu, AReplayedGraphGivesTheBitsOfKernelsThatAreWaitedFor) {
  const DeterministicProducts deterministic(GetParam());
  const Chain chain(at::kBFloat16);
  const at::Tensor input = chain.input();
  (void)chain.run(input, true);
  nn::GraphCaptures captures(input.device());
  const auto graph = captures.capture([&] { return chain.run(input, false); });
  ASSERT_NE(graph, nullptr);
  for (int i = 0; i < 200; ++i) {
    input.copy_(chain.input());
    graph->replay();
    const at::Tensor rows_of_replay = graph->result().clone();
    ASSERT_TRUE(chain.run(input, true).equal(rows_of_replay)) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Products, OverlapOnGpu, ::testing::Bool(),
                         [](const auto& choice) { return std::string(choice.param ? "Deterministic" : "Timed"); });

}  // namespace
}  // namespace oriel::ops
