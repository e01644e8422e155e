// The decoder against its formulas in double precision, written out head by head. spec/text.md 1, 5 and 6.
#include "nn/decoder.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "core/expect_error.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::nn {
namespace {

// float32 against double over three layers; see EveryPartMatters for what a wrong formula does.
constexpr double tolerance = 5e-6;

struct LayerTensors {
  at::Tensor attention_norm, attention_out_norm, mlp_norm, mlp_out_norm, query_norm, key_norm;
  at::Tensor q, k, v, q_bias, k_bias, v_bias, proj, gate, up, down;
};

struct Model {
  DecoderSpec spec;
  at::Tensor embeddings, norm, head;
  std::vector<LayerTensors> layers;

  [[nodiscard]] Decoder build() const {
    DecoderWeights weights{embeddings.clone(), {}, norm.clone(), ops::Linear(head.clone(), {})};
    for (const LayerTensors& l : layers) {
      DecoderLayerWeights layer;
      layer.attention_norm = l.attention_norm;
      layer.attention_out_norm = l.attention_out_norm;
      layer.mlp_norm = l.mlp_norm;
      layer.mlp_out_norm = l.mlp_out_norm;
      layer.query_norm = l.query_norm;
      layer.key_norm = l.key_norm;
      layer.qkv = ops::Linear(at::cat({l.q, l.k, l.v}), at::cat({l.q_bias, l.k_bias, l.v_bias}));
      layer.proj = ops::Linear(l.proj.clone(), {});
      layer.gate = ops::Linear(l.gate.clone(), {});
      layer.up = ops::Linear(l.up.clone(), {});
      layer.down = ops::Linear(l.down.clone(), {});
      weights.layers.push_back(std::move(layer));
    }
    return Decoder(spec, std::move(weights));
  }
};

Model plain_model() {
  Model model;
  DecoderSpec& spec = model.spec;
  spec.vocabulary = 13;
  spec.width = 20;
  spec.mlp_width = 28;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.head_dim = 8;
  spec.attention_scale = 0.4;
  spec.layers.resize(3);
  Random random(7);
  spec.rotaries = {{.frequencies = random.normal({4}, 0.5, 1), .axes = {}}};
  const auto weight = [&](int64_t out, int64_t in) {
    return random.normal({out, in}, 1.3 / std::sqrt(static_cast<double>(in)));
  };
  model.embeddings = random.normal({13, 20});
  model.norm = random.normal({20}, 0.2, 1);
  model.head = weight(13, 20);
  for (int layer = 0; layer < 3; ++layer)
    model.layers.push_back({.attention_norm = random.normal({20}, 0.2, 1),
                            .attention_out_norm = random.normal({20}, 0.2, 1),
                            .mlp_norm = random.normal({20}, 0.2, 1),
                            .mlp_out_norm = random.normal({20}, 0.2, 1),
                            .query_norm = random.normal({8}, 0.2, 1),
                            .key_norm = random.normal({8}, 0.2, 1),
                            .q = weight(32, 20),
                            .k = weight(16, 20),
                            .v = weight(16, 20),
                            .q_bias = random.normal({32}, 0.2),
                            .k_bias = random.normal({16}, 0.2),
                            .v_bias = random.normal({16}, 0.2),
                            .proj = weight(20, 32),
                            .gate = weight(28, 20),
                            .up = weight(28, 20),
                            .down = weight(20, 28)});
  return model;
}

/// Sandwich norms, norms of q and k, weights minus one, a window and a second rotary embedding in two layers.
Model sandwich_model() {
  Model model = plain_model();
  DecoderSpec& spec = model.spec;
  spec.norm = DecoderNorm::rms_norm_offset;
  spec.sandwich_norms = spec.query_key_norms = true;
  spec.activation = ops::Activation::gelu_tanh;
  spec.embedding_scale = 3;
  spec.rotaries.push_back({.frequencies = Random(8).normal({4}, 0.5, 1), .axes = {}});
  spec.layers = {{.window = 4, .rotary = 1}, {}, {.window = 4, .rotary = 1}};
  return model;
}

Model three_axes_model() {
  Model model = plain_model();
  model.spec.position_axes = 3;
  model.spec.rotaries[0].axes = {0, 1, 1, 2};
  return model;
}

at::Tensor wide(const at::Tensor& x) { return x.to(at::kDouble); }

at::Tensor rms(const at::Tensor& x, const at::Tensor& weight, const DecoderSpec& spec) {
  const at::Tensor normed = x / (x.square().mean(-1, true) + spec.norm_eps).sqrt();
  return normed * (spec.norm == DecoderNorm::rms_norm ? wide(weight) : wide(weight) + 1);
}

/// x [tokens, head_dim], angles [tokens, head_dim / 2].
at::Tensor turn(const at::Tensor& x, const at::Tensor& angles) {
  const at::Tensor low = x.narrow(1, 0, 4);
  const at::Tensor high = x.narrow(1, 4, 4);
  return at::cat({low * angles.cos() - high * angles.sin(), high * angles.cos() + low * angles.sin()}, 1);
}

struct Sequence {
  std::vector<int64_t> ids;
  at::Tensor positions;  ///< [axes, tokens]
  std::vector<TokenRange> blocks;
};

at::Tensor truth_layer(const Model& model, size_t index, const at::Tensor& hidden, const Sequence& sequence) {
  const DecoderSpec& spec = model.spec;
  const LayerTensors& l = model.layers[index];
  const DecoderLayerSpec& layer = spec.layers[index];
  const RotarySpec& rotary = spec.rotaries[static_cast<size_t>(layer.rotary)];
  const int64_t tokens = hidden.size(0);
  at::Tensor angles = at::zeros({tokens, 4}, at::kDouble);
  for (int64_t k = 0; k < 4; ++k) {
    const int64_t axis = rotary.axes.empty() ? 0 : rotary.axes[static_cast<size_t>(k)];
    angles.select(1, k).copy_(wide(sequence.positions[axis]) * wide(rotary.frequencies)[k]);
  }
  at::Tensor seen = at::zeros({tokens, tokens}, at::kBool);
  for (int64_t i = 0; i < tokens; ++i)
    for (int64_t j = 0; j < tokens; ++j) {
      bool sees = j <= i;
      for (const TokenRange& block : sequence.blocks)
        sees = sees || (std::min(i, j) >= block.begin && std::max(i, j) < block.end);
      if (layer.window > 0) sees = sees && j > i - layer.window;
      if (sees) seen[i][j].fill_(true);
    }
  const at::Tensor normed = rms(hidden, l.attention_norm, spec);
  const auto project = [&](const at::Tensor& weight, const at::Tensor& bias) {
    return at::linear(normed, wide(weight), wide(bias));
  };
  const at::Tensor q = project(l.q, l.q_bias), k = project(l.k, l.k_bias), v = project(l.v, l.v_bias);
  std::vector<at::Tensor> heads;
  for (int64_t h = 0; h < spec.heads; ++h) {
    const int64_t kv = h / (spec.heads / spec.kv_heads);
    at::Tensor query = q.narrow(1, h * 8, 8), key = k.narrow(1, kv * 8, 8);
    if (spec.query_key_norms) query = rms(query, l.query_norm, spec), key = rms(key, l.key_norm, spec);
    at::Tensor scores = turn(query, angles).matmul(turn(key, angles).t()) * spec.attention_scale;
    scores = scores.masked_fill(seen.logical_not(), -std::numeric_limits<double>::infinity());
    heads.push_back(at::softmax(scores, -1).matmul(v.narrow(1, kv * 8, 8)));
  }
  at::Tensor attended = at::linear(at::cat(heads, 1), wide(l.proj));
  if (spec.sandwich_norms) attended = rms(attended, l.attention_out_norm, spec);
  const at::Tensor between = hidden + attended;
  const at::Tensor inner = rms(between, l.mlp_norm, spec);
  const at::Tensor gate = at::linear(inner, wide(l.gate));
  const at::Tensor active = spec.activation == ops::Activation::silu ? at::silu(gate) : at::gelu(gate, "tanh");
  at::Tensor out = at::linear(active * at::linear(inner, wide(l.up)), wide(l.down));
  if (spec.sandwich_norms) out = rms(out, l.mlp_out_norm, spec);
  return between + out;
}

std::vector<double> truth(const Model& model, const Sequence& sequence) {
  at::Tensor hidden =
      wide(model.embeddings).index_select(0, at::tensor(sequence.ids, at::kLong)) * model.spec.embedding_scale;
  for (size_t i = 0; i < model.layers.size(); ++i) hidden = truth_layer(model, i, hidden, sequence);
  return doubles(at::linear(rms(hidden, model.norm, model.spec), wide(model.head)));
}

Sequence sequence_of(const Model& model, int64_t tokens, uint64_t seed) {
  Sequence result{.ids = {}, .positions = at::zeros({model.spec.position_axes, tokens}, at::kLong), .blocks = {}};
  for (int64_t i = 0; i < tokens; ++i) {
    result.ids.push_back(static_cast<int64_t>((seed * 5 + static_cast<uint64_t>(i * i)) % 13));
    for (int64_t axis = 0; axis < model.spec.position_axes; ++axis) result.positions[axis][i].fill_(i + axis * (i % 3));
  }
  return result;
}

std::vector<double> whole(const Model& model, const Sequence& sequence) {
  const Decoder decoder = model.build();
  const DecoderRun run{0, 0, static_cast<int64_t>(sequence.ids.size()), sequence.blocks};
  return doubles(decoder.logits(
      decoder.forward(decoder.embed(at::tensor(sequence.ids, at::kLong)), sequence.positions, {&run, 1}, nullptr)));
}

TEST(Decoder, EqualsTheFormulas) {
  for (const Model& model : {plain_model(), sandwich_model(), three_axes_model()}) {
    Sequence sequence = sequence_of(model, 11, 1);
    EXPECT_LE(relative_error(whole(model, sequence), truth(model, sequence)), tolerance);
    sequence.blocks = {{2, 9}};
    EXPECT_LE(relative_error(whole(model, sequence), truth(model, sequence)), tolerance);
  }
}

TEST(Decoder, EveryPartMatters) {
  const Model model = sandwich_model();
  Sequence sequence = sequence_of(model, 11, 1);
  sequence.blocks = {{2, 9}};
  const std::vector<double> expected = truth(model, sequence);
  const auto changes = [&](const auto& change) {
    Model other = model;
    change(other);
    return relative_error(truth(other, sequence), expected) > 1e-3;
  };
  EXPECT_TRUE(changes([](Model& m) { m.spec.norm = DecoderNorm::rms_norm; }));
  EXPECT_TRUE(changes([](Model& m) { m.spec.sandwich_norms = false; }));
  EXPECT_TRUE(changes([](Model& m) { m.spec.query_key_norms = false; }));
  EXPECT_TRUE(changes([](Model& m) { m.spec.activation = ops::Activation::silu; }));
  EXPECT_TRUE(changes([](Model& m) { m.spec.attention_scale *= 1.1; }));
  EXPECT_TRUE(changes([](Model& m) { m.spec.embedding_scale = 1; }));
  EXPECT_TRUE(changes([](Model& m) { m.spec.layers[2].window = 0; }));
  EXPECT_TRUE(changes([](Model& m) { m.spec.layers[0].rotary = 0; }));
  EXPECT_TRUE(changes([](Model& m) { std::swap(m.layers[0].query_norm, m.layers[0].key_norm); }));
  sequence.blocks.clear();
  EXPECT_GT(relative_error(truth(model, sequence), expected), 1e-3);
  const Model turned = three_axes_model();
  Model unturned = turned;
  unturned.spec.rotaries[0].axes = {};
  const Sequence places = sequence_of(turned, 11, 1);
  EXPECT_GT(relative_error(truth(unturned, places), truth(turned, places)), 1e-3);
}

TEST(Decoder, RunsOfSeveralSequencesThroughTheCacheEqualTheFormulas) {
  for (const Model& model : {plain_model(), sandwich_model(), three_axes_model()}) {
    const Decoder decoder = model.build();
    const KvCache cache(decoder.cache_shape(4, 12), at::kFloat, at::kCPU);
    const std::vector<Sequence> sequences{sequence_of(model, 12, 1), sequence_of(model, 9, 2),
                                          sequence_of(model, 7, 3)};
    const std::vector<int64_t> slots{3, 0, 1};
    // Chunks of each sequence, step by step; 0: it waits. The last steps are one token each.
    const std::vector<std::vector<int64_t>> steps{{5, 0, 3}, {4, 6, 1}, {1, 1, 1}, {1, 1, 1}, {1, 0, 1}, {0, 1, 0}};
    std::vector<std::vector<at::Tensor>> parts(3);
    std::vector<int64_t> done(3);
    for (const auto& step : steps) {
      std::vector<DecoderRun> runs;
      std::vector<at::Tensor> rows, positions;
      for (size_t i = 0; i < 3; ++i) {
        if (step[i] == 0) continue;
        runs.push_back({slots[i], done[i], step[i], {}});
        rows.push_back(decoder.embed(at::tensor(sequences[i].ids, at::kLong).narrow(0, done[i], step[i])));
        positions.push_back(sequences[i].positions.narrow(1, done[i], step[i]));
      }
      const at::Tensor logits = decoder.logits(decoder.forward(at::cat(rows), at::cat(positions, 1), runs, &cache));
      int64_t begin = 0;
      for (size_t i = 0; i < 3; ++i) {
        if (step[i] == 0) continue;
        parts[i].push_back(logits.narrow(0, begin, step[i]));
        begin += step[i];
        done[i] += step[i];
      }
    }
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(done[i], static_cast<int64_t>(sequences[i].ids.size()));
      EXPECT_LE(relative_error(doubles(at::cat(parts[i])), truth(model, sequences[i])), tolerance) << "sequence " << i;
    }
  }
}

