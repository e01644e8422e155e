// What reads prompts on a GPU against the definition: rotation of many tokens, attention of runs, and whole decoders.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "kernels/random_on_gpu.hpp"
#include "nn/decoder.hpp"
#include "ops/causal_runs.hpp"
#include "ops/cuda/causal_attention.hpp"
#include "ops/decode.hpp"
#include "ops/device.hpp"
#include "ops/rotary.hpp"

namespace oriel::ops {
namespace {

class PrefillOnGpu : public RandomOnGpu {
 protected:
  /// What rounding the weights of the softmax and the result costs, each half a unit in the last place, norm over norm.
  /// Sums are in float32.
  static double tolerance(at::ScalarType dtype) {
    if (dtype == at::kBFloat16) return 5e-3;
    return dtype == at::kHalf ? 7e-4 : 1e-5;
  }
};

// As many tokens as no grid's second dimension has, and heads of every length that a piece of memory divides otherwise.
TEST_F(PrefillOnGpu, RotatesInPlaceAndIntoTheCacheBitForBit) {
  constexpr int64_t heads = 3, kv_heads = 1;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const auto& [tokens, head_dim] : {std::pair<int64_t, int64_t>{70'000, 16},
                                           {3000, 128},
                                           {257, 80},
                                           {33, 256},
                                           {33, 24},
                                           {5, 6},
                                           {5, 254},
                                           {1, 64}}) {
      SCOPED_TRACE(std::to_string(tokens) + " tokens, heads of " + std::to_string(head_dim));
      const at::Tensor qkv = draw({tokens, heads + 2 * kv_heads, head_dim}, dtype).cuda();
      const at::Tensor positions = at::arange(tokens, at::kLong).unsqueeze(0) * 3;
      const at::Tensor frequencies = inverse_frequencies(10000, head_dim).cuda();
      const Rotary wide_rotary = token_rotary(positions, frequencies, {});
      const at::Tensor expected = qkv.clone();
      rotate_in_place(expected.narrow(1, 0, heads + kv_heads),
                      {wide_rotary.cos.to(dtype), wide_rotary.sin.to(dtype), {}}, RotaryPrecision::working);
      const at::Tensor turns = token_turns(positions.cuda(), frequencies, {});
      const at::Tensor alone = qkv.clone();
      rotate_and_store(alone, turns, {}, heads, {});
      EXPECT_TRUE(alone.equal(expected));

      // Into the second of two slots, behind five tokens that are there.
      const at::Tensor keys = at::full({2, tokens + 6, kv_heads, head_dim}, 7, qkv.options());
      const at::Tensor values = keys.clone();
      const at::Tensor places = at::stack({at::full({tokens}, 1, at::kLong), at::arange(tokens, at::kLong) + 6});
      rotate_and_store(qkv, turns, {}, heads, {keys, values, places.cuda()});
      EXPECT_TRUE(qkv.narrow(1, 0, heads).equal(expected.narrow(1, 0, heads)));
      EXPECT_TRUE(keys[1].narrow(0, 5, tokens).equal(expected.narrow(1, heads, kv_heads)));
      EXPECT_TRUE(values[1].narrow(0, 5, tokens).equal(expected.narrow(1, heads + kv_heads, kv_heads)));
      for (const at::Tensor& all : {keys, values}) {
        EXPECT_TRUE((all[0] == 7).all().item<bool>());
        EXPECT_TRUE((all[1].narrow(0, 0, 5) == 7).all().item<bool>());
        EXPECT_TRUE((all[1].narrow(0, tokens + 5, 1) == 7).all().item<bool>());
      }
    }
}

/// Packed queries, and keys in slots of a cache.
struct Packed {
  DecodeShape shape;
  at::Tensor q, k, v;

