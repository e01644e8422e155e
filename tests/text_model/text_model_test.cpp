// The public calls: ids to rows, what is refused, what a model says of itself.
#include <gmock/gmock.h>

#include <cmath>
#include <stop_token>

#include "text_model/text_goldens.hpp"

namespace oriel {
namespace {

using testing::ElementsAre;

constexpr auto bad_argument = ErrorCode::invalid_argument;

MMEmbedding rows_of(int64_t count, int64_t width, MMEmbeddingInfo info = {}) {
  std::vector<float> values(static_cast<size_t>(count * width));
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i));
  return MMEmbedding::from_rows(Tensor::copy_of(std::span<const float>(values), {count, width}), std::move(info));
}

std::vector<float> row(const std::vector<float>& rows, int64_t index, int64_t width) {
  return {rows.begin() + index * width, rows.begin() + (index + 1) * width};
}

TEST(TextModel, EmbedMixesTheVocabularyAndEmbeddings) {
  const TextModel model = TextModel::load(tiny("pixtral"));
  const int64_t width = model.hidden_size();
  const MMEmbedding a = rows_of(3, width, {.text_alias = "<a>"});
  const MMEmbedding b = rows_of(2, width, {.text_alias = "<b>"});
  const std::vector<int64_t> ids{7, b.first_id() + 1, a.first_id(), a.first_id() + 1, 9, a.first_id() + 2, 7};
  const Tensor rows = model.embed(ids, std::vector{a, b});
  EXPECT_EQ(rows.shape(), (std::vector<int64_t>{7, width}));
  EXPECT_EQ(rows.dtype(), DType::float32);
  const std::vector<float> got = rows.to_float32();
  EXPECT_EQ(row(got, 1, width), row(values(b), 1, width));
  EXPECT_EQ(row(got, 2, width), row(values(a), 0, width));
  EXPECT_EQ(row(got, 3, width), row(values(a), 1, width));
  EXPECT_EQ(row(got, 5, width), row(values(a), 2, width));
  EXPECT_EQ(row(got, 0, width), row(got, 6, width));
  EXPECT_NE(row(got, 0, width), row(got, 4, width));
  const std::vector<int64_t> alone{9};
  EXPECT_EQ(model.embed(alone).to_float32(), row(got, 4, width));
}

TEST(TextModel, RowsOfTheVocabularyAreScaledAndThoseOfPicturesAreNot) {
  const TextModel model = TextModel::load(tiny("gemma3"), {.dtype = DType::bfloat16});
  const MMEmbedding embedding = rows_of(1, 40);
  const std::vector<int64_t> ids{5, embedding.first_id()};
  const std::vector<float> got = model.embed(ids, {&embedding, 1}).to_float32();
  const Scratch scratch("gemma3");
  for (const StoredTensor& tensor : scratch.tensors()) {
    if (!tensor.name.ends_with("embed_tokens.weight")) continue;
    const Tensor table = Tensor::copy_of(std::span<const std::byte>(tensor.bytes), DType::bfloat16, tensor.shape);
    const std::vector<float> stored = table.rows(5, 6).to_float32();
    // sqrt(40) in bfloat16 is 6.3125; the product is rounded once more.
    for (size_t i = 0; i < 40; ++i) {
      const std::vector<float> product{stored[i] * 6.3125F};
      EXPECT_EQ(got[i], Tensor::copy_of(std::span<const float>(product), {1}).to(DType::bfloat16).to_float32()[0]) << i;
    }
  }
  EXPECT_EQ(row(got, 1, 40), embedding.embeddings().to(DType::bfloat16).to_float32());
}

/// Qwen2-VL 7B and Qwen2.5-VL 7B agree in width and placeholder id.
TEST(TextModel, RowsOfAnotherFamilyAreRefusedWhereNothingElseTells) {
  const TextModel model = TextModel::load(tiny("qwen2_5_vl"));
  MMEmbeddingInfo info{.text_alias = "<a>", .grid = {1, 2, 4}, .merge_size = 2};
  const std::vector<int64_t> ids{1};
  const auto embed = [&] { return model.embed(ids, std::vector{rows_of(2, model.hidden_size(), info)}); };
  EXPECT_EQ(embed().size(0), 1);  // nothing is known of rows of one's own
  info.model_family = model.family();
  EXPECT_EQ(embed().size(0), 1);
  info.model_family = "Qwen2-VL";
  expect_error(bad_argument,
               "embedding \"<a>\": expected rows made for this Qwen2.5-VL model, got ones made for \"Qwen2-VL\"",
               [&] { (void)embed(); });
  for (const std::string family : {"gemma3", "mistral3", "pixtral", "qwen2_5_vl", "qwen2_vl"})
    EXPECT_EQ(load_tiny(family).get_image_embeddings(picture({60, 40}, 1)).info().model_family,
              TextModel::load(tiny(family)).family());
}

