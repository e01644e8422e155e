// MMEmbedding::save and load, and files that are not what save wrote.
#include <algorithm>

#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

class EmbeddingFile : public testing::Test {
 protected:
  [[nodiscard]] std::string path(const std::string& name = "embedding.safetensors") const {
    return (directory_.path() / name).string();
  }
  /// `message` is what follows the path.
  void expect_refused(const std::string& message, ErrorCode code = ErrorCode::malformed_model) const {
    expect_error(code, path() + message, [&] { (void)MMEmbedding::load(path()); });
  }
  /// A file of one tensor and our metadata, which `change` may spoil.
  void write(const TensorToWrite& tensor, const std::string& metadata) const {
    write_safetensors(path(), {&tensor, 1}, {{"oriel", metadata}});
  }
  TemporaryDirectory directory_;
};

const std::string good_metadata =
    R"({"version": 1, "text_alias": "", "grid": {"t": 1, "h": 2, "w": 3}, "merge_size": 1,
        "original_size": {"width": 5, "height": 6}, "preprocessed_size": {"width": 7, "height": 8}, "pre_tokens": 0,
        "post_tokens": 0, "placeholder_id": -1, "tokens_unavailable": "", "seconds_per_slot": 0.0,
        "content_hash": "00000000000000000000000000000001", "model_fingerprint": "fedcba98765432100123456789abcdef"})";
const std::vector<float> six{1, 2, 3, 4, 5, 6};
TensorToWrite good_rows() { return {"embeddings", "F32", {3, 2}, std::as_bytes(std::span(six))}; }

MMEmbedding example(const std::string& alias) {
  return MMEmbedding::from_rows(Tensor::copy_of(six, {3, 2}), {.text_alias = alias,
                                                               .grid = {2, 4, 6},
                                                               .merge_size = 2,
                                                               .original_size = {640, 480},
                                                               .preprocessed_size = {84, 56},
                                                               .pre_tokens = 1,
                                                               .post_tokens = 1,
                                                               .placeholder_tokens = {5, 9, 9, 9, 6},
                                                               .placeholder_id = 9,
                                                               .tokens_unavailable = {},
                                                               .seconds_per_slot = 0.1,
                                                               .content_hash = {0x0123456789ABCDEF, 7},
                                                               .model_fingerprint = {1, 0xFFFFFFFFFFFFFFFF}});
}

TEST_F(EmbeddingFile, EverythingComesBackUnderNewIds) {
  const MMEmbedding saved = example("<image \"1\" \u00e9>");
  saved.save(path());
  const MMEmbedding loaded = MMEmbedding::load(path());
  EXPECT_NE(loaded.first_id(), saved.first_id());
  EXPECT_EQ(loaded.text_alias(), saved.text_alias());
  EXPECT_EQ(values(loaded), values(saved));
  EXPECT_EQ(loaded.embeddings().shape(), saved.embeddings().shape());
  const MMEmbeddingInfo& a = loaded.info();
  const MMEmbeddingInfo& b = saved.info();
  EXPECT_EQ(a.grid, b.grid);
  EXPECT_EQ(a.merge_size, b.merge_size);
  EXPECT_EQ(a.original_size, b.original_size);
  EXPECT_EQ(a.preprocessed_size, b.preprocessed_size);
  EXPECT_EQ(a.pre_tokens, b.pre_tokens);
  EXPECT_EQ(a.post_tokens, b.post_tokens);
  EXPECT_EQ(a.placeholder_tokens, b.placeholder_tokens);
  EXPECT_EQ(a.placeholder_id, b.placeholder_id);
  EXPECT_EQ(a.seconds_per_slot, b.seconds_per_slot);
  EXPECT_EQ(a.content_hash, b.content_hash);
  EXPECT_EQ(a.model_fingerprint, b.model_fingerprint);
}

TEST_F(EmbeddingFile, AnAutomaticAliasIsMadeAnew) {
  const MMEmbedding saved = example("");
  saved.save(path());
  const MMEmbedding loaded = MMEmbedding::load(path());
  EXPECT_EQ(loaded.text_alias(), fmt::format("<$EMB_{}$>", loaded.first_id()));
  EXPECT_NE(loaded.text_alias(), saved.text_alias());
}

