#include "ops/attention.hpp"

#include <ATen/ops/zeros.h>
#include <fmt/ranges.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/expect_error.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

using Bounds = std::vector<int64_t>;

/// One segment, many equal ones, mixed lengths with runs of equal ones, length 1, primes.
const std::vector<Bounds> layouts{{0, 37},      {0, 16, 32, 48, 64}, {0, 5, 12, 19, 20, 53},   {0, 1},
                                  {0, 1, 2, 3}, {0, 7, 18, 31, 48},  {0, 64, 68, 72, 136, 137}};
constexpr int64_t head_dims[] = {16, 20, 64, 72, 80};
constexpr int64_t heads = 2;

struct Inputs {
  at::Tensor q, k, v;
  double scale;
};

/// q, k, v as the transformer hands them over: three views of one tensor. Scores spread over about +-12.
Inputs make_inputs(int64_t tokens, int64_t head_dim, uint64_t seed, at::ScalarType dtype = at::kFloat) {
  const at::Tensor qkv = Random(seed).normal({tokens, 3, heads, head_dim}, 2).to(dtype);
  return {qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2), 1 / std::sqrt(static_cast<double>(head_dim))};
}

std::vector<double> truth(const Inputs& in, const Bounds& bounds) {
  const auto dim = static_cast<size_t>(in.q.size(2));
  const std::vector<double> q = doubles(in.q);
  const std::vector<double> k = doubles(in.k);
  const std::vector<double> v = doubles(in.v);
  std::vector<double> out(q.size(), 0.0);
  const auto at = [&](int64_t token, int64_t head) { return static_cast<size_t>(token * heads + head) * dim; };
  for (size_t s = 0; s + 1 < bounds.size(); ++s)
    for (int64_t head = 0; head < heads; ++head)
      for (int64_t i = bounds[s]; i < bounds[s + 1]; ++i) {
        std::vector<double> weights;
        double total = 0;
        for (int64_t j = bounds[s]; j < bounds[s + 1]; ++j) {
          double score = 0;
          for (size_t d = 0; d < dim; ++d) score += q[at(i, head) + d] * k[at(j, head) + d];
          weights.push_back(std::exp(score * in.scale));  // at most e^40: no overflow in double
          total += weights.back();
        }
        for (int64_t j = bounds[s]; j < bounds[s + 1]; ++j)
          for (size_t d = 0; d < dim; ++d)
            out[at(i, head) + d] += weights[static_cast<size_t>(j - bounds[s])] / total * v[at(j, head) + d];
      }
  return out;
}

TEST(Attention, EqualsTheDefinitionInEveryLayout) {
  for (const Bounds& bounds : layouts)
    for (const int64_t head_dim : head_dims) {
      const auto seed = static_cast<uint64_t>(head_dim + bounds.back());
      SCOPED_TRACE(fmt::format("bounds [{}], head_dim {}, seed {}", fmt::join(bounds, ", "), head_dim, seed));
      const Inputs in = make_inputs(bounds.back(), head_dim, seed);
      const std::vector<double> expected = truth(in, bounds);
      const at::Tensor out = attention(in.q, in.k, in.v, bounds, in.scale);
      ASSERT_EQ(out.sizes(), (Bounds{bounds.back(), heads * head_dim}));
      // Scores of 10 carry an error of a few times 10 * 2^-24, which the exponential passes on to the weights.
      EXPECT_LT(relative_error(doubles(out), expected), 1e-5);
      EXPECT_LT(relative_error(doubles(attention_reference(in.q, in.k, in.v, bounds, in.scale)), expected), 1e-5);
    }
}

TEST(Attention, InBfloat16IsAsCloseToTheTruthAsTheReference) {
  for (const Bounds& bounds : layouts)
    for (const int64_t head_dim : head_dims) {
      const auto seed = static_cast<uint64_t>(head_dim + bounds.back());
      SCOPED_TRACE(fmt::format("bounds [{}], head_dim {}, seed {}", fmt::join(bounds, ", "), head_dim, seed));
      const Inputs in = make_inputs(bounds.back(), head_dim, seed, at::kBFloat16);
      const std::vector<double> expected = truth(in, bounds);
      const at::Tensor out = attention(in.q, in.k, in.v, bounds, in.scale);
      EXPECT_EQ(out.scalar_type(), at::kBFloat16);
      const double reference =
          relative_error(doubles(attention_reference(in.q, in.k, in.v, bounds, in.scale)), expected);
      // The reference rounds the scores to 8 bits and the product does not have to; both round the result (2^-8 of it
      // at most).
      EXPECT_LE(relative_error(doubles(out), expected), reference + 0x1p-8);
    }
}