  Packed(const DecodeShape& shape_, int64_t queries, int64_t rows, at::ScalarType dtype) : shape(shape_) {
    const auto draw = [&](std::vector<int64_t> sizes) { return at::randn(sizes, at::kFloat).to(dtype).cuda(); };
    q = draw({queries, shape.heads + 2 * shape.kv_heads, shape.head_dim}).narrow(1, 0, shape.heads);
    k = draw({rows, shape.kv_heads, shape.head_dim});
    v = draw({rows, shape.kv_heads, shape.head_dim});
  }
  [[nodiscard]] at::Tensor attend(const std::vector<CausalRun>& runs, int64_t window, double scale) const {
    const CausalRuns all = make_causal_runs(runs, {&window, 1}, shape, q.scalar_type(), q.device());
    const bool is_short = q.scalar_type() != at::kFloat;
    const bool is_own_head = shape.head_dim == 64 || shape.head_dim == 128 || shape.head_dim == 256;
    EXPECT_EQ(all.visibility.empty(), is_short) << "16-bit types have kernels";
    EXPECT_EQ(!all.tiles.empty(), is_short && is_own_head && compute_capability(q.device()) == 90) << "oriel's kernel";
    return causal_attention(q, k, v, all, window, scale);
  }
  /// By libtorch's kernel, also where oriel has one.
  [[nodiscard]] at::Tensor attend_by_flash(const std::vector<CausalRun>& runs, int64_t window, double scale) const {
    const CausalRuns all{runs, {}, cuda::place_stretches(runs, q.device()), {}};
    return causal_attention(q, k, v, all, window, scale);
  }
  /// In double precision.
  [[nodiscard]] at::Tensor truth(const CausalRun& run, int64_t window, double scale) const {
    const auto wide = [](const at::Tensor& x, int64_t first, int64_t count) {
      return x.narrow(0, first, count).to(at::kDouble);
    };
    const Visibility seen = make_visibility(run.keys - run.queries, run.queries, window, run.blocks, at::kCPU);
    return causal_attention_reference(wide(q, run.query_begin, run.queries), wide(k, run.key_begin, run.keys),
                                      wide(v, run.key_begin, run.keys), seen, scale)
        .cpu();
  }
};

/// Runs of tokens (queries, keys), each in the next slot of `capacity` rows but one.
std::vector<CausalRun> runs_of(const std::vector<std::pair<int64_t, int64_t>>& sizes, int64_t capacity) {
  std::vector<CausalRun> runs;
  int64_t queries = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    const auto slot = static_cast<int64_t>(sizes.size() - 1 - i) * 2;
    runs.push_back({queries, slot * capacity, sizes[i].first, sizes[i].second, {}});
    queries += sizes[i].first;
  }
  return runs;
}

TEST_F(PrefillOnGpu, AttentionOfRunsEqualsTheDefinition) {
  const std::vector<std::vector<std::pair<int64_t, int64_t>>> calls{
      {{1, 1}},      {{2, 2}},       {{1, 777}},         {{129, 129}},
      {{500, 1200}}, {{3000, 3000}}, {{1, 1}, {1, 300}}, {{64, 64}, {1, 515}, {200, 201}, {63, 600}, {1, 1}}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const DecodeShape& shape : {DecodeShape{4, 4, 64},
                                     {7, 1, 128},
                                     {8, 1, 64},
                                     {6, 2, 128},
                                     {15, 3, 80},
                                     {8, 2, 96},
                                     {4, 1, 256},
                                     {6, 3, 8},
                                     {28, 4, 128}})
      for (const auto& sizes : calls) {
        int64_t capacity = 3;
        for (const auto& [queries, keys] : sizes) capacity = std::max(capacity, keys + 3);
        if (sizes[0].first > 1000 && (shape.heads > 8 || shape.head_dim != 128)) continue;  // for time's sake
        const std::vector<CausalRun> runs = runs_of(sizes, capacity);
        const Packed packed(shape, runs.back().query_begin + runs.back().queries,
                            2 * static_cast<int64_t>(sizes.size()) * capacity, dtype);
        for (const int64_t window : {0, 1, 100, 5000}) {
          SCOPED_TRACE(std::to_string(sizes.size()) + " runs, the first of " + std::to_string(sizes[0].first) + ", " +
                       std::to_string(shape.heads) + "/" + std::to_string(shape.kv_heads) + " heads of " +
                       std::to_string(shape.head_dim) + ", window " + std::to_string(window));
          const at::Tensor out = packed.attend(runs, window, 0.1);
          ASSERT_EQ(out.sizes(), (std::vector<int64_t>{packed.q.size(0), shape.heads * shape.head_dim}));
          for (const CausalRun& run : runs)
            EXPECT_LT(distance(out.narrow(0, run.query_begin, run.queries), packed.truth(run, window, 0.1)),
                      tolerance(dtype));
          if (dtype == at::kFloat) continue;
          const at::Tensor by_flash = packed.attend_by_flash(runs, window, 0.1);
          EXPECT_LT(distance(by_flash, out.to(at::kCPU).to(at::kDouble)), 2 * tolerance(dtype)) << "by libtorch";
        }
      }
}

TEST_F(PrefillOnGpu, BlocksAreSeenInBothDirections) {
  const DecodeShape shape{8, 4, 256};
  std::vector<CausalRun> runs = runs_of({{700, 900}, {40, 40}, {1, 90}, {300, 300}}, 1000);
  runs[0].blocks = {{10, 60}, {250, 506}, {506, 600}, {899, 900}};
  runs[1].blocks = {{0, 40}};
  runs[2].blocks = {{3, 80}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const Packed packed(shape, 1041, 7000, dtype);
    for (const int64_t window : {0, 1, 100, 5000}) {
      const at::Tensor out = packed.attend(runs, window, 0.1);
      for (size_t i = 0; i < runs.size(); ++i)
        EXPECT_LT(distance(out.narrow(0, runs[i].query_begin, runs[i].queries), packed.truth(runs[i], window, 0.1)),
                  tolerance(dtype))
            << "run " << i << ", window " << window;
      if (dtype == at::kFloat) continue;
      const at::Tensor by_flash = packed.attend_by_flash(runs, window, 0.1);
      EXPECT_LT(distance(by_flash, out.to(at::kCPU).to(at::kDouble)), 2 * tolerance(dtype))
          << "by libtorch, window " << window;
    }
  }
}

TEST_F(PrefillOnGpu, WindowsWiderThan32BitsCountHideNothing) {
  for (const int64_t head_dim : {64, 80}) {
    std::vector<CausalRun> runs = runs_of({{300, 700}, {1, 2000}, {130, 130}}, 2003);
    runs[2].blocks = {{20, 90}};
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const Packed packed({4, 2, head_dim}, 431, 6 * 2003, dtype);
      for (const int64_t window : {int64_t{1} << 31, (int64_t{1} << 32) + 5, int64_t{1} << 40}) {
        EXPECT_TRUE(packed.attend(runs, window, 0.1).equal(packed.attend(runs, 0, 0.1))) << "window " << window;
        if (dtype == at::kFloat) continue;
        EXPECT_TRUE(packed.attend_by_flash(runs, window, 0.1).equal(packed.attend_by_flash(runs, 0, 0.1)))
            << "window " << window << ", by libtorch";
      }
    }
  }
}