TEST_F(EmbeddingFile, AReasonThatIsNotUtf8IsReplacedRatherThanLost) {
  MMEmbedding::from_rows(Tensor::copy_of(six, {3, 2}), {.tokens_unavailable = "\xff/tokenizer.json"}).save(path());
  EXPECT_EQ(MMEmbedding::load(path()).info().tokens_unavailable, "\uFFFD/tokenizer.json");
}

TEST_F(EmbeddingFile, UnavailableTokensStayUnavailable) {
  MMEmbedding::from_rows(Tensor::copy_of(six, {3, 2}), {.tokens_unavailable = "no tokenizer.json"}).save(path());
  const MMEmbedding loaded = MMEmbedding::load(path());
  expect_error(ErrorCode::unavailable, "prompt tokens: no tokenizer.json", [&] { (void)loaded.tokens(); });
}

TEST_F(EmbeddingFile, EveryFloatingDtypeKeepsItsBits) {
  const VisionTower tower = load_tiny("qwen2_5_vl");
  const MMEmbedding embedding = tower.get_image_embeddings(picture({80, 60}, 1));
  for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
    const MMEmbedding saved = MMEmbedding::from_rows(embedding.embeddings().to(dtype), embedding.info());
    saved.save(path());
    const MMEmbedding loaded = MMEmbedding::load(path());
    EXPECT_EQ(loaded.embeddings().dtype(), dtype);
    expect_identical(values(loaded), values(saved), std::string(to_string(dtype)));
    EXPECT_EQ(loaded.info().model_fingerprint, tower.fingerprint());
    EXPECT_EQ(loaded.info().model_family, "Qwen2.5-VL");
    EXPECT_EQ(loaded.tokens().size(), embedding.tokens().size());
  }
}

TEST_F(EmbeddingFile, FilesThatCannotBeReachedAreFileErrors) {
  EXPECT_THROW(
      {
        try {
          example("").save(path("absent/embedding.safetensors"));
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::file_error);
          throw;
        }
      },
      Error);
  expect_refused(": can't be opened: No such file or directory", ErrorCode::file_error);
}

TEST_F(EmbeddingFile, WhatIsWrongIsNamed) {
  write(good_rows(), good_metadata);
  EXPECT_EQ(MMEmbedding::load(path()).grid(), (Grid{1, 2, 3}));
  EXPECT_EQ(MMEmbedding::load(path()).info().model_family, "") << "unknown in files of earlier versions";

  const TensorToWrite rows = good_rows();
  write_safetensors(path(), {&rows, 1});
  expect_refused(": expected an embedding saved by oriel, found no metadata \"oriel\"");
  write({"rows", "F32", {3, 2}, std::as_bytes(std::span(six))}, good_metadata);
  expect_refused(": expected a tensor \"embeddings\", found none");
  write({"embeddings", "I64", {3}, std::as_bytes(std::span(six))}, good_metadata);
  expect_refused(": embeddings: expected dtype F32, BF16 or F16, got I64");
  write({"embeddings", "F32", {6}, std::as_bytes(std::span(six))}, good_metadata);
  expect_refused(": embeddings: expected a shape [length, hidden], got [6]");

  const auto spoil = [&](const std::string& from, const std::string& to, const std::string& message) {
    std::string metadata = good_metadata;
    metadata.replace(metadata.find(from), from.size(), to);
    write(good_rows(), metadata);
    expect_refused(message);
  };
  spoil("\"version\": 1", "\"version\": 2", ": version: expected 1, got 2");
  spoil("\"version\": 1, ", "", ": version: expected an integer, the key is missing");
  spoil("\"merge_size\": 1", "\"merge_size\": 0", ": merge_size: expected an integer in [1, 1099511627776], got 0");
  spoil("\"w\": 3", "\"w\": -3", ": grid.w: expected an integer in [0, 1099511627776], got -3");
  spoil("\"pre_tokens\": 0", "\"pre_tokens\": 4",
        ": embedding: expected at most 3 special rows, got 4 before and 0 after");
  spoil("fedcba98765432100123456789abcdef", "fedc",
        ": model_fingerprint: expected 32 hexadecimal digits, got \"fedc\"");
  spoil("fedcba98765432100123456789abcdef", "fedcba98765432100123456789abcdeg",
        ": model_fingerprint: expected 32 hexadecimal digits, got \"fedcba98765432100123456789abcdeg\"");
  spoil("fedcba98765432100123456789abcdef", "-fedcba9876543210123456789abcdef",
        ": model_fingerprint: expected 32 hexadecimal digits, got \"-fedcba9876543210123456789abcdef\"");
  spoil("\"seconds_per_slot\": 0.0", "\"seconds_per_slot\": null", ": seconds_per_slot: expected a number, got null");
}

