// What text architectures make of config.json: defaults, refusals, names, places. Numbers in bulk are compared with
// transformers in tests/text_model.
#include "arch/text_architecture.hpp"

#include <gmock/gmock.h>

#include <cmath>

#include "arch/checkpoint_directory.hpp"
#include "core/expect_error.hpp"
#include "ops/random_tensors.hpp"

namespace oriel::arch {
namespace {

using testing::Each;
using testing::ElementsAre;

std::unique_ptr<TextArchitecture> build(const std::string& config) {
  const CheckpointDirectory directory(config);
  return make_text_architecture(directory.files());
}

TextTraits traits(const std::string& config) { return build(config)->traits(); }

/// `message` follows the directory's path and "/config.json: ".
void expect_refused(ErrorCode code, const std::string& config, const std::string& message) {
  SCOPED_TRACE(config);
  const CheckpointDirectory directory(config);
  expect_error(code, directory.path() + "/config.json: " + message,
               [&] { (void)make_text_architecture(directory.files()); });
}

std::string with_text(const std::string& type, const std::string& text, const std::string& more = "") {
  return R"({"model_type": ")" + type + R"(", "text_config": {)" + text + "}" + more + "}";
}

std::vector<int64_t> windows(const TextTraits& traits) {
  std::vector<int64_t> result;
  for (const nn::DecoderLayerSpec& layer : traits.decoder.layers) result.push_back(layer.window);
  return result;
}

constexpr auto malformed = ErrorCode::malformed_model;
constexpr auto unsupported = ErrorCode::unsupported_model;

TEST(TextRegistry, OnlyModelsThatWriteTextAreKnown) {
  for (const char* type : {"siglip", "qwen3_vl"})
    expect_refused(unsupported, std::string(R"({"model_type": ")") + type + "\"}",
                   "model_type: expected a model that writes text, one of gemma3, llava, mistral3, qwen2_5_vl, "
                   "qwen2_vl, got \"" +
                       std::string(type) + "\"");
}

// spec/text.md 1: class defaults where keys are missing, and what null means.
TEST(TextDefaults, LlamaUnderLlava) {
  const TextTraits llama = traits(R"({"model_type": "llava"})");
  EXPECT_EQ(llama.family, "LLaVA");
  EXPECT_EQ(llama.decoder.vocabulary, 32000);
  EXPECT_EQ(llama.decoder.width, 4096);
  EXPECT_EQ(llama.decoder.mlp_width, 11008);
  EXPECT_EQ(llama.decoder.depth(), 32);
  EXPECT_EQ(llama.decoder.heads, 32);
  EXPECT_EQ(llama.decoder.kv_heads, 32);
  EXPECT_EQ(llama.decoder.head_dim, 128);
  EXPECT_EQ(llama.decoder.norm_eps, 1e-6);
  EXPECT_EQ(llama.max_positions, 2048);
  EXPECT_THAT(windows(llama), Each(0));
  EXPECT_FALSE(llama.tied_head);
  EXPECT_THAT(llama.placeholder_tokens, ElementsAre(32000));
  EXPECT_EQ(traits(with_text("llava", R"("num_attention_heads": 16, "num_key_value_heads": null, "head_dim": null)"))
                .decoder.kv_heads,
            16);
  EXPECT_TRUE(traits(with_text("llava", R"("tie_word_embeddings": true)")).tied_head);
  EXPECT_TRUE(traits(with_text("llava", R"("attention_bias": true)")).projection_bias);
}

TEST(TextDefaults, MistralSlidesWhereTheKeyIsMissing) {
  const TextTraits absent = traits(with_text("llava", R"("model_type": "mistral")"));
  EXPECT_THAT(windows(absent), Each(4096));
  EXPECT_EQ(absent.decoder.kv_heads, 8);
  EXPECT_EQ(absent.decoder.mlp_width, 14336);
  EXPECT_EQ(absent.max_positions, 131072);
  EXPECT_THAT(windows(traits(with_text("mistral3", R"("sliding_window": null)"))), Each(0));
  EXPECT_THAT(windows(traits(with_text("mistral3", R"("sliding_window": 77)"))), Each(77));
  EXPECT_EQ(traits(with_text("mistral3", R"("hidden_size": 5120, "head_dim": 128)")).decoder.head_dim, 128);
}

TEST(TextDefaults, Mistral3WithoutATextConfigIsSmall3) {
  const TextTraits small = traits(R"({"model_type": "mistral3"})");
  EXPECT_EQ(small.family, "Mistral3");
  EXPECT_EQ(small.decoder.width, 5120);
  EXPECT_EQ(small.decoder.mlp_width, 32768);
  EXPECT_EQ(small.decoder.depth(), 40);
  EXPECT_EQ(small.decoder.head_dim, 128);
  EXPECT_EQ(small.decoder.norm_eps, 1e-5);
  EXPECT_EQ(small.decoder.vocabulary, 131072);
  EXPECT_THAT(windows(small), Each(0));
  EXPECT_TRUE(small.tied_head);
  EXPECT_FALSE(traits(R"({"model_type": "mistral3", "tie_word_embeddings": false})").tied_head);
  // theta 1e9: frequency k is 1e9^(-2k / 128).
  EXPECT_NEAR(doubles(small.decoder.rotaries.at(0).frequencies).at(32), std::pow(1e9, -0.5), 1e-9);
}

TEST(TextDefaults, Qwen2FlatAndNested) {
  const TextTraits flat = traits(R"({"model_type": "qwen2_vl"})");
  EXPECT_EQ(flat.family, "Qwen2-VL");
  EXPECT_EQ(flat.decoder.width, 8192);
  EXPECT_EQ(flat.decoder.mlp_width, 29568);
  EXPECT_EQ(flat.decoder.depth(), 80);
  EXPECT_EQ(flat.decoder.heads, 64);
  EXPECT_EQ(flat.decoder.kv_heads, 8);
  EXPECT_EQ(flat.decoder.norm_eps, 1e-5);
  EXPECT_EQ(flat.decoder.vocabulary, 152064);
  EXPECT_EQ(flat.decoder.position_axes, 3);
  EXPECT_TRUE(flat.query_key_value_bias);
  EXPECT_FALSE(flat.projection_bias);
  EXPECT_FALSE(flat.tied_head);
  EXPECT_THAT(flat.placeholder_tokens, ElementsAre(151655, 151656));
  const std::vector<int64_t>& axes = flat.decoder.rotaries.at(0).axes;
  EXPECT_EQ(std::count(axes.begin(), axes.end(), 0), 16);
  EXPECT_EQ(std::count(axes.begin(), axes.end(), 1), 24);
  EXPECT_EQ(std::count(axes.begin(), axes.end(), 2), 24);
  EXPECT_TRUE(std::is_sorted(axes.begin(), axes.end()));
  // head_dim of the file has no meaning: it is width / heads.
  EXPECT_EQ(traits(R"({"model_type": "qwen2_vl", "head_dim": 64})").decoder.head_dim, 128);
  const TextTraits nested =
      traits(with_text("qwen2_5_vl", R"("hidden_size": 1024, "num_attention_heads": 8)", R"(, "hidden_size": 77)"));
  EXPECT_EQ(nested.decoder.width, 1024);
  EXPECT_EQ(nested.family, "Qwen2.5-VL");
}

TEST(TextDefaults, AWindowMayBeWiderThan32BitsCount) {
  for (const int64_t window : {int64_t{1} << 31, (int64_t{1} << 32) + 5, int64_t{1} << 40}) {
    const std::string keys = "\"sliding_window\": " + std::to_string(window);
    EXPECT_THAT(windows(traits(with_text("mistral3", keys))), Each(window));
    EXPECT_EQ(traits(with_text("gemma3", keys)).decoder.layers[0].window, window);
  }
}

TEST(TextDefaults, Qwen2SlidesOnlyWhereAsked) {
  const std::string sizes = R"("num_hidden_layers": 4, "sliding_window": 9)";
  EXPECT_THAT(windows(traits(with_text("qwen2_vl", sizes))), Each(0));
  EXPECT_THAT(windows(traits(with_text("qwen2_vl", sizes + R"(, "use_sliding_window": true)"))), Each(0));
  EXPECT_THAT(windows(traits(with_text("qwen2_vl", sizes + R"(, "use_sliding_window": true, "max_window_layers": 3)"))),
              ElementsAre(0, 0, 0, 9));
  expect_refused(malformed, with_text("qwen2_vl", R"("num_hidden_layers": 1, "layer_types": ["sliding_attention"])"),
                 "text_config.layer_types: expected a sliding_window for its sliding layers, found none");
}

TEST(TextDefaults, Gemma3) {
  const TextTraits gemma = traits(R"({"model_type": "gemma3"})");
  EXPECT_EQ(gemma.family, "Gemma 3");
  EXPECT_EQ(gemma.decoder.vocabulary, 262208);
  EXPECT_EQ(gemma.decoder.width, 2304);
  EXPECT_EQ(gemma.decoder.mlp_width, 9216);
  EXPECT_EQ(gemma.decoder.depth(), 26);
  EXPECT_EQ(gemma.decoder.heads, 8);
  EXPECT_EQ(gemma.decoder.kv_heads, 4);
  EXPECT_EQ(gemma.decoder.head_dim, 256);
  EXPECT_EQ(gemma.decoder.attention_scale, 1.0 / 16);
  EXPECT_EQ(gemma.decoder.embedding_scale, 48);
  EXPECT_EQ(gemma.decoder.activation, ops::Activation::gelu_tanh);
  EXPECT_TRUE(gemma.tied_head);
  for (int64_t i = 0; i < 26; ++i) {
    const nn::DecoderLayerSpec& layer = gemma.decoder.layers[static_cast<size_t>(i)];
    EXPECT_EQ(layer.window, i % 6 == 5 ? 0 : 4096) << i;
    EXPECT_EQ(layer.rotary, i % 6 == 5 ? 0 : 1) << i;
  }
  const auto frequency = [](const TextTraits& t, size_t kind) {
    return doubles(t.decoder.rotaries.at(kind).frequencies).at(64);  // theta^(-1/2)
  };
  EXPECT_NEAR(frequency(gemma, 0), 1e-3, 1e-9);
  EXPECT_NEAR(frequency(gemma, 1), 1e-2, 1e-8);
  const TextTraits released =
      traits(with_text("gemma3", R"("rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024)"));
  EXPECT_NEAR(frequency(released, 0), 1e-3 / 8, 1e-9);
  EXPECT_NEAR(frequency(released, 1), 1e-2, 1e-8);
  EXPECT_EQ(released.decoder.layers[0].window, 1024);
  // As transformers has it, the old name of the key is not heard here.
  EXPECT_NEAR(frequency(traits(with_text("gemma3", R"("rope_scaling": {"factor": 8.0, "type": "linear"})")), 0), 1e-3,
              1e-9);
}

TEST(TextDefaults, StretchedRopeIsAsInTransformers) {
  const Json golden = Json::read(ORIEL_TEST_DATA "/text/rope.json");
  for (const Json& rope : golden["cases"].elements()) {
    const std::string text = rope["text_config"].dump();
    SCOPED_TRACE(text);
    const nn::DecoderSpec decoder = traits(R"({"model_type": "llava", "text_config": )" + text + "}").decoder;
    const std::vector<double> expected = rope["frequencies"].numbers();
    const at::Tensor ours = decoder.rotaries.at(0).frequencies;
    ASSERT_EQ(ours.numel(), static_cast<int64_t>(expected.size()));
    // Both round to float32 a few times.
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(ours.const_data_ptr<float>()[i] / expected[i], 1, 5e-7) << "pair " << i;
    const double factor = rope["factor"].number();
    EXPECT_NEAR(decoder.attention_scale, factor * factor / std::sqrt(128.0), 1e-12);
  }
}

TEST(TextRefusals, TypesThatAreNotRun) {
  expect_refused(unsupported, with_text("llava", R"("model_type": "qwen2")"),
                 "text_config.model_type: expected \"llama\" or \"mistral\", got \"qwen2\"");
  expect_refused(unsupported, with_text("mistral3", R"("model_type": "mixtral")"),
                 "text_config.model_type: expected \"mistral\", got \"mixtral\"");
  expect_refused(unsupported, with_text("gemma3", R"("model_type": "gemma2")"),
                 "text_config.model_type: expected \"gemma3_text\", got \"gemma2\"");
  expect_refused(unsupported, with_text("gemma3", R"("attn_logit_softcapping": 50.0)"),
                 "text_config.attn_logit_softcapping: expected null, got 50");
  expect_refused(unsupported, with_text("gemma3", R"("use_bidirectional_attention": true)"),
                 "text_config.use_bidirectional_attention: expected false, got true");
  for (const char* type : {"gemma3", "llava", "mistral3", "qwen2_vl"})
    expect_refused(
        unsupported, with_text(type, R"("quantization_config": {"quant_method": "fp8"})"),
        "text_config.quantization_config: quantised checkpoints are not supported; use the float checkpoint");
}

TEST(TextRefusals, RopeThatIsNotRun) {
  expect_refused(
      unsupported, with_text("llava", R"("rope_scaling": {"type": "longrope", "factor": 4.0})"),
      "text_config.rope_scaling: expected rope type default, linear, dynamic, yarn or llama3, got \"longrope\"");
  expect_refused(malformed, with_text("llava", R"("rope_scaling": {"type": "yarn", "factor": -4})"),
                 "text_config.rope_scaling.factor: expected a positive number, got -4");
  expect_refused(malformed, with_text("llava", R"("rope_scaling": {"type": "yarn", "factor": 4, "beta_fast": -1})"),
                 "text_config.rope_scaling: expected positive beta_fast and beta_slow, got -1 and 1");
  expect_refused(malformed, with_text("llava", R"("rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 4})"),
                 "text_config.rope_scaling: expected a rope_theta other than 1 for yarn, got 1");
  for (const std::string factor : {"-1.5", "0", "2000"})
    expect_refused(
        malformed,
        with_text("llava", R"("rope_scaling": {"type": "yarn", "factor": 4, "attention_factor": )" + factor + "}"),
        "text_config.rope_scaling.attention_factor: expected a number in [0.001, 1000], got " + factor);
  expect_refused(
      malformed,
      with_text("llava", R"("rope_scaling": {"type": "yarn", "factor": 4, "mscale": -9, "mscale_all_dim": 1})"),
      "text_config.rope_scaling: expected mscale and mscale_all_dim that give an attention factor in [0.001, "
      "1000], got -9 and 1");
  expect_refused(malformed, with_text("llava", R"("rope_scaling": {"type": "linear", "factor": 1e-300})"),
                 "text_config.rope_scaling: expected finite frequencies in float32, got others of rope_theta 10000 and "
                 "{\"type\":\"linear\",\"factor\":1e-300}");
  expect_refused(
      malformed, with_text("llava", R"("rope_theta": 1e-300)"),
      "text_config.rope_parameters: expected finite frequencies in float32, got others of rope_theta 1e-300");
  expect_refused(malformed, with_text("llava", R"("rope_scaling": {"type": "dynamic", "factor": 0})"),
                 "text_config.rope_scaling.factor: expected a positive number, got 0");
  expect_refused(unsupported, R"({"model_type": "qwen2_vl", "rope_scaling": {"type": "dynamic", "factor": 2}})",
                 "rope_scaling: expected rope type default, linear, yarn or llama3, got \"dynamic\"");
  expect_refused(unsupported,
                 with_text("gemma3", R"("rope_scaling": {"rope_type": "yarn", "factor": 8, "attention_factor": 1.5})"),
                 "text_config.rope_scaling: expected yarn with an attention_factor of 1, got 1.5");
  expect_refused(unsupported, with_text("llava", R"("partial_rotary_factor": 0.5)"),
                 "text_config.partial_rotary_factor: expected 1, got 0.5");
  expect_refused(malformed, with_text("llava", R"("rope_scaling": {"type": "linear", "factor": 0})"),
                 "text_config.rope_scaling.factor: expected a positive number, got 0");
  expect_refused(malformed, with_text("llava", R"("rope_theta": -1)"),
                 "text_config.rope_parameters: expected a positive rope_theta, got -1");
  expect_refused(malformed,
                 with_text("llava", R"("rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
                                       "high_freq_factor": 4, "original_max_position_embeddings": 8192})"),
                 "text_config.rope_scaling.high_freq_factor: expected more than low_freq_factor 4, got 4");
  expect_refused(malformed,
                 R"({"model_type": "qwen2_vl", "rope_scaling": {"type": "mrope", "mrope_section": [16, 24]}})",
                 "rope_scaling.mrope_section: expected three numbers with the sum head_dim / 2 = 64, got [16,24]");
  expect_refused(malformed, R"({"model_type": "qwen2_vl", "hidden_size": 512})",
                 "rope_parameters.mrope_section: expected three numbers with the sum head_dim / 2 = 4, got nothing, "
                 "which means [16,24,24]");
}

TEST(TextRefusals, SizesThatMakeNoSense) {
  expect_refused(malformed, with_text("llava", R"("num_key_value_heads": 5)"),
                 "text_config.num_key_value_heads: expected a divisor of num_attention_heads 32, got 5");
  expect_refused(malformed, with_text("llava", R"("head_dim": 5)"),
                 "text_config.head_dim: expected an even number, got 5");
  expect_refused(malformed, with_text("llava", R"("hidden_size": 16)"),
                 "text_config.head_dim: expected an even number, got 0");
  expect_refused(malformed, with_text("llava", R"("vocab_size": 1000000000)"),
                 "text_config.vocab_size: expected an integer in [1, 16777216], got 1000000000");
  expect_refused(malformed, with_text("llava", R"("rms_norm_eps": -1)"),
                 "text_config.rms_norm_eps: expected a small positive number, got -1");
  expect_refused(malformed, with_text("llava", R"("model_type": "mistral", "sliding_window": 1099511627777)"),
                 "text_config.sliding_window: expected an integer in [1, 1099511627776], got 1099511627777");
  expect_refused(malformed, with_text("gemma3", R"("sliding_window": null)"),
                 "text_config.sliding_window: expected a number for the sliding layers, got null");
  expect_refused(malformed, with_text("gemma3", R"("layer_types": ["full_attention"])"),
                 "text_config.layer_types: expected num_hidden_layers = 26 entries, got 1");
  expect_refused(unsupported, with_text("gemma3", R"("num_hidden_layers": 1, "layer_types": ["chunked_attention"])"),
                 "text_config.layer_types[0]: expected sliding_attention or full_attention, got \"chunked_attention\"");
  expect_refused(unsupported, with_text("llava", R"("hidden_act": "xielu")"),
                 "text_config.hidden_act: expected one of gelu, gelu_pytorch_tanh, gelu_new, quick_gelu, silu, relu, "
                 "linear, got \"xielu\"");
}

// The layouts of spec/weights.md 1.
TEST(TextNames, EveryLayoutBecomesTheCanonicalName) {
  const std::vector<std::pair<std::string, std::string>> prefixed{
      {"language_model.model.norm.weight", "language_model.norm.weight"},
      {"model.language_model.norm.weight", "language_model.norm.weight"},
      {"model.language_model.model.norm.weight", "language_model.norm.weight"},
      {"language_model.norm.weight", "language_model.norm.weight"},
      {"language_model.lm_head.weight", "lm_head.weight"},
      {"lm_head.weight", "lm_head.weight"},
      {"vision_tower.ln_pre.weight", ""},
      {"model.vision_tower.ln_pre.weight", ""},
      {"multi_modal_projector.linear_1.bias", ""}};
  const std::vector<std::pair<std::string, std::string>> qwen{
      {"model.norm.weight", "language_model.norm.weight"},
      {"model.layers.3.mlp.up_proj.weight", "language_model.layers.3.mlp.up_proj.weight"},
      {"model.language_model.norm.weight", "language_model.norm.weight"},
      {"lm_head.weight", "lm_head.weight"},
      {"visual.merger.ln_q.weight", ""},
      {"model.visual.merger.ln_q.weight", ""}};
  for (const char* type : {"gemma3", "llava", "mistral3", "qwen2_vl", "qwen2_5_vl"}) {
    const NameRules rules = traits(std::string(R"({"model_type": ")") + type + "\"}").names;
    for (const auto& [name, canonical] : std::string(type).starts_with("qwen") ? qwen : prefixed) {
      EXPECT_EQ(rules.is_wanted(name), !canonical.empty()) << type << ": " << name;
      EXPECT_TRUE(canonical.empty() || rules.canonical(name) == canonical) << type << ": " << rules.canonical(name);
    }
  }
}

// ---- places

VisionRun run(int64_t begin, const Grid& grid, int64_t rows, double seconds = 0) {
  return {.tokens = {begin, begin + rows},
          .first_row = 0,
          .all_rows = rows,
          .grid = grid,
          .seconds_per_slot = seconds,
          .name = "\"<p>\""};
}

TEST(TextPositions, SecondsOfAVideoAreCutBeforeTheyAreMultiplied) {
  const auto rate = build(R"({"model_type": "qwen2_5_vl", "vision_config": {"tokens_per_second": 2}})");
  const auto last_time = [&](const TextArchitecture& architecture, double seconds) {
    return architecture.positions(9, std::vector{run(1, {3, 2, 4}, 6, seconds)})[0][6].item<int64_t>();
  };
  EXPECT_EQ(last_time(*rate, 1.0), 1 + 2 * 2);
  EXPECT_EQ(last_time(*rate, 1.99), 1 + 2 * 2);
  EXPECT_EQ(last_time(*rate, 0.99), 1);
  EXPECT_EQ(last_time(*rate, 2 / 0.66666666667), 1 + 2 * 2 * 3);  // float32 rounds it up to 3
  EXPECT_EQ(last_time(*build(R"({"model_type": "qwen2_vl"})"), 5.0), 1 + 2);
}

TEST(TextPositions, RunsWithoutAPlaceAreRefused) {
  const auto qwen = build(R"({"model_type": "qwen2_vl"})");
  const auto refused = [&](VisionRun bad, const std::string& message) {
    expect_error(ErrorCode::invalid_argument, "embedding \"<p>\": expected " + message,
                 [&] { (void)qwen->positions(20, std::vector{bad}); });
  };
  refused(run(0, {1, 0, 0}, 4), "a grid of 4 rows after merging 2 x 2 patches, got [1, 0, 0]");
  refused(run(0, {1, 4, 6}, 4), "a grid of 4 rows after merging 2 x 2 patches, got [1, 4, 6]");
  refused(run(0, {1, 5, 4}, 4), "a grid of 4 rows after merging 2 x 2 patches, got [1, 5, 4]");
  refused(run(0, {int64_t{1} << 40, int64_t{1} << 20, int64_t{1} << 20}, 4),
          "a grid of 4 rows after merging 2 x 2 patches, got [1099511627776, 1048576, 1048576]");
  VisionRun part = run(2, {1, 4, 4}, 4);
  part.tokens = {2, 4};
  refused(part, "the ids of its 4 rows together and in order, got 2 from row 0 on at id 2");
  part.first_row = 2;
  refused(part, "the ids of its 4 rows together and in order, got 2 from row 2 on at id 2");
  const auto timed = build(R"({"model_type": "qwen2_5_vl"})");
  expect_error(ErrorCode::invalid_argument, "embedding \"<p>\": expected 0 to 1000000 seconds per slot, got -1", [&] {
    (void)timed->positions(20, std::vector{run(0, {2, 4, 4}, 8, -1)});
  });
}

TEST(TextBlocks, AreRunsOfPictureTokens) {
  const auto gemma = build(R"({"model_type": "gemma3", "image_token_index": 9})");
  const std::vector<int64_t> ids{1, 100, 101, 102, 103, 5, 9, 9, 1, 104};
  // Two pictures without a token between them are one block; typed placeholders are one too.
  const std::vector<VisionRun> runs{run(1, {}, 2), run(3, {}, 2), run(9, {}, 1)};
  EXPECT_THAT(gemma->blocks(ids, runs), ElementsAre(nn::TokenRange{1, 5}, nn::TokenRange{6, 8}, nn::TokenRange{9, 10}));
  EXPECT_TRUE(build(R"({"model_type": "llava"})")->blocks(ids, runs).empty());
}

// ---- weights

std::vector<ZeroTensor> tiny_tensors() {
  std::vector<ZeroTensor> tensors{{"language_model.model.embed_tokens.weight", {11, 8}},
                                  {"language_model.model.norm.weight", {8}}};
  const std::string layer = "language_model.model.layers.0.";
  for (const char* name : {"input_layernorm", "post_attention_layernorm"})
    tensors.push_back({layer + name + ".weight", {8}});
  for (const char* name : {"q_proj", "o_proj"}) tensors.push_back({layer + "self_attn." + name + ".weight", {8, 8}});
  for (const char* name : {"k_proj", "v_proj"}) tensors.push_back({layer + "self_attn." + name + ".weight", {4, 8}});
  for (const char* name : {"gate_proj", "up_proj"}) tensors.push_back({layer + "mlp." + name + ".weight", {6, 8}});
  tensors.push_back({layer + "mlp.down_proj.weight", {8, 6}});
  return tensors;
}

std::string tiny_config(bool tied) {
  return with_text("llava",
                   R"("vocab_size": 11, "hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 1,
                      "num_attention_heads": 4, "num_key_value_heads": 2)",
                   std::string(R"(, "tie_word_embeddings": )") + (tied ? "true" : "false"));
}

