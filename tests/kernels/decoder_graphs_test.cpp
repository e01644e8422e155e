// A decoder's steps on a GPU: as graphs they equal the plain kernels bit for bit, and those the formulas of the other
// path.
#include "nn/cuda/decoder_graphs.hpp"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/cuda/Sleep.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>
#include <utility>
#include <vector>

#include "kernels/gpu.hpp"
#include "kernels/memory_shortage.hpp"
#include "nn/decoder.hpp"

namespace oriel::nn {
namespace {

constexpr int64_t vocabulary = 101;

enum class Kind { plain, sandwich, three_axes };

DecoderSpec spec_of(Kind kind) {
  DecoderSpec spec;
  spec.vocabulary = vocabulary;
  spec.width = 96;
  spec.mlp_width = 136;
  spec.heads = 6;
  spec.kv_heads = 2;
  spec.head_dim = 16;
  spec.attention_scale = 0.25;
  spec.layers.resize(3);
  spec.rotaries = {{.frequencies = at::arange(1, 9, at::kFloat).reciprocal(), .axes = {}}};
  if (kind == Kind::three_axes) {
    spec.position_axes = 3;
    spec.rotaries[0].axes = {0, 0, 1, 1, 1, 2, 2, 2};
  }
  if (kind == Kind::sandwich) {
    spec.norm = DecoderNorm::rms_norm_offset;
    spec.sandwich_norms = spec.query_key_norms = true;
    spec.activation = ops::Activation::gelu_tanh;
    spec.embedding_scale = 3;
    spec.rotaries.push_back({.frequencies = at::arange(1, 9, at::kFloat).reciprocal() / 3, .axes = {}});
    spec.layers = {{.window = 7, .rotary = 1}, {}, {.window = 7, .rotary = 1}};
  }
  return spec;
}

Decoder make_decoder(Kind kind, at::ScalarType dtype) {
  const DecoderSpec spec = spec_of(kind);
  const auto draw = [&](std::vector<int64_t> shape, double scale, double mean = 0) {
    return (at::randn(shape, at::dtype(at::kFloat).device(at::kCUDA)) * scale + mean).to(dtype);
  };
  const auto linear = [&](int64_t out, int64_t in) {
    return ops::Linear(draw({out, in}, 1 / std::sqrt(static_cast<double>(in))), draw({out}, 0.1));
  };
  const auto norm = [&](int64_t width) { return draw({width}, 0.2, 1); };
  DecoderWeights weights{draw({vocabulary, spec.width}, 1), {}, norm(spec.width), linear(vocabulary, spec.width)};
  for (int64_t i = 0; i < spec.depth(); ++i) {
    DecoderLayerWeights layer;
    layer.attention_norm = norm(spec.width);
    layer.attention_out_norm = norm(spec.width);
    layer.mlp_norm = norm(spec.width);
    layer.mlp_out_norm = norm(spec.width);
    layer.query_norm = norm(spec.head_dim);
    layer.key_norm = norm(spec.head_dim);
    layer.qkv = linear((spec.heads + 2 * spec.kv_heads) * spec.head_dim, spec.width);
    layer.proj = linear(spec.width, spec.heads * spec.head_dim);
    layer.gate = linear(spec.mlp_width, spec.width);
    layer.up = linear(spec.mlp_width, spec.width);
    layer.down = linear(spec.width, spec.mlp_width);
    weights.layers.push_back(std::move(layer));
  }
  return Decoder(spec, std::move(weights));
}

class DecoderStepsOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << no_gpu;
    at::globalContext().setAllowTF32CuBLAS(false);
  }
  static KvCache make_cache(const Decoder& decoder, int64_t slots = 12, int64_t capacity = 64) {
    return {decoder.cache_shape(slots, capacity), decoder.embeddings().scalar_type(), at::kCUDA};
  }
  /// Keeps the GPU from what is enqueued behind it for some 200 ms.
  static void stall() { at::cuda::sleep(400'000'000); }
  static double distance(const at::Tensor& ours, const at::Tensor& truth) {
    return ((ours - truth).norm() / truth.norm()).item<double>();
  }
  const c10::InferenceMode guard_;
};

/// One new token each of sequences whose lengths so far are given.
struct Step {
  std::vector<int64_t> ids;
  at::Tensor positions;
  std::vector<DecoderRun> runs;
};

Step draw_step(const Decoder& decoder, const std::vector<std::pair<int64_t, int64_t>>& slots_and_lengths) {
  Step step;
  const auto tokens = static_cast<int64_t>(slots_and_lengths.size());
  step.positions = at::randint(0, 200, {decoder.spec().position_axes, tokens}, at::kLong);
  for (const auto& [slot, length] : slots_and_lengths) {
    step.ids.push_back((slot * 31 + length * 7) % vocabulary);
    step.runs.push_back({.slot = slot, .begin = length, .tokens = 1, .blocks = {}});
  }
  return step;
}