// A job's answer may not depend on what is read beside it; what is behind its tokens, another left there.
TEST_F(PrefillOnGpu, ARunsBitsDependOnThatRunAlone) {
  const DecodeShape shape{14, 2, 128};
  std::vector<CausalRun> runs = runs_of({{300, 700}, {1, 2000}, {130, 130}, {1, 1}}, 2003);
  runs[2].blocks = {{20, 90}};
  const Packed packed(shape, 432, 8 * 2003, at::kBFloat16);
  for (const CausalRun& run : runs)
    for (const at::Tensor& all : {packed.k, packed.v})
      all.narrow(0, run.key_begin + run.keys, 2003 - run.keys).fill_(std::numeric_limits<float>::quiet_NaN());
  for (const auto& attend : {&Packed::attend, &Packed::attend_by_flash})
    for (const int64_t window : {0, 64}) {
      const at::Tensor together = (packed.*attend)(runs, window, 0.1);
      EXPECT_TRUE(together.isfinite().all().item<bool>());
      for (size_t i = 0; i < runs.size(); ++i) {
        Packed own = packed;
        own.q = packed.q.narrow(0, runs[i].query_begin, runs[i].queries);
        CausalRun alone = runs[i];
        alone.query_begin = 0;
        EXPECT_TRUE((own.*attend)({alone}, window, 0.1).equal(together.narrow(0, runs[i].query_begin, runs[i].queries)))
            << "run " << i << ", window " << window << (attend == &Packed::attend ? "" : ", by libtorch");
      }
    }
}