TEST_F(EmbeddingFile, PlaceholdersMustFitTheRows) {
  const std::vector<int64_t> two{9, 9};
  const auto write_both = [&](const TensorToWrite& tokens) {
    std::string metadata = good_metadata;
    metadata.replace(metadata.find("\"placeholder_id\": -1"), 20, "\"placeholder_id\": 9");
    const std::vector<TensorToWrite> both{good_rows(), tokens};
    write_safetensors(path(), both, {{"oriel", metadata}});
  };
  write_both({"placeholder_tokens", "I64", {2}, std::as_bytes(std::span(two))});
  expect_refused(": embedding: expected 3 placeholders of id 9 for its rows, got 2");
  write_both({"placeholder_tokens", "I64", {1, 2}, std::as_bytes(std::span(two))});
  expect_refused(": placeholder_tokens: expected I64 of one dimension, got I64 [1, 2]");
  write_both({"placeholder_tokens", "F64", {2}, std::as_bytes(std::span(two))});
  expect_refused(": placeholder_tokens: expected I64 of one dimension, got F64 [2]");
}

/// Loads a damaged file: it is refused as damaged, or is a whole embedding. Returns whether it was refused.
bool refused(const std::string& path) {
  try {
    const MMEmbedding embedding = MMEmbedding::load(path);
    EXPECT_EQ(embedding.ids().size(), static_cast<size_t>(embedding.length()));
    EXPECT_EQ(values(embedding).size(), static_cast<size_t>(embedding.length() * embedding.hidden_size()));
    return false;
  } catch (const Error& error) {
    EXPECT_TRUE(error.code() == ErrorCode::file_error || error.code() == ErrorCode::malformed_model)
        << to_string(error.code()) << ": " << error.what();
    EXPECT_TRUE(std::string(error.what()).starts_with(path)) << error.what();
    return true;
  }
}

TEST_F(EmbeddingFile, TruncatedFilesAreRefused) {
  example("<image_1>").save(path());
  std::ifstream stream(path(), std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(stream), {}};
  ASSERT_GT(whole.size(), 100U);
  for (size_t length = 0; length < whole.size(); ++length) {
    directory_.write("cut.safetensors", whole.substr(0, length));
    ASSERT_TRUE(refused(path("cut.safetensors"))) << length << " bytes of " << whole.size();
  }
  directory_.write("cut.safetensors", whole + "x");
  EXPECT_TRUE(refused(path("cut.safetensors")));
}

TEST_F(EmbeddingFile, FlippedBytesNeverDoMoreThanBeRefused) {
  example("<image_1>").save(path());
  std::ifstream stream(path(), std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(stream), {}};
  const uint64_t seed = 20240607;
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  int refusals = 0;
  constexpr int rounds = 3000;
  for (int round = 0; round < rounds; ++round) {
    std::string damaged = whole;
    for (uint64_t flips = 1 + random() % 4; flips > 0; --flips)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    directory_.write("damaged.safetensors", damaged);
    refusals += refused(path("damaged.safetensors"));
    ASSERT_FALSE(HasFailure()) << "round " << round;
  }
  // Almost all of the file is header, where nearly every change matters.
  EXPECT_GT(refusals, rounds / 2);
}

}  // namespace
}  // namespace oriel