// What is not wanted still leaves its keys and values in every layer.
TEST(Decoder, OnlyWantedTokensAreComputedToTheEnd) {
  for (const Model& model : {plain_model(), sandwich_model()}) {
    const Decoder decoder = model.build();
    std::vector<Sequence> sequences{sequence_of(model, 11, 1), sequence_of(model, 9, 2), sequence_of(model, 7, 3)};
    sequences[0].blocks = {{2, 9}};
    std::vector<std::vector<double>> truths;
    for (const Sequence& sequence : sequences) truths.push_back(truth(model, sequence));
    using Wanted = std::vector<std::optional<int64_t>>;
    for (const Wanted& wanted : {Wanted{1, 1, 1}, {0, 3, 0}, {std::nullopt, 0, 2}, {0, 0, 0}, {1, 4, std::nullopt}}) {
      const KvCache cache(decoder.cache_shape(3, 12), at::kFloat, at::kCPU);
      // All but the last token of each, then those, of which the second is not asked for.
      std::vector<at::Tensor> rows, positions, last_rows, last_positions;
      std::vector<DecoderRun> runs, last;
      std::vector<double> expected, expected_last;
      for (size_t i = 0; i < 3; ++i) {
        const auto slot = static_cast<int64_t>(i);
        const auto tokens = static_cast<int64_t>(sequences[i].ids.size()) - 1;
        const at::Tensor all = decoder.embed(at::tensor(sequences[i].ids, at::kLong));
        rows.push_back(all.narrow(0, 0, tokens));
        positions.push_back(sequences[i].positions.narrow(1, 0, tokens));
        runs.push_back({slot, 0, tokens, sequences[i].blocks, wanted[i]});
        last_rows.push_back(all.narrow(0, tokens, 1));
        last_positions.push_back(sequences[i].positions.narrow(1, tokens, 1));
        last.push_back({slot, tokens, 1, {}, i == 1 ? 0 : 1});
        const int64_t count = wanted[i].value_or(tokens);
        const auto at = [&](int64_t token) { return truths[i].begin() + token * 13; };
        expected.insert(expected.end(), at(tokens - count), at(tokens));
        if (i != 1) expected_last.insert(expected_last.end(), at(tokens), at(tokens + 1));
      }
      const at::Tensor hidden = decoder.forward(at::cat(rows), at::cat(positions, 1), runs, &cache);
      ASSERT_EQ(hidden.sizes(), (std::vector{static_cast<int64_t>(expected.size()) / 13, model.spec.width}));
      if (!expected.empty()) {
        EXPECT_LE(relative_error(doubles(decoder.logits(hidden)), expected), tolerance);
      }
      const at::Tensor next = decoder.forward(at::cat(last_rows), at::cat(last_positions, 1), last, &cache);
      EXPECT_LE(relative_error(doubles(decoder.logits(next)), expected_last), tolerance);
    }
  }
}

