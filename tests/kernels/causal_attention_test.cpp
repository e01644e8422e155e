// Attention of prompts on Hopper against its definition in float32: lengths, histories, groups, windows, stretches.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <c10/cuda/CUDAFunctions.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "causal_attention.h"
#include "causal_attention_plan.h"
#include "kernels/random_on_gpu.hpp"
#include "ops/cuda/launch.hpp"

namespace oriel::ops {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

struct Heads {
  int64_t all, kv, dim;
};

/// Queries of a sequence behind `history` tokens of it; without `causal`, all see all.
struct Part {
  int64_t history, queries;
  bool causal = true;
  [[nodiscard]] int64_t keys() const { return history + queries; }
};

/// Runs over a cache with a slot each, NaN in all that belongs to no run: behind the slots' keys, and in the rows of
/// queries between runs. Queries are a part of wider rows, as a merged product leaves them.
struct Prompts {
  static constexpr int64_t gap = 3;  // rows between runs
  Heads heads;
  std::vector<Part> parts;
  int64_t window = 0;
  at::Tensor queries, keys, values;  // [tokens, heads, dim], [slots, capacity, kv_heads, dim]
  double scale;
  bool prescaled = false;

  Prompts(Heads sizes, std::vector<Part> runs, at::ScalarType dtype)
      : heads(sizes), parts(std::move(runs)), scale(1 / std::sqrt(static_cast<double>(sizes.dim))) {
    int64_t rows = gap;
    int64_t capacity = 0;
    for (const Part& part : parts) {
      rows += part.queries + gap;
      capacity = std::max(capacity, part.keys() + 5);
    }
    const auto options = at::dtype(dtype).device(at::kCUDA);
    const auto slots = static_cast<int64_t>(parts.size());
    queries = at::full({rows, heads.all + 2 * heads.kv, heads.dim}, nan, options).narrow(1, 0, heads.all);
    keys = at::full({slots, capacity, heads.kv, heads.dim}, nan, options);
    values = at::full({slots, capacity, heads.kv, heads.dim}, nan, options);
    for (size_t i = 0; i < parts.size(); ++i) {
      q(i).copy_(at::randn(q(i).sizes(), at::dtype(at::kFloat).device(at::kCUDA)) * 1.5);
      k(i).copy_(at::randn(k(i).sizes(), at::dtype(at::kFloat).device(at::kCUDA)) * 1.5);
      v(i).copy_(at::randn(v(i).sizes(), at::dtype(at::kFloat).device(at::kCUDA)));
    }
  }

  [[nodiscard]] int64_t begin(size_t i) const {
    int64_t row = gap;
    for (size_t before = 0; before < i; ++before) row += parts[before].queries + gap;
    return row;
  }
  [[nodiscard]] at::Tensor q(size_t i) const { return queries.narrow(0, begin(i), parts[i].queries); }
  [[nodiscard]] at::Tensor k(size_t i) const {
    return keys.select(0, static_cast<int64_t>(i)).narrow(0, 0, parts[i].keys());
  }
  [[nodiscard]] at::Tensor v(size_t i) const {
    return values.select(0, static_cast<int64_t>(i)).narrow(0, 0, parts[i].keys());
  }

  [[nodiscard]] kernels::AttentionPlan plan(int multiprocessors) const {
    std::vector<kernels::AttentionRun> runs;
    for (size_t i = 0; i < parts.size(); ++i)
      runs.push_back({.query_begin = static_cast<int32_t>(begin(i)),
                      .key_begin = static_cast<int32_t>(static_cast<int64_t>(i) * keys.size(1)),
                      .queries = static_cast<int32_t>(parts[i].queries),
                      .keys = static_cast<int32_t>(parts[i].keys()),
                      .causal = parts[i].causal});
    return kernels::plan_causal_attention(runs, {.heads = static_cast<int>(heads.all),
                                                 .kv_heads = static_cast<int>(heads.kv),
                                                 .head_dim = static_cast<int>(heads.dim),
                                                 .window = static_cast<int32_t>(window),
                                                 .sm_count = multiprocessors});
  }

