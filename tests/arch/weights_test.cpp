#include "arch/weights.hpp"

#include <algorithm>
#include <stdexcept>

#include "arch/checkpoint_directory.hpp"
#include "core/expect_error.hpp"

namespace oriel::arch {
namespace {

const NameRules rules{.prefixes = {{"model.tower.", "tower."}, {"tower.inner.", "tower."}}, .wanted = {"tower."}};

WeightReader reader_of(const CheckpointDirectory& directory, WeightReader::Options options = {}) {
  return {CheckpointFiles::open(directory.path(), [](std::string_view name) { return rules.is_wanted(name); }), rules,
          std::move(options)};
}

// ---- names

// The layouts of spec/weights.md 1, family by family.
TEST(NameRules, EveryLayoutBecomesTheCanonicalName) {
  const std::string pixtral_config =
      R"("vision_config": {"model_type": "pixtral"}, "vision_feature_select_strategy": "full"})";
  const std::vector<std::pair<std::string, std::string>> llava_names{
      {"vision_tower.ln_pre.weight", "vision_tower.ln_pre.weight"},
      {"model.vision_tower.ln_pre.weight", "vision_tower.ln_pre.weight"},
      {"multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"},
      {"model.multi_modal_projector.linear_1.bias", "multi_modal_projector.linear_1.bias"},
      {"language_model.model.norm.weight", ""},
      {"model.language_model.norm.weight", ""},
      {"language_model.lm_head.weight", ""},
      {"lm_head.weight", ""}};
  const std::vector<std::pair<std::string, std::string>> qwen_names{
      {"visual.merger.ln_q.weight", "visual.merger.ln_q.weight"},
      {"model.visual.merger.ln_q.weight", "visual.merger.ln_q.weight"},
      {"model.embed_tokens.weight", ""},
      {"model.language_model.norm.weight", ""},
      {"lm_head.weight", ""}};
  const std::vector<std::pair<std::string, std::string>> siglip_names{
      {"vision_model.post_layernorm.bias", "post_layernorm.bias"},
      {"post_layernorm.bias", "post_layernorm.bias"},
      {"vision_model.embeddings.position_embedding.weight", "embeddings.position_embedding.weight"},
      {"vision_model.encoder.layers.11.mlp.fc1.bias", "encoder.layers.11.mlp.fc1.bias"},
      {"text_model.encoder.layers.0.mlp.fc1.bias", ""},
      {"text_model.embeddings.token_embedding.weight", ""},
      {"logit_scale", ""}};
  const std::vector<std::pair<std::string, std::vector<std::pair<std::string, std::string>>>> families{
      {R"({"model_type": "llava", )" + pixtral_config, llava_names},
      {R"({"model_type": "mistral3"})", llava_names},
      {R"({"model_type": "gemma3", "vision_config": {"image_size": 896, "patch_size": 14}})",
       {{"vision_tower.vision_model.post_layernorm.bias", "vision_tower.post_layernorm.bias"},
        {"model.vision_tower.vision_model.post_layernorm.bias", "vision_tower.post_layernorm.bias"},
        {"model.vision_tower.post_layernorm.bias", "vision_tower.post_layernorm.bias"},
        {"vision_tower.post_layernorm.bias", "vision_tower.post_layernorm.bias"},
        {"multi_modal_projector.mm_soft_emb_norm.weight", "multi_modal_projector.mm_soft_emb_norm.weight"},
        {"model.multi_modal_projector.mm_soft_emb_norm.weight", "multi_modal_projector.mm_soft_emb_norm.weight"},
        {"language_model.model.norm.weight", ""},
        {"model.language_model.vision_tower.x", ""}}},
      {R"({"model_type": "qwen2_vl"})", qwen_names},
      {R"({"model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 1280}})", qwen_names},
      {R"({"model_type": "siglip"})", siglip_names},
      {R"({"model_type": "siglip_vision_model"})", siglip_names}};
  for (const auto& [config, names] : families) {
    CheckpointDirectory directory;
    directory.write("config.json", config);
    if (config.find("gemma3") != std::string::npos)
      directory.write("preprocessor_config.json", R"({"size": {"height": 896, "width": 896}})");
    const NameRules found = directory.architecture()->traits().names;
    for (const auto& [name, canonical] : names) {
      EXPECT_EQ(found.is_wanted(name), !canonical.empty()) << config << ": " << name;
      EXPECT_TRUE(canonical.empty() || found.canonical(name) == canonical)
          << config << ": " << name << " became " << found.canonical(name);
    }
  }
}