// What one segment holds must not reach the rows of another, not even as NaN or through the choice of a maximum.
TEST(Attention, SegmentsAreIsolated) {
  const Bounds bounds{0, 9, 18, 27, 40, 41};  // three equal ones share a batch; the others do not
  for (const double poison : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 1e30})
    for (size_t poisoned = 0; poisoned + 1 < bounds.size(); ++poisoned)
      for (auto* const function : {&attention, &attention_reference}) {
        SCOPED_TRACE(fmt::format("poison {} in segment {}, seed 31", poison, poisoned));
        const Inputs in = make_inputs(bounds.back(), 20, 31);
        const std::vector<float> before = floats((*function)(in.q, in.k, in.v, bounds, in.scale));
        for (const at::Tensor& x : {in.q, in.k, in.v})
          x.narrow(0, bounds[poisoned], bounds[poisoned + 1] - bounds[poisoned]).fill_(poison);
        const std::vector<float> after = floats((*function)(in.q, in.k, in.v, bounds, in.scale));
        bool changed = false;
        for (size_t i = 0; i < before.size(); ++i) {
          const auto row = static_cast<int64_t>(i) / (heads * 20);
          if (row >= bounds[poisoned] && row < bounds[poisoned + 1])
            changed |= !(after[i] == before[i]);
          else
            ASSERT_EQ(after[i], before[i]) << "row " << row;
        }
        EXPECT_TRUE(changed) << "the poison had no effect at all";
      }
}

// Token i asks for token j alone: the row that comes back says which one it got.
TEST(Attention, RowsComeBackInTheirOwnPlaces) {
  const Bounds bounds{0, 4, 8, 12, 19, 20};
  const int64_t tokens = bounds.back();
  const at::Tensor q = at::zeros({tokens, heads, 32});
  const at::Tensor k = at::zeros({tokens, heads, 32});
  const at::Tensor v = at::zeros({tokens, heads, 32});
  std::vector<int64_t> asked(static_cast<size_t>(tokens * heads));
  for (size_t s = 0; s + 1 < bounds.size(); ++s)
    for (int64_t i = bounds[s]; i < bounds[s + 1]; ++i)
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t length = bounds[s + 1] - bounds[s];
        const int64_t wanted = bounds[s] + (i - bounds[s] + 1 + head) % length;  // differs from head to head
        asked[static_cast<size_t>(i * heads + head)] = wanted;
        q.select(0, i).select(0, head).select(0, wanted).fill_(200);
        k.select(0, i).select(0, head).select(0, i).fill_(1);
        v.select(0, i).select(0, head).select(0, i).fill_(1);
      }
  const at::Tensor out = attention(q, k, v, bounds, 1.0).view({tokens, heads, 32});
  for (int64_t i = 0; i < tokens; ++i)
    for (int64_t head = 0; head < heads; ++head) {
      const std::vector<float> row = floats(out.select(0, i).select(0, head));
      for (int64_t j = 0; j < 32; ++j)
        ASSERT_EQ(row[static_cast<size_t>(j)], asked[static_cast<size_t>(i * heads + head)] == j ? 1.0F : 0.0F)
            << "token " << i << ", head " << head << ", value " << j;
    }
}

TEST(Attention, BoundsThatDoNotCoverTheRowsAreRefused) {
  const Inputs in = make_inputs(8, 16, 32);
  for (const Bounds& bounds : std::vector<Bounds>{
           {}, {0}, {8}, {1, 8}, {0, 7}, {0, 9}, {0, 4, 4, 8}, {0, 5, 3, 8}, {0, -1, 8}, {-8, 0, 8}, {0, 9, 8}})
    for (auto* const function : {&attention, &attention_reference}) {
      SCOPED_TRACE(fmt::format("[{}]", fmt::join(bounds, ", ")));
      expect_error(ErrorCode::internal, "attention: cu_seqlens must rise from 0 to 8 (the rows of q)",
                   [&] { (void)(*function)(in.q, in.k, in.v, bounds, in.scale); });
    }
}

}  // namespace
}  // namespace oriel::ops