struct Loaded {
  nn::DecoderWeights weights;
  size_t unused = 0;
};

Loaded load(const std::vector<ZeroTensor>& tensors, bool tied) {
  CheckpointDirectory directory(tiny_config(tied));
  directory.write_tensors(tensors);
  const auto architecture = make_text_architecture(directory.files());
  const NameRules& rules = architecture->traits().names;
  WeightReader reader(
      CheckpointFiles::open(directory.path(), [&](std::string_view name) { return rules.is_wanted(name); }), rules,
      {.part = "the text model"});
  Loaded result{load_decoder(reader, architecture->traits()), 0};
  reader.finish();
  result.unused = reader.unused().size();
  return result;
}

TEST(TextWeights, OneTensorServesBothEndsWhereItIsTied) {
  const auto tensors = tiny_tensors();
  EXPECT_FALSE(load(tensors, true).weights.head.is_packed());
  auto both = tensors;
  both.push_back({"language_model.lm_head.weight", {11, 8}});  // equal: zeros
  const Loaded tied = load(both, true);
  EXPECT_FALSE(tied.weights.head.is_packed());
  EXPECT_EQ(tied.unused, 0U);
  auto only_head = tensors;
  only_head[0].name = "language_model.lm_head.weight";
  EXPECT_TRUE(load(only_head, true).weights.embeddings.defined());
}