/// As transformers' image_features.to(inputs_embeds.dtype).
TEST(TextModel, RowsOfAnotherDtypeAreRounded) {
  const MMEmbedding wide = rows_of(2, 32);
  for (const DType dtype : {DType::bfloat16, DType::float16}) {
    const TextModel model = TextModel::load(tiny("pixtral"), {.dtype = dtype});
    const Tensor rows = model.embed(wide.ids(), {&wide, 1});
    EXPECT_EQ(rows.dtype(), dtype);
    EXPECT_EQ(rows.to_float32(), wide.embeddings().to(dtype).to_float32());
    const MMEmbedding narrow = MMEmbedding::from_rows(wide.embeddings().to(dtype));
    EXPECT_EQ(TextModel::load(tiny("pixtral")).embed(narrow.ids(), {&narrow, 1}).to_float32(), rows.to_float32());
  }
}

TEST(TextModel, ABatchHasTheRowsOfItsLines) {
  const TextModel model = TextModel::load(tiny("pixtral"));
  const std::vector both{rows_of(2, model.hidden_size()), rows_of(2, model.hidden_size())};
  const std::vector<int64_t> first{7, both[0].first_id(), both[0].first_id() + 1};
  const std::vector<int64_t> second{both[1].first_id(), both[0].first_id(), 9};
  std::vector<int64_t> ids = first;
  ids.insert(ids.end(), second.begin(), second.end());
  const Tensor rows = model.embed_batch(Tensor::copy_of(std::span<const int64_t>(ids), {2, 3}), both);
  EXPECT_EQ(rows.shape(), (std::vector<int64_t>{2, 3, model.hidden_size()}));
  std::vector<float> expected = model.embed(first, both).to_float32();
  const std::vector<float> behind = model.embed(second, both).to_float32();
  expected.insert(expected.end(), behind.begin(), behind.end());
  EXPECT_EQ(rows.to_float32(), expected);
  expect_error(bad_argument, "ids: expected an int64 tensor [batch, n] on the CPU, got int64 of 1 dimensions on cpu",
               [&] { (void)model.embed_batch(Tensor::copy_of(std::span<const int64_t>(ids), {6})); });
  expect_error(bad_argument, "ids: expected an int64 tensor [batch, n] on the CPU, got an empty one",
               [&] { (void)model.embed_batch({}); });
}

TEST(TextModel, TokenRowsAreThoseOfEmbed) {
  TokenRows token_rows;
  const std::vector<int64_t> ids{3, 250, 0};
  std::vector<float> expected;
  {
    const TextModel model = TextModel::load(tiny("gemma3"));
    token_rows = model.token_rows();
    expected = model.embed(ids).to_float32();
  }
  EXPECT_EQ(token_rows(ids).to_float32(), expected);  // it outlives the model
}

TEST(TextModel, WhatItCannotReadIsNamed) {
  const TextModel model = TextModel::load(tiny("pixtral"));
  const int64_t width = model.hidden_size();
  const int64_t last = model.vocabulary_size() - 1;
  const MMEmbedding embedding = rows_of(2, width, {.text_alias = "<picture>"});
  const auto refused = [&](std::vector<int64_t> ids, std::vector<MMEmbedding> embeddings, const std::string& message) {
    expect_error(bad_argument, message, [&] { (void)model.embed(ids, embeddings); });
    expect_error(bad_argument, message, [&] { (void)model.forward(ids, embeddings); });
    expect_error(bad_argument, message, [&] { (void)model.positions(ids, embeddings); });
  };
  const std::string known = fmt::format("expected one of the vocabulary, 0 to {}, or of the ", last);
  refused({1, -1}, {}, "id -1 at 1: " + known + "0 embeddings given");
  refused({last, last + 1}, {}, fmt::format("id {} at 1: {}0 embeddings given", last + 1, known));
  refused({embedding.first_id()}, {}, fmt::format("id {} at 0: {}0 embeddings given", embedding.first_id(), known));
  refused({embedding.first_id() + 2}, {embedding},
          fmt::format("id {} at 0: {}1 embeddings given", embedding.first_id() + 2, known));
  refused({embedding.first_id() - 1}, {embedding},
          fmt::format("id {} at 0: {}1 embeddings given", embedding.first_id() - 1, known));
  refused({1}, {rows_of(2, width + 1, {.text_alias = "<wide>"})},
          fmt::format("embedding \"<wide>\": expected rows of {} columns, got {}", width, width + 1));
  const MMEmbedding foreign = load_tiny("qwen2_vl").get_image_embeddings(picture({60, 40}, 1), {.text_alias = "<q>"});
  ASSERT_EQ(foreign.hidden_size(), width);
  refused({1}, {foreign},
          "embedding \"<q>\": expected rows made for this Pixtral model, got ones made for \"Qwen2-VL\"");
  MMEmbeddingInfo unknown = foreign.info();
  unknown.model_family.clear();  // only the placeholder tells
  refused({1}, {MMEmbedding::from_rows(foreign.embeddings(), unknown)},
          "embedding \"<q>\": expected rows made for this Pixtral model, with placeholder id 10, got 308");
  expect_error(bad_argument, "prompt: expected at least one id, got none", [&] { (void)model.forward({}); });
  EXPECT_EQ(model.embed({}).shape(), (std::vector<int64_t>{0, width}));
}

