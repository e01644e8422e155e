#include "ops/causal_runs.hpp"

#include <ATen/ops/zeros.h>

#include "core/expect_error.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::ops {
namespace {

using Stretches = std::vector<CausalStretch>;

TEST(CausalRuns, AreCutWhereBlocksBeginAndEnd) {
  const auto cut = [](int64_t queries, int64_t keys, std::vector<TokenRange> blocks) {
    return cut_at_blocks({.query_begin = 100, .key_begin = 7000, .queries = queries, .keys = keys, .blocks = blocks});
  };
  EXPECT_EQ(cut(5, 12, {}), (Stretches{{100, 7000, 5, 12, false}}));
  EXPECT_EQ(cut(10, 10, {{3, 6}}),
            (Stretches{{100, 7000, 3, 3, false}, {103, 7000, 3, 6, true}, {106, 7000, 4, 10, false}}));
  EXPECT_EQ(cut(10, 10, {{0, 4}, {4, 10}}), (Stretches{{100, 7000, 4, 4, true}, {104, 7000, 6, 10, true}}));
  // Blocks before the run, across its beginning, and behind it.
  EXPECT_EQ(cut(4, 10, {{0, 6}}), (Stretches{{100, 7000, 4, 10, false}}));
  EXPECT_EQ(cut(4, 10, {{0, 2}, {5, 8}, {10, 20}}), (Stretches{{100, 7000, 2, 8, true}, {102, 7000, 2, 10, false}}));
  expect_error(ErrorCode::internal, "attention: the block [3, 11) is cut at 10", [&] { (void)cut(10, 10, {{3, 11}}); });
}

// Runs of three sequences in one cache, out of order, against each alone.
TEST(CausalRuns, EachIsAttendedAsAlone) {
  constexpr int64_t heads = 6, kv_heads = 2, head_dim = 16, capacity = 40;
  Random random(5);
  const at::Tensor k = random.normal({3 * capacity, kv_heads, head_dim});
  const at::Tensor v = random.normal({3 * capacity, kv_heads, head_dim});
  const at::Tensor q = random.normal({31, heads + 1, head_dim}).narrow(1, 0, heads);
  const std::vector<CausalRun> runs{
      {0, 2 * capacity, 12, 12, {{2, 9}}}, {12, 0, 1, 30, {}}, {13, capacity, 18, 33, {{20, 33}}}};
  const std::vector<int64_t> windows{0, 5, 0};
  for (const size_t count : {size_t{1}, runs.size()}) {
    const CausalRuns some = make_causal_runs({runs.begin(), runs.begin() + static_cast<std::ptrdiff_t>(count)}, windows,
                                             {heads, kv_heads, head_dim}, at::kFloat, at::kCPU);
    const int64_t queries = runs[count - 1].query_begin + runs[count - 1].queries;
    for (const int64_t window : {0, 5}) {
      const at::Tensor got = causal_attention(q.narrow(0, 0, queries), k, v, some, window, 0.25);
      ASSERT_EQ(got.sizes(), (std::vector<int64_t>{queries, heads * head_dim}));
      for (size_t i = 0; i < count; ++i) {
        const CausalRun& run = runs[i];
        const Visibility seen = make_visibility(run.keys - run.queries, run.queries, window, run.blocks, at::kCPU);
        const at::Tensor alone =
            causal_attention_reference(q.narrow(0, run.query_begin, run.queries), k.narrow(0, run.key_begin, run.keys),
                                       v.narrow(0, run.key_begin, run.keys), seen, 0.25);
        EXPECT_LE(relative_error(doubles(got.narrow(0, run.query_begin, run.queries)), doubles(alone)), 2e-6)
            << "run " << i << ", window " << window;
      }
    }
  }
}

}  // namespace
}  // namespace oriel::ops