  [[nodiscard]] kernels::CausalAttentionParams params(const at::Tensor& out) const {
    return {.queries = queries.const_data_ptr(),
            .keys = keys.const_data_ptr(),
            .values = values.const_data_ptr(),
            .out = out.mutable_data_ptr(),
            .query_stride = queries.stride(0),
            .key_stride = keys.stride(1),
            .value_stride = values.stride(1),
            .tokens = static_cast<int32_t>(queries.size(0)),
            .key_rows = static_cast<int32_t>(keys.size(0) * keys.size(1)),
            .heads = static_cast<int32_t>(heads.all),
            .kv_heads = static_cast<int32_t>(heads.kv),
            .head_dim = static_cast<int32_t>(heads.dim),
            .element = cuda::element_of(queries),
            .scale = static_cast<float>(scale),
            .q_prescaled = prescaled};
  }

  /// [tokens, heads, dim]; 7 in rows of no run.
  [[nodiscard]] at::Tensor run(int multiprocessors = 132) const {
    const at::Tensor out = at::full({queries.size(0), heads.all, heads.dim}, 7, keys.options());
    const kernels::AttentionPlan made = plan(multiprocessors);
    const at::Tensor bytes = at::empty({static_cast<int64_t>(made.bytes.size())}, at::kByte);
    std::memcpy(bytes.mutable_data_ptr(), made.bytes.data(), made.bytes.size());
    const at::Tensor on_gpu = bytes.cuda();
    kernels::CausalAttentionParams all = params(out);
    all.plan = on_gpu.const_data_ptr();
    all.blocks = made.blocks;
    cuda::check(kernels::causal_attention(all, cuda::stream_of(queries)), "causal_attention");
    return out;
  }
  [[nodiscard]] at::Tensor part_of(const at::Tensor& out, size_t i) const {
    return out.narrow(0, begin(i), parts[i].queries);
  }

  /// [queries, heads, dim] of a run, float32.
  [[nodiscard]] at::Tensor definition(size_t i) const {
    const Part& part = parts[i];
    const int64_t group = heads.all / heads.kv;
    const auto heads_first = [](const at::Tensor& x) { return x.to(at::kFloat).transpose(0, 1); };
    const at::Tensor key = at::arange(part.keys(), at::dtype(at::kLong).device(at::kCUDA)).unsqueeze(0);
    const at::Tensor place = at::arange(part.history, part.keys(), key.options()).unsqueeze(1);
    at::Tensor seen = part.causal ? key <= place : key < part.keys() + 0 * place;
    if (window > 0) seen = at::logical_and(seen, key > place - window);
    at::Tensor scores = at::matmul(heads_first(q(i)), heads_first(k(i)).repeat_interleave(group, 0).transpose(1, 2));
    scores = (scores * (prescaled ? std::log(2.0) : scale)).masked_fill(seen.logical_not().unsqueeze(0), -infinity);
    return at::matmul(at::softmax(scores, -1), heads_first(v(i)).repeat_interleave(group, 0)).transpose(0, 1);
  }
};

class CausalAttention : public RandomOnGpu {
 protected:
  void SetUp() override {
    RandomOnGpu::SetUp();
    if (IsSkipped()) return;
    const cuda::Chip chip = cuda::chip_of(c10::Device(c10::kCUDA, c10::cuda::current_device()));
    if (chip.major != 9) GTEST_SKIP() << "the kernel is for compute capability 9.0, this is " << chip.major << ".x";
    ASSERT_TRUE(chip.has_sm90_code) << "the build has no code for this chip";
  }

  /// Norm over norm. P and the result are rounded to the dtype once each, 2^-9 / sqrt(3) and 2^-12 / sqrt(3) relative;
  /// a run of few rows averages less. Rows that see few keys, or one of weight near 1, feel a rounding unaveraged.
  static double tolerance(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 4.5e-3 : 6e-4; }

