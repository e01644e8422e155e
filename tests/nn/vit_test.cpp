#include "nn/vit.hpp"

#include <ATen/ops/cat.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "nn/vit_truth.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::nn {
namespace {

using ops::Activation;

// float32 against double over at most four blocks: each passes on the roundings of a dozen operations, and values stay
// within a few units. A wrong formula misses by 1e-2 and more (see EveryPartMatters).
constexpr double tolerance = 2e-6;

VitSpec base_spec() {
  VitSpec spec;
  spec.patch_values = 10;
  spec.width = 24;
  spec.heads = 2;
  spec.mlp_width = 14;
  spec.depth = 3;
  spec.feature_layers = {3};
  return spec;
}

struct Tower {
  VitSpec spec;
  VitTensors tensors;
  VitInput input;

  [[nodiscard]] Vit build() const { return Vit(spec, weights()); }

  [[nodiscard]] VitWeights weights() const {
    const auto packed = [](const LinearTensors& layer) { return ops::Linear(layer.weight, layer.bias); };
    const auto joined = [](const std::vector<LinearTensors>& layers) {
      std::vector<at::Tensor> weights;
      std::vector<at::Tensor> biases;
      for (const LinearTensors& layer : layers) {
        weights.push_back(layer.weight);
        if (layer.bias.defined()) biases.push_back(layer.bias);
      }
      return ops::Linear(at::cat(weights), biases.empty() ? at::Tensor() : at::cat(biases));
    };
    VitWeights result{packed(tensors.patch), tensors.before_blocks, tensors.after_blocks, {}};
    for (const BlockTensors& block : tensors.blocks)
      result.blocks.push_back({block.norm1, block.norm2, joined({block.q, block.k, block.v}), packed(block.proj),
                               spec.gated_mlp ? packed(block.gate) : ops::Linear(), packed(block.up),
                               packed(block.down)});
    return result;
  }
};

enum Parts : unsigned { none = 0, rotary = 1, positions = 2, windows = 4, no_biases = 8 };

/// Three pictures of 5, 12 and 1 patches; windows of 2 and 3 patches inside them.
Tower make_tower(VitSpec spec, unsigned parts, uint64_t seed) {
  Random random(seed);
  constexpr int64_t tokens = 18;
  const auto layer = [&](int64_t in, int64_t out) {
    return LinearTensors{random.normal({out, in}, 1 / std::sqrt(static_cast<double>(in))),
                         (parts & no_biases) != 0 ? at::Tensor() : random.normal({out}, 0.5)};
  };
  const auto norm = [&] {
    return NormWeights{random.normal({spec.width}, 0.3, 1),
                       spec.norm == NormKind::layer_norm ? random.normal({spec.width}, 0.3) : at::Tensor()};
  };
  Tower tower;
  tower.tensors.patch = layer(spec.patch_values, spec.width);
  tower.tensors.before_blocks = norm();
  tower.tensors.after_blocks = norm();
  for (int64_t i = 0; i < spec.depth; ++i)
    tower.tensors.blocks.push_back({.norm1 = norm(),
                                    .norm2 = norm(),
                                    .q = layer(spec.width, spec.width),
                                    .k = layer(spec.width, spec.width),
                                    .v = layer(spec.width, spec.width),
                                    .proj = layer(spec.width, spec.width),
                                    .gate = spec.gated_mlp ? layer(spec.width, spec.mlp_width) : LinearTensors{},
                                    .up = layer(spec.width, spec.mlp_width),
                                    .down = layer(spec.mlp_width, spec.width)});
  tower.input.patches = random.normal({tokens, spec.patch_values});
  tower.input.segments = ops::make_segments({0, 5, 17, 18}, {}, at::kCPU);
  if ((parts & positions) != 0) tower.input.positions = random.normal({tokens, spec.width});
  if ((parts & rotary) != 0) {
    const at::Tensor angles = random.normal({tokens, spec.head_dim()}, 2);
    tower.input.rotary = {angles.cos(), angles.sin()};
  }
  if ((parts & windows) != 0) {
    tower.input.window_segments = ops::make_segments({0, 2, 5, 8, 11, 14, 17, 18}, {}, at::kCPU);
    spec.windowed.assign(static_cast<size_t>(spec.depth), true);
    spec.windowed[1] = false;
  }
  tower.spec = std::move(spec);
  return tower;
}

double error_of(const at::Tensor& got, const Matrix& expected) {
  EXPECT_EQ(got.sizes(), (std::vector{expected.rows, expected.columns}));
  return relative_error(doubles(got), expected.values);
}

/// The output and every hidden state against the loops.
void expect_equals_the_loops(const Tower& tower) {
  const std::vector<Matrix> states = hidden_states_in_double(tower.spec, tower.tensors, tower.input);
  std::vector<int64_t> all;
  for (int64_t i = 0; i <= tower.spec.depth; ++i) all.push_back(i);
  const VitOutput out = tower.build().forward(tower.input, all);
  ASSERT_EQ(out.hidden_states.size(), all.size());
  for (size_t i = 0; i < all.size(); ++i)
    EXPECT_LT(error_of(out.hidden_states[i], states[i]), tolerance) << "hidden state " << i;
  EXPECT_LT(error_of(out.features, features_in_double(tower.spec, tower.tensors, states)), tolerance);
}

TEST(Vit, EqualsTheLoopsInEveryCombination) {
  uint64_t seed = 100;
  for (const NormKind norm : {NormKind::layer_norm, NormKind::rms_norm})
    for (const bool gated : {false, true})
      for (const unsigned parts : {unsigned{none}, unsigned{rotary}, unsigned{positions}, unsigned{windows},
                                   rotary | windows, rotary | positions | windows | no_biases})
        for (const bool before : {false, true})
          for (const bool after : {false, true}) {
            VitSpec spec = base_spec();
            spec.norm = norm;
            spec.gated_mlp = gated;
            spec.activation = gated ? Activation::silu : Activation::gelu_tanh;
            spec.norm_before_blocks = before;
            spec.norm_after_blocks = after;
            SCOPED_TRACE(testing::Message()
                         << "seed " << seed << ": norm " << static_cast<int>(norm) << ", gated " << gated << ", parts "
                         << parts << ", norm before " << before << ", after " << after);
            expect_equals_the_loops(make_tower(std::move(spec), parts, seed++));
          }
}

TEST(Vit, EveryActivationAndEpsilonIsUsed) {
  for (const Activation activation : {Activation::gelu_erf, Activation::quick_gelu, Activation::relu})
    for (const double eps : {1e-6, 0.5}) {
      SCOPED_TRACE(testing::Message() << "activation " << static_cast<int>(activation) << ", eps " << eps);
      VitSpec spec = base_spec();
      spec.activation = activation;
      spec.norm_eps = eps;
      expect_equals_the_loops(make_tower(std::move(spec), none, 7));
    }
}

TEST(Vit, OneHeadAndOddWidthsWork) {
  VitSpec spec = base_spec();
  spec.heads = 1;
  spec.width = 22;
  spec.mlp_width = 1;
  spec.patch_values = 1;
  expect_equals_the_loops(make_tower(std::move(spec), rotary | positions, 8));
}

// The tolerance means something only if leaving a part out exceeds it by far.
TEST(Vit, EveryPartMatters) {
  VitSpec spec = base_spec();
  spec.norm_before_blocks = true;
  spec.norm_after_blocks = true;
  const Tower tower = make_tower(std::move(spec), rotary | positions | windows, 9);
  const std::vector<double> whole = doubles(tower.build().forward(tower.input).features);
  const auto difference = [&](auto&& change) {
    Tower other = tower;
    change(other);
    return relative_error(doubles(other.build().forward(other.input).features), whole);
  };
  EXPECT_GT(difference([](Tower& t) { t.input.rotary = {}; }), 1e-2);
  EXPECT_GT(difference([](Tower& t) { t.input.positions = at::Tensor(); }), 1e-2);
  EXPECT_GT(difference([](Tower& t) { t.spec.windowed = {}; }), 1e-2);
  EXPECT_GT(difference([](Tower& t) { t.spec.windowed = {false, true, false}; }), 1e-2);
  EXPECT_GT(difference([](Tower& t) { t.input.segments = ops::make_segments({0, 18}, {}, at::kCPU); }), 1e-3);
  EXPECT_GT(difference([](Tower& t) { t.spec.norm_before_blocks = false; }), 1e-2);
  EXPECT_GT(difference([](Tower& t) { t.spec.norm_after_blocks = false; }), 1e-2);
  EXPECT_GT(difference([](Tower& t) { std::swap(t.tensors.blocks[0].norm1, t.tensors.blocks[0].norm2); }), 1e-2);
  EXPECT_GT(difference([](Tower& t) { t.spec.activation = Activation::silu; }), 1e-3);
}

TEST(Vit, SeveralFeatureLayersStandSideBySide) {
  for (const std::vector<int64_t>& layers : std::vector<std::vector<int64_t>>{{1, 2, 3}, {3, 0}, {2, 2}, {0}}) {
    VitSpec spec = base_spec();
    spec.feature_layers = layers;
    for (const bool after : {false, true}) {
      spec.norm_after_blocks = after;
      SCOPED_TRACE(testing::Message() << layers.size() << " layers from " << layers[0] << ", norm after " << after);
      const Tower tower = make_tower(spec, rotary, 10);
      const std::vector<Matrix> states = hidden_states_in_double(tower.spec, tower.tensors, tower.input);
      EXPECT_LT(
          error_of(tower.build().forward(tower.input).features, features_in_double(tower.spec, tower.tensors, states)),
          tolerance);
    }
  }
}

TEST(Vit, HiddenStatesComeInTheOrderAskedForAndTwiceIfAskedTwice) {
  const Tower tower = make_tower(base_spec(), rotary, 11);
  const Vit vit = tower.build();
  const std::vector<Matrix> states = hidden_states_in_double(tower.spec, tower.tensors, tower.input);
  const std::vector<int64_t> asked{3, 0, 2, 0, 3};
  const std::vector<at::Tensor> got = vit.forward(tower.input, asked).hidden_states;
  ASSERT_EQ(got.size(), asked.size());
  for (size_t i = 0; i < asked.size(); ++i)
    EXPECT_LT(error_of(got[i], states[static_cast<size_t>(asked[i])]), tolerance) << "place " << i;
  EXPECT_TRUE(vit.forward(tower.input).hidden_states.empty());
}

TEST(Vit, HiddenStatesAreNotNormedAfterwards) {
  VitSpec spec = base_spec();
  spec.norm_after_blocks = true;
  const Tower tower = make_tower(std::move(spec), none, 12);
  const VitOutput out = tower.build().forward(tower.input, {3});
  EXPECT_GT(relative_error(doubles(out.hidden_states[0]), doubles(out.features)), 1e-2);
}

/// The callbacks of one run, as (block, blocks).
std::vector<std::pair<int64_t, int64_t>> blocks_run(const Tower& tower, const std::vector<int64_t>& hidden_states) {
  std::vector<std::pair<int64_t, int64_t>> calls;
  (void)tower.build().forward(tower.input, hidden_states,
                              [&](int64_t block, int64_t blocks) { calls.emplace_back(block, blocks); });
  return calls;
}

TEST(Vit, BlocksAfterTheLastLayerAskedForDoNotRun) {
  using Calls = std::vector<std::pair<int64_t, int64_t>>;
  VitSpec spec = base_spec();
  spec.feature_layers = {0, 2};
  Tower tower = make_tower(spec, none, 13);
  EXPECT_EQ(blocks_run(tower, {}), (Calls{{0, 2}, {1, 2}}));
  EXPECT_EQ(blocks_run(tower, {1}), (Calls{{0, 2}, {1, 2}}));
  EXPECT_EQ(blocks_run(tower, {3}), (Calls{{0, 3}, {1, 3}, {2, 3}}));
  tower.spec.feature_layers = {0};
  EXPECT_EQ(blocks_run(tower, {}), Calls{});
}

TEST(Vit, AnExceptionOfTheCallbackStopsTheRun) {
  const Tower tower = make_tower(base_spec(), none, 14);
  const Vit vit = tower.build();
  int calls = 0;
  EXPECT_THROW((void)vit.forward(tower.input, {},
                                 [&](int64_t block, int64_t) {
                                   ++calls;
                                   if (block == 1) throw std::runtime_error("stop");
                                 }),
               std::runtime_error);
  EXPECT_EQ(calls, 2);
  expect_equals_the_loops(tower);
}

// In bfloat16 no exact value is promised, but the float32 result is: a dozen roundings of 2^-8 and less add up in every
// block, at random.
TEST(Vit, InBfloat16StaysNearFloat32) {
  Tower tower = make_tower(base_spec(), rotary | positions, 15);
  const std::vector<double> exact = doubles(tower.build().forward(tower.input).features);
  const auto narrow = [](at::Tensor& x) {
    if (x.defined()) x = x.to(at::kBFloat16);
  };
  const auto narrow_layer = [&](LinearTensors& layer) { narrow(layer.weight), narrow(layer.bias); };
  narrow_layer(tower.tensors.patch);
  for (BlockTensors& block : tower.tensors.blocks) {
    for (LinearTensors* layer : {&block.q, &block.k, &block.v, &block.proj, &block.up, &block.down})
      narrow_layer(*layer);
    for (NormWeights* weights : {&block.norm1, &block.norm2}) narrow(weights->weight), narrow(weights->bias);
  }
  narrow(tower.input.patches);
  narrow(tower.input.positions);
  const at::Tensor features = tower.build().forward(tower.input).features;
  EXPECT_EQ(features.scalar_type(), at::kBFloat16);
  EXPECT_LT(relative_error(doubles(features), exact), 10 * 0x1p-8);
}

}  // namespace
}  // namespace oriel::nn