// ---- reading

TEST(WeightReader, ReadsByCanonicalNameAndConverts) {
  CheckpointDirectory directory;
  const std::vector<float> values{1, -2.5F, 3.14159F, 0};
  const std::vector<uint16_t> halves{0x3F80, 0xC020};  // 1 and -2.5 in bfloat16
  const std::vector<TensorToWrite> tensors{
      {"model.tower.inner.a.weight", "F32", {2, 2}, std::as_bytes(std::span(values))},
      {"tower.b", "BF16", {2}, std::as_bytes(std::span(halves))}};
  write_safetensors(directory.path() + "/model.safetensors", tensors);
  WeightReader reader = reader_of(directory);
  const at::Tensor a = reader.tensor("tower.a.weight", {2, 2});
  ASSERT_TRUE(a.defined());
  EXPECT_EQ(a.scalar_type(), at::kFloat);
  EXPECT_EQ(std::vector<float>(a.const_data_ptr<float>(), a.const_data_ptr<float>() + 4), values);
  const at::Tensor b = reader.tensor("tower.b", {2});
  EXPECT_EQ(b.scalar_type(), at::kFloat);
  EXPECT_EQ(b.const_data_ptr<float>()[1], -2.5F);
  EXPECT_NO_THROW(reader.finish());
  EXPECT_EQ(reader.bytes_found(), 4 * 4 + 2 * 2);
  EXPECT_EQ(reader.elements_found(), 6);
  EXPECT_EQ(reader.found().size(), 2U);
  EXPECT_TRUE(reader.unused().empty());

  WeightReader narrow = reader_of(directory, {.dtype = at::kBFloat16});
  EXPECT_EQ(narrow.tensor("tower.a.weight", {2, 2}).scalar_type(), at::kBFloat16);
}

TEST(WeightReader, EveryComplaintIsInOneMessage) {
  CheckpointDirectory directory;
  directory.write_tensors({{"model.tower.a.weight", {2, 3}},
                           {"tower.inner.b.weight", {4}},
                           {"tower.ids", {5}, "I64"},
                           {"tower.blocks.2.w", {1}},
                           {"tower.fits", {1}, "F16"}});
  WeightReader reader = reader_of(directory);
  EXPECT_TRUE(reader.tensor("tower.fits", {1}).defined());
  EXPECT_FALSE(reader.linear("tower.a", 3, 2, /*bias=*/true).defined());
  EXPECT_FALSE(reader.norm("tower.b", 5, nn::NormKind::layer_norm).weight.defined());
  EXPECT_FALSE(reader.tensor("tower.ids", {5}).defined());
  EXPECT_FALSE(reader.linear(std::vector<std::string>{"tower.q", "tower.k"}, 2, 2, /*bias=*/false).defined());
  reader.expect_nothing_under("tower.blocks.2.", "a block beyond depth = 2");
  expect_error(ErrorCode::malformed_model,
               directory.path() +
                   ": tensors of the vision tower do not fit config.json: 4 missing: tower.a.bias, tower.b.bias, "
                   "tower.q.weight, tower.k.weight; 4 unfit: model.tower.a.weight: expected [3, 2], got [2, 3], "
                   "tower.inner.b.weight: expected [5], got [4], tower.ids: expected dtype F32, BF16 or F16, got I64, "
                   "tower.blocks.2.w: a block beyond depth = 2",
               [&] { reader.finish(); });
  EXPECT_EQ(reader.missing().size(), 4U);
  EXPECT_EQ(reader.mismatched().size(), 4U);
}

TEST(WeightReader, OnlyMissingAndOnlyUnfitReadWell) {
  CheckpointDirectory directory;
  directory.write_tensors({{"tower.a", {2}}});
  WeightReader missing = reader_of(directory);
  (void)missing.tensor("tower.b", {2});
  expect_error(ErrorCode::malformed_model,
               directory.path() + ": tensors of the vision tower do not fit config.json: 1 missing: tower.b",
               [&] { missing.finish(); });
  WeightReader unfit = reader_of(directory);
  (void)unfit.tensor("tower.a", {2, 1});
  expect_error(ErrorCode::malformed_model,
               directory.path() +
                   ": tensors of the vision tower do not fit config.json: 1 unfit: tower.a: expected [2, 1], got [2]",
               [&] { unfit.finish(); });
}