at::Tensor run(const Decoder& decoder, const Step& step, KvCache& cache) {
  return decoder.step(step.ids, step.positions, step.runs, cache);
}

/// The same by the path of prompts.
at::Tensor forward(const Decoder& decoder, const Step& step, const KvCache& cache) {
  const at::Tensor ids = at::empty({static_cast<int64_t>(step.ids.size())}, at::kLong);
  std::copy(step.ids.begin(), step.ids.end(), ids.mutable_data_ptr<int64_t>());
  return decoder.logits(decoder.forward(decoder.embed(ids), step.positions, step.runs, &cache));
}

TEST_F(DecoderStepsOnGpu, EqualTheOtherPathOfTheDecoder) {
  for (const Kind kind : {Kind::plain, Kind::sandwich, Kind::three_axes})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      SCOPED_TRACE(static_cast<int>(kind));
      const Decoder decoder = make_decoder(kind, dtype);
      KvCache ours = make_cache(decoder);
      const KvCache theirs = make_cache(decoder);
      // Three layers of a 16-bit type differ by the roundings on the way; wrong steps are far away (1).
      const double tolerance = dtype == at::kFloat ? 1e-5 : dtype == at::kHalf ? 1e-2 : 6e-2;
      for (int64_t i = 0; i < 20; ++i)
        for (const auto& slots : {std::vector<std::pair<int64_t, int64_t>>{{3, i}},
                                  {{0, i}, {7, i}, {5, i}},
                                  {{1, i}, {2, i}, {4, i}, {6, i}, {8, i}, {9, i}, {10, i}, {11, i}}}) {
          const Step step = draw_step(decoder, slots);
          EXPECT_LT(distance(run(decoder, step, ours), forward(decoder, step, theirs)), tolerance)
              << "step " << i << " of " << slots.size();
        }
      for (int64_t layer = 0; layer < 3; ++layer)
        EXPECT_LT(distance(ours.layer(layer).keys, theirs.layer(layer).keys), tolerance);
    }
}

TEST_F(DecoderStepsOnGpu, AreReplayedFromTheSecondOnWithTheSameBits) {
  for (const Kind kind : {Kind::plain, Kind::sandwich, Kind::three_axes})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Decoder decoder = make_decoder(kind, dtype);
      KvCache replayed = make_cache(decoder);
      for (const int64_t tokens : {1, 2, 3, 5, 8}) {
        KvCache plain = make_cache(decoder);
        std::vector<std::pair<int64_t, int64_t>> slots;
        for (int64_t i = 0; i < tokens; ++i) slots.emplace_back(11 - i, 0);
        for (int64_t i = 0; i < 30; ++i) {
          for (auto& [slot, length] : slots) length = i;
          const Step step = draw_step(decoder, slots);
          const at::Tensor found = run(decoder, step, replayed);
          plain.graphs() = nullptr;  // so that every step is the first of its size
          EXPECT_TRUE(found.equal(run(decoder, step, plain))) << "step " << i << " of " << tokens;
          EXPECT_EQ(plain.graphs()->replays(), 0);
        }
      }
      // 3 tokens run as 4, and 5 as 8: four sizes, each of them plain once.
      EXPECT_EQ(replayed.graphs()->replays(), 5 * 30 - 4);
    }
}

TEST_F(DecoderStepsOnGpu, ASequencesBitsDoNotDependOnThoseBesideIt) {
  const Decoder decoder = make_decoder(Kind::sandwich, at::kBFloat16);
  KvCache alone = make_cache(decoder);
  KvCache together = make_cache(decoder);
  for (int64_t i = 0; i < 40; ++i) {
    std::vector<std::pair<int64_t, int64_t>> slots;
    if (i % 3 != 0) slots.emplace_back(2, i / 3);  // another one enters and leaves
    slots.emplace_back(4, i);
    if (i > 10) slots.emplace_back(1, i - 11);
    if (i > 20 && i < 30) slots.emplace_back(9, i - 21);
    const Step step = draw_step(decoder, slots);
    const auto own = static_cast<int64_t>(i % 3 != 0 ? 1 : 0);
    const at::Tensor logits = run(decoder, step, together);
    const Step single{
        {step.ids[static_cast<size_t>(own)]}, step.positions.narrow(1, own, 1), {step.runs[static_cast<size_t>(own)]}};
    EXPECT_TRUE(run(decoder, single, alone).equal(logits.narrow(0, own, 1))) << "step " << i;
  }
  EXPECT_GT(together.graphs()->replays(), 30);
}