  static void expect_definition(const Prompts& prompts, double factor = 1) {
    const at::Tensor out = prompts.run();
    int64_t row = 0;
    for (size_t i = 0; i < prompts.parts.size(); ++i) {
      const at::Tensor expected = prompts.definition(i);
      EXPECT_LT(distance(prompts.part_of(out, i), wide(expected)), factor * tolerance(out.scalar_type()))
          << "run " << i << ": " << prompts.parts[i].queries << " behind " << prompts.parts[i].history;
      EXPECT_TRUE((out.narrow(0, row, prompts.begin(i) - row) == 7).all().item<bool>()) << "wrote before run " << i;
      row = prompts.begin(i) + prompts.parts[i].queries;
    }
    EXPECT_TRUE((out.narrow(0, row, out.size(0) - row) == 7).all().item<bool>()) << "wrote behind the last run";
  }
};

std::string name_of(const Heads& heads, at::ScalarType dtype) {
  return std::to_string(heads.all) + "/" + std::to_string(heads.kv) + " heads of " + std::to_string(heads.dim) +
         (dtype == at::kHalf ? ", float16" : ", bfloat16");
}

const std::vector<Heads> shapes{{2, 2, 64}, {4, 2, 64}, {7, 1, 128}, {2, 2, 128}, {8, 1, 128}, {4, 2, 256}, {7, 1, 64}};
const std::vector<at::ScalarType> dtypes{at::kBFloat16, at::kHalf};
const std::vector<Part> mixed{{0, 65},    {1000, 1}, {40, 100}, {64, 64},    {63, 2},         {129, 300}, {0, 1},
                              {500, 257}, {0, 127},  {1, 191},  {1023, 193}, {200, 5, false}, {33, 640}};

TEST_F(CausalAttention, PromptsOfAnyLengthEqualTheDefinition) {
  for (const at::ScalarType dtype : dtypes)
    for (const Heads& heads : shapes)
      for (const int64_t length : {1, 2, 15, 63, 64, 65, 129, 192, 257, 1000, 2048, 2500}) {
        SCOPED_TRACE(name_of(heads, dtype));
        expect_definition(Prompts(heads, {{0, length}}, dtype));
      }
}

TEST_F(CausalAttention, RunsWithHistoriesEqualTheDefinition) {
  for (const at::ScalarType dtype : dtypes)
    for (const Heads& heads : shapes) {
      SCOPED_TRACE(name_of(heads, dtype));
      expect_definition(Prompts(heads, mixed, dtype));
    }
}

TEST_F(CausalAttention, WindowsEqualTheDefinition) {
  for (const at::ScalarType dtype : dtypes)
    for (const Heads& heads : shapes)
      for (const int64_t window : {1, 2, 63, 64, 65, 100, 512, 5000}) {
        SCOPED_TRACE(name_of(heads, dtype) + ", window " + std::to_string(window));
        Prompts prompts(heads, mixed, dtype);
        prompts.window = window;
        expect_definition(prompts);
      }
}

TEST_F(CausalAttention, StretchesInWhichAllSeeAllEqualTheDefinition) {
  for (const Heads& heads : shapes)
    for (const int64_t window : {0, 150}) {
      SCOPED_TRACE(name_of(heads, at::kBFloat16) + ", window " + std::to_string(window));
      Prompts prompts(heads, {{0, 256, false}, {37, 256, false}, {1000, 70, false}, {5, 1, false}, {100, 300}},
                      at::kBFloat16);
      prompts.window = window;
      expect_definition(prompts);
    }
}

TEST_F(CausalAttention, ScaledQueriesEqualTheDefinition) {
  for (const at::ScalarType dtype : dtypes)
    for (const int64_t window : {0, 100}) {
      SCOPED_TRACE(name_of(shapes[2], dtype) + ", window " + std::to_string(window));
      Prompts prompts(shapes[2], mixed, dtype);
      prompts.queries.mul_(prompts.scale / std::log(2.0));
      prompts.prescaled = true;
      prompts.window = window;
      expect_definition(prompts);
    }
}

TEST_F(CausalAttention, AScaleOfZeroWeighsAllKeysAlike) {
  for (const int64_t window : {0, 100}) {
    Prompts prompts(shapes[2], mixed, at::kBFloat16);
    prompts.scale = 0;
    prompts.window = window;
    expect_definition(prompts);
  }
}

// Logits up to hundreds that grow along the sequence: the maximum of the first keys is far too low, and what rows saw
// before their window began says nothing. Rows are near one-hot: the rounding of one weight is not averaged.
TEST_F(CausalAttention, LargeAndGrowingScoresEqualTheDefinition) {
  for (const at::ScalarType dtype : dtypes)
    for (const Heads& heads : shapes)
      for (const int64_t window : {0, 1, 70, 300})
        for (const bool falling : {false, true}) {
          SCOPED_TRACE(name_of(heads, dtype) + ", window " + std::to_string(window) + (falling ? ", falling" : ""));
          Prompts prompts(heads, {{0, 1100}, {700, 130}}, dtype);
          prompts.window = window;
          for (size_t i = 0; i < prompts.parts.size(); ++i) {
            const at::Tensor rise = at::linspace(falling ? 2 : 0.02, falling ? 0.02 : 2, prompts.parts[i].keys(),
                                                 at::dtype(at::kFloat).device(at::kCUDA));
            prompts.k(i).copy_(prompts.k(i).to(at::kFloat) * rise.view({-1, 1, 1}) * 5);
            prompts.q(i).mul_(4);
          }
          expect_definition(prompts, 2);
        }
}

TEST_F(CausalAttention, OneKeyIsFoundAmongMany) {
  // A query is the code of one key that it sees: a swapped, missing or doubled key shows.
  for (const Heads& heads : {Heads{2, 2, 64}, {4, 2, 128}, {2, 1, 256}}) {
    Prompts prompts(heads, {{300, 709}}, at::kBFloat16);
    const at::Tensor code = at::randn(prompts.k(0).sizes(), prompts.keys.options()).sign() * 2;
    prompts.k(0).copy_(code);
    const at::Tensor place = at::arange(300, 1009, at::dtype(at::kLong).device(at::kCUDA));
    const at::Tensor target = (place * 7 + 3).remainder(place + 1);
    const int64_t group = heads.all / heads.kv;
    prompts.q(0).copy_(code.index_select(0, target).repeat_interleave(group, 1) * 4);
    EXPECT_TRUE(
        prompts.part_of(prompts.run(), 0).equal(prompts.v(0).index_select(0, target).repeat_interleave(group, 1)))
        << heads.dim;
  }
}

TEST_F(CausalAttention, ARunsBitsDependOnThatRunAlone) {
  for (const at::ScalarType dtype : dtypes)
    for (const Heads& heads : {Heads{4, 2, 64}, {7, 1, 128}, {2, 1, 256}})
      for (const int64_t window : {0, 100}) {
        SCOPED_TRACE(name_of(heads, dtype) + ", window " + std::to_string(window));
        Prompts packed(heads, mixed, dtype);
        packed.window = window;
        packed.keys.mul_(3);  // some maxima are raised
        const at::Tensor together = packed.run();
        for (const int multiprocessors : {1, 5, 31, 1000})
          EXPECT_TRUE(packed.run(multiprocessors).equal(together)) << "cut for " << multiprocessors;
        for (size_t i = 0; i < mixed.size(); ++i) {
          Prompts alone(heads, {mixed[i]}, dtype);
          alone.window = window;
          alone.q(0).copy_(packed.q(i));
          alone.k(0).copy_(packed.k(i));
          alone.v(0).copy_(packed.v(i));
          EXPECT_TRUE(alone.part_of(alone.run(), 0).equal(packed.part_of(together, i))) << "run " << i;
        }
      }
}

TEST_F(CausalAttention, NoValueOfAnotherRunHasAnEffect) {
  for (const Heads& heads : {Heads{4, 2, 64}, {7, 1, 128}, {2, 1, 256}}) {
    const Prompts clean(heads, mixed, at::kBFloat16);
    const at::Tensor expected = clean.run();
    for (size_t broken = 0; broken < mixed.size(); ++broken)
      for (const double bad : {nan, infinity, -infinity}) {
        Prompts prompts = clean;
        prompts.queries = clean.queries.clone();
        prompts.keys = clean.keys.clone();
        prompts.values = clean.values.clone();
        // What belongs to no run, too.
        prompts.keys.masked_fill_(prompts.keys.isnan(), bad);
        prompts.values.masked_fill_(prompts.values.isnan(), bad);
        for (const at::Tensor& part : {prompts.q(broken), prompts.k(broken), prompts.v(broken)}) part.fill_(bad);
        const at::Tensor out = prompts.run();
        for (size_t i = 0; i < mixed.size(); ++i) {
          if (i == broken) {
            EXPECT_TRUE(prompts.part_of(out, i).isnan().all().item<bool>()) << bad << " is lost in its own run " << i;
          } else {
            EXPECT_TRUE(prompts.part_of(out, i).equal(clean.part_of(expected, i)))
                << bad << " in run " << broken << " shows in run " << i;
          }
        }
      }
  }
}

TEST_F(CausalAttention, ChunksGiveTheBitsOfTheWholePrompt) {
  // Where chunks end at multiples of 16, what a warp decides is decided about the same rows.
  const Heads heads{4, 2, 128};
  const Prompts whole(heads, {{0, 1000}}, at::kBFloat16);
  const at::Tensor expected = whole.part_of(whole.run(), 0);
  for (const int64_t chunk : {64, 112, 256, 512})
    for (int64_t first = 0; first < 1000; first += chunk) {
      const int64_t queries = std::min<int64_t>(chunk, 1000 - first);
      Prompts part(heads, {{first, queries}}, at::kBFloat16);
      part.q(0).copy_(whole.q(0).narrow(0, first, queries));
      part.k(0).copy_(whole.k(0).narrow(0, 0, first + queries));
      part.v(0).copy_(whole.v(0).narrow(0, 0, first + queries));
      EXPECT_TRUE(part.part_of(part.run(), 0).equal(expected.narrow(0, first, queries)))
          << queries << " behind " << first;
    }
}

TEST_F(CausalAttention, RefusesWhatItDoesNotTake) {
  const Prompts prompts({4, 2, 64}, {{0, 100}}, at::kBFloat16);
  const at::Tensor out = at::full({prompts.queries.size(0), 4, 64}, 7, prompts.keys.options());
  const cudaStream_t stream = cuda::stream_of(out);
  const at::Tensor bytes = at::full({4096}, 0, out.options().dtype(at::kByte));
  kernels::CausalAttentionParams fine = prompts.params(out);
  fine.plan = bytes.const_data_ptr();
  fine.blocks = 1;
  const auto status = [&](auto change) {
    kernels::CausalAttentionParams changed = fine;
    change(changed);
    return kernels::causal_attention(changed, stream);
  };
  EXPECT_EQ(status([](auto& p) { p.head_dim = 96; }), cudaErrorNotSupported);
  EXPECT_EQ(status([](auto& p) { p.key_stride += 4; }), cudaErrorNotSupported);
  EXPECT_EQ(status([](auto& p) { p.queries = static_cast<const char*>(p.queries) + 8; }), cudaErrorNotSupported);
  EXPECT_EQ(status([](auto& p) { p.element = kernels::Element::float32; }), cudaErrorNotSupported);
  EXPECT_EQ(status([](auto& p) { p.kv_heads = 3; }), cudaErrorInvalidValue);
  EXPECT_EQ(status([](auto& p) { p.value_stride = 64; }), cudaErrorInvalidValue);
  EXPECT_EQ(status([](auto& p) { p.plan = nullptr; }), cudaErrorInvalidValue);
  EXPECT_EQ(status([](auto& p) { p.tokens = 0; }), cudaSuccess);
  EXPECT_TRUE((out == 7).all().item<bool>());
}

}  // namespace
}  // namespace oriel::ops