TEST(WeightReader, TwoNamesOfOneTensorAreRefused) {
  CheckpointDirectory directory;
  directory.write_tensors({{"model.tower.a", {2}}, {"tower.a", {2}}});
  expect_error(ErrorCode::malformed_model,
               directory.path() +
                   "/model.safetensors: model.tower.a and tower.a are two names of one tensor; expected one of them",
               [&] { (void)reader_of(directory); });
}

TEST(WeightReader, DryModeReadsNothing) {
  CheckpointDirectory directory;
  directory.write_tensors({{"tower.a.weight", {2, 3}}, {"tower.a.bias", {2}}, {"tower.c", {7}}});
  WeightReader reader = reader_of(directory, {.dry = true, .progress = [](int64_t, int64_t) { FAIL() << "read"; }});
  EXPECT_FALSE(reader.linear("tower.a", 2, 3, /*bias=*/true).defined());
  EXPECT_NO_THROW(reader.finish());
  EXPECT_EQ(reader.found().size(), 2U);
  EXPECT_EQ(reader.bytes_found(), 32);
  ASSERT_EQ(reader.unused().size(), 1U);
  EXPECT_EQ(reader.unused()[0].name, "tower.c");
  const WeightReader untouched = reader_of(directory);
  EXPECT_EQ(reader.fingerprint(), untouched.fingerprint()) << "bytes were hashed";
}

TEST(WeightReader, ConvolutionsAreViewedAsMatrices) {
  CheckpointDirectory directory;
  directory.write_tensors({{"tower.conv.weight", {4, 3, 2, 2}}});
  WeightReader reader = reader_of(directory);
  const ops::Linear conv = reader.linear("tower.conv", {4, 3, 2, 2}, /*bias=*/false);
  reader.finish();
  EXPECT_EQ(conv.in_features(), 12);
  EXPECT_EQ(conv.out_features(), 4);
}

TEST(WeightReader, ProgressCountsBytesAndMayStop) {
  CheckpointDirectory directory;
  directory.write_tensors({{"tower.a", {2}}, {"tower.b", {3}}});
  std::vector<std::pair<int64_t, int64_t>> calls;
  WeightReader reader =
      reader_of(directory, {.progress = [&](int64_t done, int64_t total) { calls.emplace_back(done, total); }});
  (void)reader.tensor("tower.b", {3});
  (void)reader.tensor("tower.a", {2});
  EXPECT_EQ(calls, (std::vector<std::pair<int64_t, int64_t>>{{12, 20}, {20, 20}}));
  WeightReader stopped = reader_of(directory, {.progress = [](int64_t, int64_t) { throw std::runtime_error("stop"); }});
  EXPECT_THROW((void)stopped.tensor("tower.a", {2}), std::runtime_error);
}

TEST(WeightReader, TheFingerprintSeesEveryByteShapeAndDtype) {
  CheckpointDirectory directory;
  const auto fingerprint = [&](const std::vector<float>& values, std::vector<int64_t> shape) {
    const std::vector<TensorToWrite> tensors{{"tower.a", "F32", shape, std::as_bytes(std::span(values))}};
    write_safetensors(directory.path() + "/model.safetensors", tensors);
    WeightReader reader = reader_of(directory);
    (void)reader.tensor("tower.a", std::move(shape));
    return reader.fingerprint();
  };
  const ContentHash first = fingerprint({1, 2, 3, 4}, {4});
  EXPECT_EQ(fingerprint({1, 2, 3, 4}, {4}), first);
  EXPECT_NE(fingerprint({1, 2, 3, std::nextafter(4.0F, 5.0F)}, {4}), first);
  EXPECT_NE(fingerprint({1, 2, 3, 4}, {2, 2}), first);
  EXPECT_NE(fingerprint({2, 1, 3, 4}, {4}), first);
}

}  // namespace
}  // namespace oriel::arch
