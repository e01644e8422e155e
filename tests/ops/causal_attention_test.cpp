#include "ops/causal_attention.hpp"

#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/expect_error.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

// float32 against double: sums of up to some hundred products of numbers near one.
constexpr double float_tolerance = 2e-6;

struct Case {
  int64_t begin = 0;
  int64_t tokens = 1;
  int64_t heads = 4;
  int64_t kv_heads = 2;
  int64_t window = 0;
  std::vector<TokenRange> blocks = {};
  int64_t head_dim = 16;
};

struct Inputs {
  at::Tensor q, k, v;
};

/// Keys lie in a longer cache, q in a wider product: neither is dense.
Inputs make_inputs(const Case& c, uint64_t seed) {
  Random random(seed);
  const at::Tensor cache = random.normal({2, c.begin + c.tokens + 3, c.kv_heads, c.head_dim});
  return {random.normal({c.tokens, c.heads + 2, c.head_dim}, 1.5).narrow(1, 0, c.heads), cache[0], cache[1]};
}

Visibility visibility(const Case& c) { return make_visibility(c.begin, c.tokens, c.window, c.blocks, at::kCPU); }

bool sees(const Case& c, int64_t i, int64_t j) {
  const auto in = [](const TokenRange& block, int64_t token) { return block.begin <= token && token < block.end; };
  const bool same_block = std::any_of(c.blocks.begin(), c.blocks.end(),
                                      [&](const TokenRange& block) { return in(block, i) && in(block, j); });
  return (j <= i || same_block) && (c.window == 0 || j > i - c.window);
}

/// spec/text.md 1 and 6 in double precision.
std::vector<double> attend_by_loops(const Case& c, const Inputs& inputs, double scale) {
  const auto q = doubles(inputs.q);
  const auto k = doubles(inputs.k);
  const auto v = doubles(inputs.v);
  const int64_t keys = c.begin + c.tokens;
  std::vector<double> out(static_cast<size_t>(c.tokens * c.heads * c.head_dim));
  for (int64_t t = 0; t < c.tokens; ++t)
    for (int64_t h = 0; h < c.heads; ++h) {
      const int64_t kv = h / (c.heads / c.kv_heads);
      std::vector<double> weights(static_cast<size_t>(keys));
      double sum = 0;
      for (int64_t j = 0; j < keys; ++j) {
        if (!sees(c, c.begin + t, j)) continue;
        double dot = 0;
        for (int64_t d = 0; d < c.head_dim; ++d)
          dot += q[static_cast<size_t>((t * c.heads + h) * c.head_dim + d)] *
                 k[static_cast<size_t>((j * c.kv_heads + kv) * c.head_dim + d)];
        sum += weights[static_cast<size_t>(j)] = std::exp(dot * scale);
      }
      for (int64_t j = 0; j < keys; ++j)
        for (int64_t d = 0; d < c.head_dim; ++d)
          out[static_cast<size_t>((t * c.heads + h) * c.head_dim + d)] +=
              weights[static_cast<size_t>(j)] / sum * v[static_cast<size_t>((j * c.kv_heads + kv) * c.head_dim + d)];
    }
  return out;
}

const std::vector<Case> cases{
    {.begin = 0, .tokens = 1},
    {.begin = 0, .tokens = 2},
    {.begin = 0, .tokens = 17, .heads = 3, .kv_heads = 3},
    {.begin = 5, .tokens = 1, .heads = 6, .kv_heads = 1},
    {.begin = 9, .tokens = 1, .window = 4},
    {.begin = 9, .tokens = 1, .window = 40},
    {.begin = 6, .tokens = 11, .heads = 6, .kv_heads = 2},
    {.begin = 0, .tokens = 20, .window = 6},
    {.begin = 7, .tokens = 20, .window = 1},
    {.begin = 0, .tokens = 20, .blocks = {{3, 9}, {9, 12}}},
    {.begin = 3, .tokens = 12, .blocks = {{0, 2}, {3, 9}, {14, 15}}},
    {.begin = 0, .tokens = 30, .window = 5, .blocks = {{2, 20}, {21, 30}}},
    {.begin = 0, .tokens = 255},
    {.begin = 0, .tokens = 257},
    {.begin = 3, .tokens = 300, .window = 100, .blocks = {{200, 290}}},
    {.begin = 0, .tokens = 530, .blocks = {{250, 260}, {300, 520}}},
};