TEST(Decoder, RunsThatDoNotFitTheCacheAreADefect) {
  const Decoder decoder = plain_model().build();
  const KvCache cache(decoder.cache_shape(2, 6), at::kFloat, at::kCPU);
  const auto refused = [&](const DecoderRun& run, const KvCache* where, const std::string& message) {
    expect_error(ErrorCode::internal, message, [&] {
      (void)decoder.forward(at::zeros({run.tokens, 20}, at::kFloat), at::zeros({1, run.tokens}, at::kLong), {&run, 1},
                            where);
    });
  };
  refused({0, 4, 3, {}}, &cache, "decoder: 3 tokens from 4 do not fit slot 0 of the cache");
  refused({2, 0, 3, {}}, &cache, "decoder: 3 tokens from 0 do not fit slot 2 of the cache");
  refused({0, 1, 3, {}}, nullptr, "decoder: 3 tokens from 1 do not fit slot 0 of the cache");
}

TEST(Decoder, MoreResultsThanTokensAreADefect) {
  const Decoder decoder = plain_model().build();
  for (const int64_t wanted : {4, -1}) {
    const DecoderRun run{.tokens = 3, .blocks = {}, .wanted = wanted};
    expect_error(ErrorCode::internal, "decoder: " + std::to_string(wanted) + " of 3 tokens are wanted", [&] {
      (void)decoder.forward(at::zeros({3, 20}, at::kFloat), at::zeros({1, 3}, at::kLong), {&run, 1}, nullptr);
    });
  }
}

}  // namespace
}  // namespace oriel::nn