TEST(TextWeights, WhatIsMissingOrUnfitIsListed) {
  const auto refused = [](std::vector<ZeroTensor> tensors, const std::string& message) {
    try {
      (void)load(tensors, false);
      ADD_FAILURE() << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), malformed);
      EXPECT_THAT(error.what(), testing::EndsWith(": tensors of the text model do not fit config.json: " + message));
    }
  };
  auto tensors = tiny_tensors();
  refused(tensors, "1 missing: lm_head.weight");
  tensors.push_back({"lm_head.weight", {11, 8}});
  EXPECT_TRUE(load(tensors, false).weights.head.defined());
  auto deeper = tensors;
  deeper.push_back({"model.language_model.layers.1.input_layernorm.weight", {8}});
  refused(deeper,
          "1 unfit: model.language_model.layers.1.input_layernorm.weight: a layer beyond num_hidden_layers = 1");
  auto wrong = tensors;
  for (ZeroTensor& tensor : wrong)
    if (tensor.name.ends_with("k_proj.weight")) tensor.shape = {8, 8};
  wrong.erase(wrong.begin() + 1);
  refused(wrong,
          "1 missing: language_model.norm.weight; 1 unfit: language_model.model.layers.0.self_attn.k_proj.weight: "
          "expected [4, 8], got [8, 8]");
}

}  // namespace
}  // namespace oriel::arch