/// Two layers of random weights, on the CPU in float32.
struct Model {
  nn::DecoderSpec spec;
  at::Tensor embeddings, norm, head;
  std::vector<std::vector<at::Tensor>> layers;

  Model(int64_t heads, int64_t kv_heads, int64_t head_dim, bool gemma) {
    constexpr int64_t width = 64, mlp_width = 96;
    spec.vocabulary = 50;
    spec.width = width;
    spec.mlp_width = mlp_width;
    spec.heads = heads;
    spec.kv_heads = kv_heads;
    spec.head_dim = head_dim;
    spec.attention_scale = 1 / std::sqrt(static_cast<double>(head_dim));
    spec.rotaries = {{.frequencies = inverse_frequencies(10000, head_dim), .axes = {}}};
    spec.layers = {{.window = gemma ? 40 : 0, .rotary = 0}, {}};
    spec.query_key_norms = spec.sandwich_norms = gemma;
    if (gemma) spec.norm = nn::DecoderNorm::rms_norm_offset;
    const auto weight = [](int64_t out, int64_t in) {
      return at::randn({out, in}, at::kFloat) / std::sqrt(static_cast<double>(in));
    };
    const auto scale = [](int64_t n) { return at::randn({n}, at::kFloat) * 0.2 + 1; };
    embeddings = at::randn({50, width}, at::kFloat);
    norm = scale(width);
    head = weight(50, width);
    for (int layer = 0; layer < 2; ++layer)
      layers.push_back({scale(width), scale(width), scale(width), scale(width), scale(head_dim), scale(head_dim),
                        weight((heads + 2 * kv_heads) * head_dim, width),
                        at::randn({(heads + 2 * kv_heads) * head_dim}) * 0.2, weight(width, heads * head_dim),
                        weight(mlp_width, width), weight(mlp_width, width), weight(width, mlp_width)});
  }
  /// Weights rounded to `dtype`, kept and computed with in `computed`.
  [[nodiscard]] nn::Decoder build(at::ScalarType dtype, at::ScalarType computed, c10::Device device) const {
    const auto put = [&](const at::Tensor& x) { return x.to(dtype).to(computed).to(device); };
    nn::DecoderWeights weights{put(embeddings), {}, put(norm), Linear(put(head), {})};
    for (const std::vector<at::Tensor>& l : layers) {
      nn::DecoderLayerWeights layer;
      layer.attention_norm = put(l[0]);
      layer.mlp_norm = put(l[1]);
      layer.attention_out_norm = put(l[2]);
      layer.mlp_out_norm = put(l[3]);
      layer.query_norm = put(l[4]);
      layer.key_norm = put(l[5]);
      layer.qkv = Linear(put(l[6]), put(l[7]));
      layer.proj = Linear(put(l[8]), {});
      layer.gate = Linear(put(l[9]), {});
      layer.up = Linear(put(l[10]), {});
      layer.down = Linear(put(l[11]), {});
      weights.layers.push_back(std::move(layer));
    }
    return {spec, std::move(weights)};
  }
};

