#include "arch/model_files.hpp"

#include "arch/checkpoint_directory.hpp"
#include "core/expect_error.hpp"

namespace oriel::arch {
namespace {

using Ids = std::map<std::string, int64_t, std::less<>>;

constexpr const char* llava = R"({"model_type": "llava"})";

TEST(ModelFiles, TheProcessorsOwnImageProcessorComesFirst) {
  CheckpointDirectory directory;
  directory.write("config.json", "{}").write("preprocessor_config.json", R"({"who": "preprocessor"})");
  EXPECT_EQ(directory.files().image_processor["who"].string(), "preprocessor");
  directory.write("processor_config.json", R"({"patch_size": 7})");
  EXPECT_EQ(directory.files().image_processor["who"].string(), "preprocessor");
  EXPECT_EQ(directory.files().processor["patch_size"].integer(), 7);
  directory.write("processor_config.json", R"({"image_processor": null})");
  EXPECT_EQ(directory.files().image_processor["who"].string(), "preprocessor");
  directory.write("processor_config.json", R"({"image_processor": {"who": "nested"}})");
  EXPECT_EQ(directory.files().image_processor["who"].string(), "nested");
}

TEST(ModelFiles, TheVideoProcessorHasThreePlaces) {
  CheckpointDirectory directory;
  directory.write("config.json", "{}").write("preprocessor_config.json", R"({"who": "preprocessor"})");
  EXPECT_EQ(directory.files().video_processor["who"].string(), "preprocessor");
  directory.write("video_preprocessor_config.json", R"({"who": "video"})");
  EXPECT_EQ(directory.files().video_processor["who"].string(), "video");
  EXPECT_EQ(directory.files().image_processor["who"].string(), "preprocessor");
  // An image processor inside processor_config.json says nothing about videos.
  directory.write("processor_config.json", R"({"image_processor": {"who": "nested image"}})");
  EXPECT_EQ(directory.files().video_processor["who"].string(), "video");
  directory.write("processor_config.json", R"({"video_processor": {"who": "nested video"}})");
  EXPECT_EQ(directory.files().video_processor["who"].string(), "nested video");
  EXPECT_EQ(directory.files().image_processor["who"].string(), "preprocessor");
}

TEST(ModelFiles, FilesThatAreNotThereAreAbsent) {
  const CheckpointDirectory directory(llava);
  const ModelFiles files = directory.files();
  EXPECT_TRUE(files.processor.is_absent());
  EXPECT_TRUE(files.image_processor.is_absent());
  EXPECT_TRUE(files.video_processor.is_absent());
  EXPECT_TRUE(files.added_tokens().empty());
  EXPECT_EQ(files.model_type(), "llava");
}

TEST(ModelFiles, TheModelTypeMustBeThere) {
  CheckpointDirectory directory;
  for (const char* config : {"{}", R"({"model_type": null})"}) {
    directory.write("config.json", config);
    expect_error(ErrorCode::malformed_model,
                 directory.path() + "/config.json: model_type: expected the name of an architecture, found nothing",
                 [&] { (void)directory.files().model_type(); });
  }
  directory.write("config.json", R"({"model_type": 3})");
  expect_error(ErrorCode::malformed_model, directory.path() + "/config.json: model_type: expected a string, got 3",
               [&] { (void)directory.files().model_type(); });
}

TEST(ModelFiles, AddedTokensComeFromBothFilesAndTokenizerJsonWins) {
  CheckpointDirectory directory(llava);
  directory.write("tokenizer.json",
                  R"({"added_tokens": [{"id": 10, "content": "[IMG]"}, {"id": 12, "content": "[B]"}]})");
  EXPECT_EQ(directory.files().added_tokens(), (Ids{{"[IMG]", 10}, {"[B]", 12}}));
  directory.write("tokenizer_config.json",
                  R"({"added_tokens_decoder": {"99": {"content": "[B]"}, "13": {"content": "[END]"}}})");
  EXPECT_EQ(directory.files().added_tokens(), (Ids{{"[IMG]", 10}, {"[B]", 12}, {"[END]", 13}}));
  directory.write("tokenizer.json", "{}");
  EXPECT_EQ(directory.files().added_tokens(), (Ids{{"[B]", 99}, {"[END]", 13}}));
}

TEST(ModelFiles, DamagedTokenFilesAreNamed) {
  CheckpointDirectory directory(llava);
  directory.write("tokenizer_config.json", R"({"added_tokens_decoder": {"1x": {"content": "a"}}})");
  expect_error(
      ErrorCode::malformed_model,
      directory.path() + "/tokenizer_config.json: added_tokens_decoder: expected a token id as key, got \"1x\"",
      [&] { (void)directory.files().added_tokens(); });
  directory.write("tokenizer_config.json", "{}").write("tokenizer.json", R"({"added_tokens": [{"content": "a"}]})");
  expect_error(ErrorCode::malformed_model,
               directory.path() + "/tokenizer.json: added_tokens[0].id: expected an integer, the key is missing",
               [&] { (void)directory.files().added_tokens(); });
  directory.write("tokenizer.json", R"({"added_tokens": {}})");
  expect_error(ErrorCode::malformed_model,
               directory.path() + "/tokenizer.json: added_tokens: expected an array, got {}",
               [&] { (void)directory.files().added_tokens(); });
}

TEST(ModelFiles, QuantisedCheckpointsAreRefusedByMethod) {
  CheckpointDirectory directory;
  directory.write("config.json", R"({"model_type": "llava", "quantization_config": {"quant_method": "awq"}})");
  expect_error(ErrorCode::unsupported_model,
               directory.path() +
                   "/config.json: quantization_config: quantised checkpoints are not supported "
                   "(quant_method \"awq\"); use the float checkpoint",
               [&] { (void)directory.files(); });
  directory.write("config.json", R"({"model_type": "llava", "quantization_config": {}})");
  expect_error(ErrorCode::unsupported_model,
               directory.path() +
                   "/config.json: quantization_config: quantised checkpoints are not supported "
                   "(quant_method unknown); use the float checkpoint",
               [&] { (void)directory.files(); });
  directory.write("config.json", R"({"model_type": "llava", "quantization_config": null})");
  EXPECT_EQ(directory.files().model_type(), "llava");
}

}  // namespace
}  // namespace oriel::arch