TEST(TextModel, PromptsBeyondItsPositionsAreRefused) {
  const Scratch scratch("pixtral");
  scratch.replace("config.json", "\"max_position_embeddings\": 16384", "\"max_position_embeddings\": 5");
  const TextModel model = TextModel::load(scratch.path());
  EXPECT_EQ(model.max_positions(), 5);
  EXPECT_EQ(model.forward(std::vector<int64_t>(5, 1)).logits.size(0), 5);
  expect_error(ErrorCode::limit_exceeded, "prompt: expected at most 5 ids (max_position_embeddings), got 6",
               [&] { (void)model.forward(std::vector<int64_t>(6, 1)); });
}

TEST(TextModel, RowsWithSpecialTokensAmongThemHaveTextPositions) {
  const TextModel model = TextModel::load(tiny("qwen2_vl"));
  const VisionTower tower = load_tiny("qwen2_vl");
  const MMEmbedding plain = tower.get_image_embeddings(picture({60, 40}, 1));
  const MMEmbedding baked = tower.get_image_embeddings(
      picture({60, 40}, 1), {.layout = TokenLayout::exllamav2, .token_rows = model.token_rows()});
  ASSERT_GT(baked.info().pre_tokens, 0);
  const ForwardResult expected = model.forward(plain.tokens(), {&plain, 1});
  const ForwardResult got = model.forward(baked.tokens(), {&baked, 1});
  const auto positions = [](const Tensor& tensor) {
    const auto* values = static_cast<const int64_t*>(tensor.data());
    return std::vector(values, values + tensor.element_count());
  };
  EXPECT_EQ(positions(got.positions), positions(expected.positions));
  EXPECT_LE(golden_error(got.logits.to_float32(), expected.logits.to_float32()), 1e-5);
}

TEST(TextModel, SaysWhatItIs) {
  const TextModel model = TextModel::load(tiny("qwen2_5_vl"));
  EXPECT_EQ(model.family(), "Qwen2.5-VL");
  EXPECT_EQ(model.hidden_size(), 48);
  EXPECT_EQ(model.layers(), 1);
  EXPECT_EQ(model.vocabulary_size(), 310);
  EXPECT_EQ(model.max_positions(), 32768);
  EXPECT_EQ(model.device(), Device::cpu());
  EXPECT_EQ(model.dtype(), DType::float32);
  EXPECT_EQ(model.cache_bytes_per_token(), 1 * 2 * 16 * 4);
  EXPECT_EQ(TextModel::load(tiny("qwen2_5_vl"), {.dtype = DType::bfloat16}).cache_bytes_per_token(), 1 * 2 * 16 * 2);
  int64_t elements = 0;
  for (const StoredTensor& tensor : Scratch("qwen2_5_vl").tensors()) {
    int64_t product = 1;
    for (const int64_t side : tensor.shape) product *= side;
    if (!tensor.name.starts_with("visual.")) elements += product;
  }
  EXPECT_EQ(model.weight_bytes(), elements * 4);
}

TEST(TextModel, FingerprintsTellModelsApart) {
  const auto fingerprint = [](const std::string& path, const TextLoadOptions& options = {}) {
    return TextModel::load(path, options).fingerprint();
  };
  const ContentHash first = fingerprint(tiny("pixtral"));
  EXPECT_EQ(first, fingerprint(tiny("pixtral")));
  EXPECT_NE(first, fingerprint(tiny("pixtral"), {.dtype = DType::bfloat16}));
  const Scratch scratch("pixtral");
  auto tensors = scratch.tensors();
  for (StoredTensor& tensor : tensors)
    if (tensor.name.ends_with("layers.1.mlp.down_proj.weight")) tensor.bytes[5] ^= std::byte{1};
  scratch.write_tensors(tensors);
  EXPECT_NE(first, fingerprint(scratch.path()));
}