/// Logits of two sequences of 150 and 90 tokens, read in chunks side by side; of one chunk each: whole. With `wanted`,
/// of so many last tokens of the last chunk of each.
at::Tensor read(const nn::Decoder& decoder, const std::vector<std::vector<int64_t>>& chunks, bool with_cache,
                const std::vector<TokenRange>& blocks, std::optional<int64_t> wanted = {}) {
  const c10::Device device = decoder.embeddings().device();
  const nn::KvCache cache(decoder.cache_shape(3, 160), decoder.embeddings().scalar_type(), device);
  std::vector<at::Tensor> results[2];
  int64_t done[2] = {0, 0};
  const int64_t lengths[2] = {150, 90};
  for (const std::vector<int64_t>& chunk : chunks) {
    std::vector<nn::DecoderRun> runs;
    std::vector<at::Tensor> ids, positions;
    for (size_t i = 0; i < 2; ++i) {
      if (chunk[i] == 0) continue;
      runs.push_back({static_cast<int64_t>(2 - 2 * i), done[i], chunk[i], i == 0 ? blocks : std::vector<TokenRange>()});
      positions.push_back(at::arange(done[i], done[i] + chunk[i], at::kLong).unsqueeze(0));
      ids.push_back((positions.back()[0].square() * 7 + static_cast<int64_t>(i)).remainder(50));
      done[i] += chunk[i];
      if (wanted) runs.back().wanted = done[i] == lengths[i] ? *wanted : 0;
    }
    const at::Tensor hidden =
        decoder.forward(decoder.embed(at::cat(ids)), at::cat(positions, 1), runs, with_cache ? &cache : nullptr);
    if (hidden.size(0) == 0) continue;
    const at::Tensor logits = decoder.logits(hidden);
    int64_t begin = 0;
    for (const nn::DecoderRun& run : runs) {
      const int64_t count = run.wanted.value_or(run.tokens);
      results[run.slot == 2 ? 0 : 1].push_back(logits.narrow(0, begin, count));
      begin += count;
    }
  }
  return at::cat({at::cat(results[0]), at::cat(results[1])}).cpu();
}

// The truth has the same weights, rounded likewise, in float32 on the CPU. There are some thirty roundings in a row, of
// half a unit in the last place at most, and products average them: ten units are allowed. Float32 has sums of some
// hundred terms in another order.
TEST_F(PrefillOnGpu, DecodersReadPromptsAsOnTheCpu) {
  const std::vector<std::vector<int64_t>> whole{{150, 90}};
  const std::vector<std::vector<int64_t>> chunked{{60, 33}, {70, 1}, {1, 1}, {1, 0}, {18, 55}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const bool gemma : {false, true})
      for (const int64_t head_dim : {64, 128, 80, 12}) {  // oriel's attention, libtorch's, none but the ops
        SCOPED_TRACE(std::string(toString(dtype)) + (gemma ? ", norms and windows, " : ", ") + "heads of " +
                     std::to_string(head_dim));
        const Model model(6, 2, head_dim, gemma);
        const std::vector<TokenRange> blocks =
            gemma ? std::vector<TokenRange>{{5, 58}, {60, 120}} : std::vector<TokenRange>();
        const at::Tensor truth = wide(read(model.build(dtype, at::kFloat, at::kCPU), whole, false, blocks));
        const nn::Decoder decoder = model.build(dtype, dtype, c10::Device(at::kCUDA, 0));
        // Two layers of roundings; 5.3e-3 was seen for two rows of float16, and bfloat16 has three bits less.
        const double allowed = dtype == at::kFloat ? 2e-5 : dtype == at::kHalf ? 8e-3 : 6e-2;
        EXPECT_LT(distance(read(decoder, whole, false, blocks), truth), allowed) << "without a cache";
        EXPECT_LT(distance(read(decoder, whole, true, blocks), truth), allowed) << "whole";
        EXPECT_LT(distance(read(decoder, chunked, true, blocks), truth), allowed) << "chunked";
        const at::Tensor last = at::cat({truth.narrow(0, 149, 1), truth.narrow(0, 239, 1)});
        EXPECT_LT(distance(read(decoder, whole, false, blocks, 1), last), allowed) << "the last without a cache";
        EXPECT_LT(distance(read(decoder, chunked, true, blocks, 1), last), allowed) << "the last, chunked";
      }
}

}  // namespace
}  // namespace oriel::ops
