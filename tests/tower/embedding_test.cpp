// MMEmbedding and Tensor as values: ids, aliases, sizes, checks, and the ways to other libraries.
#include <ATen/DLConvertor.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>

#include <gmock/gmock.h>

#include <limits>
#include <oriel/torch.hpp>

#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

Tensor rows(int64_t length, int64_t hidden = 2) {
  std::vector<float> values(static_cast<size_t>(length * hidden));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) - 1.5F;
  return Tensor::copy_of(values, {length, hidden});
}

std::string automatic(const MMEmbedding& embedding) { return fmt::format("<$EMB_{}$>", embedding.first_id()); }

TEST(Embedding, IdsCountUpFromABillion) {
  const MMEmbedding first = MMEmbedding::from_rows(rows(3));
  const MMEmbedding second = MMEmbedding::from_rows(rows(2));
  EXPECT_GE(first.first_id(), 1'000'000'000);
  EXPECT_EQ(second.first_id(), first.first_id() + 3);
  EXPECT_THAT(second.ids(), testing::ElementsAre(second.first_id(), second.first_id() + 1));
  EXPECT_EQ(second.vision_id_range(), (std::pair{second.first_id(), second.first_id() + 2}));
  EXPECT_EQ(first.length(), 3);
  EXPECT_EQ(first.hidden_size(), 2);
  EXPECT_EQ(first.size_in_bytes(), 24U);
}

TEST(Embedding, RefusedRowsUseUpNoIds) {
  const int64_t before = MMEmbedding::from_rows(rows(1)).first_id();
  EXPECT_THROW((void)MMEmbedding::from_rows(Tensor()), Error);
  EXPECT_THROW((void)MMEmbedding::from_rows(rows(5), {.merge_size = 0}), Error);
  EXPECT_EQ(MMEmbedding::from_rows(rows(1)).first_id(), before + 1);
}

TEST(Embedding, AliasesAreAutomaticExplicitOrExchanged) {
  const MMEmbedding plain = MMEmbedding::from_rows(rows(2));
  EXPECT_EQ(plain.text_alias(), automatic(plain));
  const MMEmbedding named = MMEmbedding::from_rows(rows(2), {.text_alias = "<image_1>"});
  EXPECT_EQ(named.text_alias(), "<image_1>");
  const MMEmbedding renamed = plain.with_alias("{{photo}}");
  EXPECT_EQ(renamed.text_alias(), "{{photo}}");
  EXPECT_EQ(renamed.ids(), plain.ids());
  EXPECT_EQ(renamed.embeddings().data(), plain.embeddings().data()) << "rows were copied";
  EXPECT_EQ(plain.text_alias(), automatic(plain)) << "the original changed";
  EXPECT_EQ(renamed.with_alias("").text_alias(), automatic(plain));
}

/// Matched byte by byte, one that ends inside a character would leave the rest of the character to the tokenizer.
TEST(Embedding, AliasesAreUtf8) {
  const std::string message = "text_alias: expected UTF-8, got other bytes";
  const std::string cut = "b\xE4\xBD";
  expect_error(ErrorCode::invalid_argument, message,
               [&] { (void)MMEmbedding::from_rows(rows(1), {.text_alias = cut}); });
  expect_error(ErrorCode::invalid_argument, message, [&] { (void)MMEmbedding::from_rows(rows(1)).with_alias(cut); });
  const VisionTower tower = load_tiny("siglip");
  bool began = false;
  expect_error(ErrorCode::invalid_argument, message, [&] {
    (void)tower.get_image_embeddings(picture({60, 40}, 1),
                                     {.text_alias = cut, .progress = [&](const Progress& progress) {
                                        began |= progress.stage == Progress::Stage::encode;
                                      }});
  });
  EXPECT_FALSE(began) << "refused after the work";
  EXPECT_EQ(MMEmbedding::from_rows(rows(1), {.text_alias = "\u4f60"}).text_alias(), "\u4f60");
}

TEST(Embedding, SpecialRowsAreLeftOutOfTheVisionRange) {
  const MMEmbedding embedding = MMEmbedding::from_rows(rows(6), {.pre_tokens = 1, .post_tokens = 2});
  EXPECT_EQ(embedding.vision_id_range(), (std::pair{embedding.first_id() + 1, embedding.first_id() + 4}));
}

TEST(Embedding, TokensPutIdsInPlaceOfPlaceholders) {
  const MMEmbedding embedding =
      MMEmbedding::from_rows(rows(3), {.placeholder_tokens = {7, 10, 10, 12, 10, 13}, .placeholder_id = 10});
  const int64_t id = embedding.first_id();
  EXPECT_THAT(embedding.tokens(), testing::ElementsAre(7, id, id + 1, 12, id + 2, 13));
  EXPECT_THAT(embedding.placeholder_tokens(), testing::ElementsAre(7, 10, 10, 12, 10, 13));
  EXPECT_EQ(MMEmbedding::from_rows(rows(3)).tokens().size(), 3U);
}

TEST(Embedding, BadRowsAreRefused) {
  const auto refused = [](const Tensor& tensor, const std::string& message) {
    expect_error(ErrorCode::invalid_argument, message, [&] { (void)MMEmbedding::from_rows(tensor); });
  };
  const std::string shape = "embedding rows: expected a tensor [length, hidden], got ";
  refused({}, shape + "an empty one");
  refused(Tensor::copy_of(std::vector<float>(6), {6}), shape + "one of 1 dimensions and 6 elements");
  refused(Tensor::copy_of(std::vector<float>(6), {1, 2, 3}), shape + "one of 3 dimensions and 6 elements");
  refused(Tensor::copy_of(std::vector<float>{}, {0, 3}), shape + "one of 2 dimensions and 0 elements");
  refused(Tensor::copy_of(std::vector<float>{}, {3, 0}), shape + "one of 2 dimensions and 0 elements");
  refused(Tensor::copy_of(std::vector<int64_t>(6), {2, 3}), "embedding rows: expected a floating dtype, got int64");
}

TEST(Embedding, BadInfoIsRefused) {
  const auto refused = [](const MMEmbeddingInfo& info, const std::string& message) {
    expect_error(ErrorCode::invalid_argument, "embedding: expected " + message,
                 [&] { (void)MMEmbedding::from_rows(rows(3), info); });
  };
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  refused({.pre_tokens = 4}, "at most 3 special rows, got 4 before and 0 after");
  refused({.pre_tokens = 2, .post_tokens = 2}, "at most 3 special rows, got 2 before and 2 after");
  refused({.pre_tokens = -1}, "at most 3 special rows, got -1 before and 0 after");
  refused({.pre_tokens = 1, .post_tokens = most},
          fmt::format("at most 3 special rows, got 1 before and {} after", most));
  refused({.merge_size = 0}, "a merge size of at least 1, got 0");
  refused({.placeholder_tokens = {1, 10, 10, 2}, .placeholder_id = 10}, "3 placeholders of id 10 for its rows, got 2");
  refused({.placeholder_tokens = {1, 2}, .placeholder_id = 10}, "3 placeholders of id 10 for its rows, got 0");
}

TEST(Embedding, PointsGoToTheOriginalAndBack) {
  const MMEmbedding embedding =
      MMEmbedding::from_rows(rows(1), {.original_size = {1000, 300}, .preprocessed_size = {500, 600}});
  EXPECT_EQ(embedding.to_original({250, 60}), (Point{500, 30}));
  EXPECT_EQ(embedding.to_preprocessed({500, 30}), (Point{250, 60}));
  EXPECT_EQ(embedding.to_original({0, 0}), (Point{0, 0}));
  EXPECT_EQ(embedding.to_original({500, 600}), (Point{1000, 300}));
  for (const MMEmbeddingInfo& info :
       {MMEmbeddingInfo{}, MMEmbeddingInfo{.original_size = {5, 5}}, MMEmbeddingInfo{.preprocessed_size = {5, 5}}}) {
    const MMEmbedding unknown = MMEmbedding::from_rows(rows(1), info);
    for (const auto convert : {&MMEmbedding::to_original, &MMEmbedding::to_preprocessed})
      expect_error(ErrorCode::invalid_argument, "embedding: its original or preprocessed size is unknown", [&] {
        (void)(unknown.*convert)({1, 1});
      });
  }
}

TEST(Embedding, CopiesShareRowsThatOutliveTheTower) {
  std::optional<MMEmbedding> kept;
  std::vector<float> before;
  {
    const VisionTower tower = load_tiny("pixtral");
    const MMEmbedding embedding = tower.get_image_embeddings(picture({40, 40}, 1));
    before = values(embedding);
    kept = embedding;
  }
  EXPECT_EQ(values(*kept), before);
  EXPECT_EQ(kept->to(Device::cpu()).embeddings().data(), kept->embeddings().data());
}

// ---- tensors

TEST(Tensor, ChecksShapesAndSizes) {
  const std::vector<float> six(6);
  expect_error(ErrorCode::invalid_argument, "tensor: expected 16 bytes for its shape, got 24", [&] {
    (void)Tensor::copy_of(six, {2, 2});
  });
  expect_error(ErrorCode::invalid_argument, "tensor shape: 4 * -2 does not fit", [&] {
    (void)Tensor::copy_of(six, {-2, -3});
  });
  expect_error(ErrorCode::invalid_argument, "tensor shape: 17179869184 * 4294967296 does not fit", [&] {
    (void)Tensor::copy_of(six, {int64_t{1} << 32, int64_t{1} << 32});
  });
  const Tensor tensor = Tensor::copy_of(six, {3, 2});
  EXPECT_EQ(tensor.size(-1), 2);
  EXPECT_EQ(tensor.size(0), 3);
  EXPECT_EQ(tensor.element_count(), 6);
  EXPECT_EQ(tensor.size_in_bytes(), 24U);
  for (const int dimension : {2, -3})
    expect_error(ErrorCode::invalid_argument, fmt::format("tensor: expected a dimension of 2, got {}", dimension),
                 [&] { (void)tensor.size(dimension); });
  for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{{-1, 2}, {2, 1}, {0, 4}, {4, 4}})
    expect_error(ErrorCode::invalid_argument,
                 fmt::format("tensor: expected rows within [0, 3], got [{}, {})", begin, end),
                 [&, first = begin, last = end] { (void)tensor.rows(first, last); });
  EXPECT_EQ(tensor.rows(1, 3).shape(), (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(tensor.rows(2, 2).element_count(), 0);
}

TEST(Tensor, AnEmptyOneRefusesEverything) {
  const Tensor empty;
  EXPECT_FALSE(empty.defined());
  const auto refused = [](const std::function<void()>& call) {
    expect_error(ErrorCode::invalid_argument, "tensor: expected a defined tensor, got an empty one", call);
  };
  refused([&] { (void)empty.shape(); });
  refused([&] { (void)empty.size(0); });
  refused([&] { (void)empty.element_count(); });
  refused([&] { (void)empty.dtype(); });
  refused([&] { (void)empty.device(); });
  refused([&] { (void)empty.size_in_bytes(); });
  refused([&] { (void)empty.data(); });
  refused([&] { (void)empty.to_float32(); });
  refused([&] { (void)empty.to(Device::cpu()); });
  refused([&] { (void)empty.to(DType::float16); });
  refused([&] { (void)empty.rows(0, 0); });
  refused([&] { (void)empty.to_dlpack(); });
}

TEST(Tensor, ConvertsAndSharesWhereNothingChanges) {
  const std::vector<float> values{1, -2.5F, 65504, 0.1F};
  const Tensor tensor = Tensor::copy_of(values, {2, 2});
  EXPECT_EQ(tensor.to(DType::float32).data(), tensor.data());
  EXPECT_EQ(tensor.to(Device::cpu()).data(), tensor.data());
  EXPECT_EQ(tensor.rows(1, 2).data(), static_cast<const std::byte*>(tensor.data()) + 8);
  const Tensor narrow = tensor.to(DType::bfloat16);
  EXPECT_EQ(narrow.dtype(), DType::bfloat16);
  EXPECT_EQ(narrow.size_in_bytes(), 8U);
  EXPECT_THAT(narrow.to_float32(), testing::ElementsAre(1, -2.5F, 65536, 0.10009765625F));
  EXPECT_THAT(Tensor::copy_of(std::vector<int64_t>{3, -4}, {2}).to_float32(), testing::ElementsAre(3, -4));
}

TEST(Tensor, DlpackSharesTheStorageAndKeepsItAlive) {
  const std::vector<float> expected{1, 2, 3, 4, 5, 6};
  Tensor tensor = Tensor::copy_of(expected, {3, 2});
  const void* data = tensor.data();
  const at::Tensor received = at::fromDLPack(tensor.to_dlpack());
  tensor = Tensor();
  EXPECT_EQ(received.const_data_ptr(), data);
  EXPECT_EQ(received.sizes(), (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(received.scalar_type(), at::kFloat);
  EXPECT_EQ(std::vector<float>(received.const_data_ptr<float>(), received.const_data_ptr<float>() + 6), expected);
  EXPECT_EQ(at::fromDLPack(rows(2).to(DType::bfloat16).to_dlpack()).scalar_type(), at::kBFloat16);
}

TEST(Tensor, TorchRoundTripSharesTheStorage) {
  const Tensor tensor = rows(3);
  const at::Tensor in_torch = to_torch(tensor);
  EXPECT_EQ(in_torch.const_data_ptr(), tensor.data());
  const Tensor back = from_torch(in_torch);
  EXPECT_EQ(back.data(), tensor.data());
  EXPECT_EQ(back.shape(), tensor.shape());
  EXPECT_FALSE(from_torch(at::Tensor()).defined());
  EXPECT_THROW((void)to_torch(Tensor()), Error);
}

TEST(Tensor, TorchViewsBecomeContiguous) {
  const at::Tensor wide = at::arange(6, at::kFloat).view({2, 3}).t();
  const Tensor tensor = from_torch(wide);
  EXPECT_EQ(tensor.shape(), (std::vector<int64_t>{3, 2}));
  EXPECT_THAT(tensor.to_float32(), testing::ElementsAre(0, 3, 1, 4, 2, 5));
}

TEST(Tensor, OtherTorchDtypesAreRefused) {
  for (const auto& [dtype, name] : {std::pair{at::kDouble, "Double"}, {at::kInt, "Int"}, {at::kBool, "Bool"}})
    expect_error(ErrorCode::invalid_argument,
                 fmt::format("tensor: expected float32, bfloat16, float16, int64 or uint8, got torch's {}", name),
                 [&, type = dtype] { (void)from_torch(at::arange(3, at::kFloat).to(type)); });
}

TEST(SaveSafetensors, RefusesEmptyTensorsAndEqualNames) {
  const TemporaryDirectory directory;
  const std::string path = (directory.path() / "out.safetensors").string();
  const std::vector<NamedTensor> empty{{"a", {}}};
  expect_error(ErrorCode::invalid_argument, path + ": a: expected a tensor, got an empty one",
               [&] { save_safetensors(path, empty); });
  const std::vector<NamedTensor> equal{{"a", rows(1)}, {"a", rows(2)}};
  expect_error(ErrorCode::invalid_argument, path + ": expected different names, got \"a\" twice",
               [&] { save_safetensors(path, equal); });
  EXPECT_FALSE(std::filesystem::exists(path));
  const std::vector<NamedTensor> good{{"a", rows(2)}, {"b", rows(1).to(DType::bfloat16)}};
  save_safetensors(path, good, {{"who", "me"}});
  const SafetensorsFile file = SafetensorsFile::open(path);
  EXPECT_EQ(file.metadata().at("who"), "me");
  EXPECT_EQ(file.find("b")->dtype, "BF16");
  EXPECT_EQ(file.find("a")->shape, (std::vector<int64_t>{2, 2}));
}

TEST(Embedding, SpecialTokensAroundTheRowsCanBeExchanged) {
  const MMEmbedding embedding =
      MMEmbedding::from_rows(rows(2), {.placeholder_tokens = {5, 9, 9, 6}, .placeholder_id = 9});
  const MMEmbedding bare = embedding.with_placeholder_tokens({9, 9});
  EXPECT_EQ(bare.tokens(), embedding.ids());
  EXPECT_EQ(bare.first_id(), embedding.first_id());
  EXPECT_EQ(embedding.tokens().size(), 4U);
  EXPECT_EQ(bare.with_placeholder_tokens({}).tokens(), embedding.ids());
  expect_error(ErrorCode::invalid_argument, "embedding: expected 2 placeholders of id 9 for its rows, got 1", [&] {
    (void)embedding.with_placeholder_tokens({5, 9, 6});
  });
  const MMEmbedding unavailable = MMEmbedding::from_rows(rows(2), {.tokens_unavailable = "no tokenizer.json"});
  EXPECT_EQ(unavailable.with_placeholder_tokens({}).tokens(), unavailable.ids());
}

}  // namespace
}  // namespace oriel