TEST(CausalAttention, ReferenceIsTheFormula) {
  for (size_t i = 0; i < cases.size(); ++i) {
    const Inputs inputs = make_inputs(cases[i], i);
    const at::Tensor got = causal_attention_reference(inputs.q, inputs.k, inputs.v, visibility(cases[i]), 0.3);
    EXPECT_LE(relative_error(doubles(got), attend_by_loops(cases[i], inputs, 0.3)), float_tolerance) << "case " << i;
  }
}

TEST(CausalAttention, EqualsTheFormula) {
  for (size_t i = 0; i < cases.size(); ++i) {
    const Inputs inputs = make_inputs(cases[i], i);
    const at::Tensor got = causal_attention(inputs.q, inputs.k, inputs.v, visibility(cases[i]), 0.3);
    EXPECT_EQ(got.sizes(), (std::vector{cases[i].tokens, cases[i].heads * cases[i].head_dim}));
    EXPECT_LE(relative_error(doubles(got), attend_by_loops(cases[i], inputs, 0.3)), float_tolerance) << "case " << i;
  }
}

// 8 significant bits: the weights and the result are rounded.
TEST(CausalAttention, TakesBfloat) {
  for (size_t i = 0; i < cases.size(); ++i) {
    Inputs inputs = make_inputs(cases[i], i);
    inputs = {inputs.q.to(at::kBFloat16), inputs.k.to(at::kBFloat16), inputs.v.to(at::kBFloat16)};
    const at::Tensor got = causal_attention(inputs.q, inputs.k, inputs.v, visibility(cases[i]), 0.3);
    EXPECT_LE(relative_error(doubles(got), attend_by_loops(cases[i], inputs, 0.3)), 1e-2) << "case " << i;
  }
}

TEST(CausalAttention, NothingBehindTheTokensIsRead) {
  const Case c{.begin = 4, .tokens = 6};
  const Inputs inputs = make_inputs(c, 1);
  const at::Tensor expected = causal_attention(inputs.q, inputs.k, inputs.v, visibility(c), 0.3).clone();
  inputs.k.narrow(0, 10, 3).fill_(std::nan(""));
  inputs.v.narrow(0, 10, 3).fill_(std::nan(""));
  expect_equal_values(causal_attention(inputs.q, inputs.k, inputs.v, visibility(c), 0.3), floats(expected), "result");
}

TEST(CausalAttention, ACutBlockIsADefect) {
  expect_error(ErrorCode::internal, "attention: the block [3, 9) is cut at 5", [] {
    (void)make_visibility(0, 5, 0, std::vector<TokenRange>{{3, 9}}, at::kCPU);
  });
}

class SlotAttention : public testing::TestWithParam<bool> {
 protected:
  /// What a GPU gets, on the CPU.
  static SlotQueries make(const std::vector<int64_t>& slots, const std::vector<int64_t>& lengths) {
    SlotQueries queries = make_slot_queries(slots, lengths, at::kCPU);
    if (!GetParam()) return queries;
    const auto row = [](const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); };
    queries.places = at::empty({2, static_cast<int64_t>(slots.size())}, at::kLong);
    queries.places[0].copy_(row(slots));
    queries.places[1].copy_(row(lengths));
    return queries;
  }
};

TEST_P(SlotAttention, EachQueryIsAsAlone) {
  constexpr int64_t heads = 6, kv_heads = 2, head_dim = 16, capacity = 40;
  Random random(3);
  const at::Tensor k = random.normal({5, capacity, kv_heads, head_dim});
  const at::Tensor v = random.normal({5, capacity, kv_heads, head_dim});
  const std::vector<int64_t> slots{3, 1, 4};
  const std::vector<int64_t> lengths{17, 1, 40};
  const at::Tensor q = random.normal({3, heads + 1, head_dim}).narrow(1, 0, heads);
  for (const int64_t window : {0, 1, 5, 100}) {
    const at::Tensor got = slot_attention(q, k, v, make(slots, lengths), window, 0.25);
    ASSERT_EQ(got.sizes(), (std::vector<int64_t>{3, heads * head_dim}));
    for (size_t i = 0; i < slots.size(); ++i) {
      const auto row = static_cast<int64_t>(i);
      const Visibility newest = make_visibility(lengths[i] - 1, 1, window, {}, at::kCPU);
      const at::Tensor alone = causal_attention_reference(q.narrow(0, row, 1), k[slots[i]], v[slots[i]], newest, 0.25);
      EXPECT_LE(relative_error(doubles(got[row]), doubles(alone[0])), float_tolerance)
          << "query " << i << ", window " << window;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(OneByOneAndTogether, SlotAttention, testing::Bool());

}  // namespace
}  // namespace oriel::ops