TEST_F(DecoderStepsOnGpu, ColumnsThatAreNobodysWriteNothing) {
  const Decoder decoder = make_decoder(Kind::plain, at::kBFloat16);
  KvCache cache = make_cache(decoder);
  for (int64_t i = 0; i < 3; ++i) (void)run(decoder, draw_step(decoder, {{1, i}, {2, i}, {3, i}}), cache);
  for (int64_t layer = 0; layer < 3; ++layer) {
    const at::Tensor keys = cache.layer(layer).keys;
    EXPECT_EQ(keys.select(0, 0).abs().max().item<double>(), 0) << "slot 0 has no sequence";
    EXPECT_EQ(keys.narrow(1, 3, 61).abs().max().item<double>(), 0) << "nothing behind the third token";
    EXPECT_GT(keys.select(0, 2).narrow(0, 2, 1).abs().max().item<double>(), 0);
  }
}

TEST_F(DecoderStepsOnGpu, StreamsTakeTurns) {
  const Decoder decoder = make_decoder(Kind::plain, at::kBFloat16);
  KvCache cache = make_cache(decoder);
  KvCache plain = make_cache(decoder);
  for (int64_t i = 0; i < 30; ++i) {
    const Step step = draw_step(decoder, {{0, i}, {1, i}});
    plain.graphs() = nullptr;
    const at::Tensor expected = run(decoder, step, plain);
    c10::cuda::getCurrentCUDAStream().synchronize();  // the decoder, too, was made on this stream
    const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
    const at::Tensor found = run(decoder, step, cache);
    c10::cuda::getCurrentCUDAStream().synchronize();
    EXPECT_TRUE(found.equal(expected)) << "step " << i;
  }
}

TEST_F(DecoderStepsOnGpu, ManySequencesRunPlainly) {
  const Decoder decoder = make_decoder(Kind::plain, at::kFloat);
  constexpr int64_t many = DecoderGraphs::most_tokens + 1;
  KvCache ours = make_cache(decoder, many);
  const KvCache theirs = make_cache(decoder, many);
  std::vector<std::pair<int64_t, int64_t>> slots;
  for (int64_t i = 0; i < many; ++i) slots.emplace_back(i, 0);
  for (int64_t i = 0; i < 3; ++i) {
    for (auto& [slot, length] : slots) length = i;
    const Step step = draw_step(decoder, slots);
    EXPECT_LT(distance(run(decoder, step, ours), forward(decoder, step, theirs)), 1e-5);
  }
  EXPECT_EQ(ours.graphs()->replays(), 0);
  slots.pop_back();
  for (int64_t i = 3; i < 6; ++i) {
    for (auto& [slot, length] : slots) length = i;
    const Step step = draw_step(decoder, slots);
    EXPECT_LT(distance(run(decoder, step, ours), forward(decoder, step, theirs)), 1e-5);
  }
  EXPECT_EQ(ours.graphs()->replays(), 2);
}

TEST_F(DecoderStepsOnGpu, WhatCannotBeCapturedRunsPlainly) {
  DecoderGraphs graphs(std::make_shared<const char>(), c10::Device(at::kCUDA, 0));
  const at::Tensor input = at::ones({4, 2}, at::kLong);
  int calls = 0;
  for (int i = 0; i < 4; ++i) {
    const at::Tensor found = graphs.run(input * i, [&](const at::Tensor& columns) {
      ++calls;
      (void)columns.cpu();  // waits for the GPU, which no capture allows
      return columns.sum(0, /*keepdim=*/true).t().to(at::kFloat);
    });
    EXPECT_TRUE(found.cpu().equal(at::full({2, 1}, 4.0F * static_cast<float>(i))));
  }
  EXPECT_EQ(calls, 5) << "four, and the one that could not be captured";
  EXPECT_EQ(graphs.replays(), 0);
}

TEST_F(DecoderStepsOnGpu, OtherSizesAreCapturedWhereOneCannotBe) {
  DecoderGraphs graphs(std::make_shared<const char>(), c10::Device(at::kCUDA, 0));
  const auto sum = [](const at::Tensor& columns) { return columns.sum(0, /*keepdim=*/true).t().to(at::kFloat); };
  int calls = 0;
  const auto throws_at_second = [&](const at::Tensor& columns) {
    if (++calls == 2) throw std::runtime_error("this one is not to be captured");
    return sum(columns);
  };
  for (int i = 0; i < 3; ++i) (void)graphs.run(at::ones({4, 2}, at::kLong), throws_at_second);
  EXPECT_EQ(calls, 4);
  EXPECT_EQ(graphs.replays(), 0);
  for (int i = 0; i < 3; ++i) {
    const at::Tensor found = graphs.run(at::full({4, 5}, i, at::kLong), sum);
    EXPECT_TRUE(found.cpu().equal(at::full({5, 1}, 4.0F * static_cast<float>(i))));
  }
  EXPECT_EQ(graphs.replays(), 2);
}