// spec/text.md 8: a generation_config.json alone counts where there is one.
TEST(TextModel, StopIdsAreFoundAsGenerateFindsThem) {
  const Scratch scratch("gemma3");  // a list on the top level
  const auto stops = [&] { return TextModel::load(scratch.path()).stop_ids(); };
  const std::vector<int64_t> own = stops();
  EXPECT_EQ(own.size(), 2U);
  scratch.write("generation_config.json", R"({"eos_token_id": 7, "repetition_penalty": 1.05})");
  EXPECT_THAT(stops(), ElementsAre(7));
  EXPECT_EQ(TextModel::load(scratch.path()).repetition_penalty(), 1.05);
  scratch.write("generation_config.json", R"({"eos_token_id": [4, 9]})");
  EXPECT_THAT(stops(), ElementsAre(4, 9));
  EXPECT_EQ(TextModel::load(scratch.path()).repetition_penalty(), 1);
  for (const char* none : {"{}", R"({"eos_token_id": null})"}) {
    scratch.write("generation_config.json", none);
    EXPECT_THAT(stops(), ElementsAre()) << none;
  }
  scratch.remove("generation_config.json");
  scratch.replace("config.json", "\"eos_token_id\"", "\"unknown\"");
  EXPECT_THAT(stops(), ElementsAre());
  scratch.replace("config.json", "\"head_dim\": 16", "\"head_dim\": 16, \"eos_token_id\": 3");
  EXPECT_THAT(stops(), ElementsAre(3));
  scratch.write("generation_config.json", R"({"repetition_penalty": 0})");
  expect_error(ErrorCode::malformed_model,
               scratch.path("generation_config.json") + ": repetition_penalty: expected a positive number, got 0",
               [&] { (void)TextModel::load(scratch.path()); });
  scratch.write("generation_config.json", R"({"eos_token_id": "</s>"})");
  expect_error(ErrorCode::malformed_model,
               scratch.path("generation_config.json") + ": eos_token_id: expected an integer, got \"</s>\"",
               [&] { (void)TextModel::load(scratch.path()); });
}

TEST(TextModel, LoadingReportsBytesAndMayBeCancelled) {
  std::vector<Progress> reports;
  (void)TextModel::load(tiny("pixtral"), {.progress = [&](const Progress& p) { reports.push_back(p); }});
  ASSERT_GT(reports.size(), 10U);
  EXPECT_EQ(reports.back().stage, Progress::Stage::load);
  EXPECT_EQ(reports.back().done, reports.back().total);
  std::stop_source source;
  source.request_stop();
  try {
    (void)TextModel::load(tiny("pixtral"), {.cancel = source.get_token()});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::cancelled);
  }
}

TEST(TextModel, CheckpointsItDoesNotRunAreRefused) {
  expect_error(ErrorCode::unsupported_model,
               tiny("siglip") +
                   "/config.json: model_type: expected a model that writes text, one of gemma3, llava, mistral3, "
                   "qwen2_5_vl, qwen2_vl, got \"siglip\"",
               [] { (void)TextModel::load(tiny("siglip")); });
  expect_error(bad_argument, "dtype: expected float32, bfloat16 or float16, got int64",
               [] { (void)TextModel::load(tiny("pixtral"), {.dtype = DType::int64}); });
  const Scratch scratch("pixtral");
  auto tensors = scratch.tensors();
  std::erase_if(tensors, [](const StoredTensor& tensor) { return tensor.name.ends_with("o_proj.weight"); });
  for (StoredTensor& tensor : tensors)
    if (tensor.name.ends_with("lm_head.weight")) {
      tensor.shape[0] -= 1;
      tensor.bytes.resize(tensor.bytes.size() - static_cast<size_t>(tensor.shape[1]) * 2);
    }
  const int64_t vocabulary = TextModel::load(tiny("pixtral")).vocabulary_size();
  scratch.write_tensors(tensors);
  expect_error(ErrorCode::malformed_model,
               fmt::format("{}: tensors of the text model do not fit config.json: 2 missing: "
                           "language_model.layers.0.self_attn.o_proj.weight, "
                           "language_model.layers.1.self_attn.o_proj.weight; 1 unfit: language_model.lm_head.weight: "
                           "expected [{}, 32], got [{}, 32]",
                           scratch.path(), vocabulary, vocabulary - 1),
               [&] { (void)TextModel::load(scratch.path()); });
}

}  // namespace
}  // namespace oriel