TEST_F(DecoderStepsOnGpu, WhereMemoryLackedASizeIsCapturedLater) {
  DecoderGraphs graphs(std::make_shared<const char>(), c10::Device(at::kCUDA, 0));
  bool is_full = true;
  int calls = 0;
  const auto step = [&](int64_t value) {
    const at::Tensor found = graphs.run(at::full({4, 2}, value, at::kLong), [&](const at::Tensor& columns) {
      ++calls;
      if (is_full) run_out_of_memory_in_captures();
      return columns.sum(0, /*keepdim=*/true).t().to(at::kFloat);
    });
    EXPECT_TRUE(found.cpu().equal(at::full({2, 1}, 4.0F * static_cast<float>(value)))) << value;
  };
  step(1);
  step(2);
  EXPECT_EQ(calls, 4) << "two plain ones, and a capture tried with all memory, too";
  is_full = false;
  for (int64_t i = 0; i < CaptureTurns::first_pause; ++i) step(3 + i);
  EXPECT_EQ(calls, 4 + CaptureTurns::first_pause) << "plain, and not tried at every call";
  EXPECT_EQ(graphs.replays(), 0);
  for (int64_t i = 0; i < 3; ++i) step(100 + i);
  EXPECT_EQ(calls, 5 + CaptureTurns::first_pause);
  EXPECT_EQ(graphs.replays(), 3);
}

TEST_F(DecoderStepsOnGpu, StepsInARowReadTheirOwnInputHoweverLateTheGpuIs) {
  DecoderGraphs graphs(std::make_shared<const char>(), c10::Device(at::kCUDA, 0));
  const auto sum = [](const at::Tensor& columns) { return columns.sum(0, /*keepdim=*/true).t().to(at::kFloat); };
  std::vector<at::Tensor> found;
  for (int i = 0; i < 5; ++i) {
    stall();
    found.push_back(graphs.run(at::full({4, 3}, i, at::kLong), sum));
  }
  for (size_t i = 0; i < found.size(); ++i)
    EXPECT_TRUE(found[i].cpu().equal(at::full({3, 1}, 4.0F * static_cast<float>(i)))) << "step " << i;
  EXPECT_EQ(graphs.replays(), 4);
}

// On another stream, which nothing but the graphs' own account of their room's use keeps behind the first one.
TEST_F(DecoderStepsOnGpu, AStepThatThrewStillReadsItsOwnInput) {
  DecoderGraphs graphs(std::make_shared<const char>(), c10::Device(at::kCUDA, 0));
  const at::Tensor input = at::ones({4, 2}, at::kLong);
  at::Tensor seen;
  const auto throws = [&](const at::Tensor& columns) -> at::Tensor {
    stall();
    seen = columns.clone();
    throw std::runtime_error("behind all that was enqueued");
  };
  {
    const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
    EXPECT_THROW((void)graphs.run(input, throws), std::runtime_error);
  }
  {
    const c10::cuda::CUDAStreamGuard stream(c10::cuda::getStreamFromPool());
    (void)graphs.run(input * 5, [](const at::Tensor& columns) { return columns.t().to(at::kFloat); });
  }
  c10::cuda::device_synchronize();
  EXPECT_TRUE(seen.cpu().equal(input));
}

TEST_F(DecoderStepsOnGpu, TwoThousandStepsTakeNoMoreMemory) {
  const Decoder decoder = make_decoder(Kind::sandwich, at::kBFloat16);
  KvCache cache = make_cache(decoder, 8, 2048);
  const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
  const auto bytes = [&] {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(0);
    return std::pair(stats.reserved_bytes[all].current, stats.allocated_bytes[all].current);
  };
  std::pair<int64_t, int64_t> early;
  for (int64_t i = 0; i < 2000; ++i) {
    std::vector<std::pair<int64_t, int64_t>> slots;
    for (int64_t slot = 0; slot < 1 + i % 8; ++slot) slots.emplace_back(slot, i);
    (void)run(decoder, draw_step(decoder, slots), cache);
    if (i == 100) early = bytes();
  }
  EXPECT_EQ(bytes(), early);
}

}  // namespace
}  // namespace oriel::nn
