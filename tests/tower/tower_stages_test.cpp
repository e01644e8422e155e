// What the stages promise each other: options that can't apply, callbacks that throw, ids that would be ambiguous, and
// plans that cost nothing.
#include "core/json.hpp"
#include "tower/checkpoints.hpp"

namespace oriel {
namespace {

TEST(Stages, PatchesTakeNoPixelLimits) {
  const VisionTower tower = load_tiny("qwen2_vl");
  const std::vector<Image> images{picture({90, 70}, 1)};
  const Patches patches = tower.preprocess(images);
  const char* text = "min_pixels, max_pixels, resize: expected none for patches, which are preprocessed already";
  expect_error(ErrorCode::invalid_argument, text,
               [&] { (void)tower.get_image_embeddings(patches, {.max_pixels = 1000}); });
  expect_error(ErrorCode::invalid_argument, text,
               [&] { (void)tower.get_image_embeddings(patches, {.resize = ResizeBackend::pillow}); });
  const int64_t rows = tower.get_image_embeddings(patches).front().length();
  EXPECT_EQ(tower.get_image_embeddings(patches, {.max_tokens = rows}).size(), 1u);
  expect_error(ErrorCode::limit_exceeded,
               fmt::format("picture: needs {} tokens, more than max_tokens = {}", rows, rows - 1),
               [&] { (void)tower.get_image_embeddings(patches, {.max_tokens = rows - 1}); });
}

TEST(Stages, ATowerOnTheCpuHasNoStream) {
  const VisionTower tower = load_tiny("qwen2_vl");
  const std::vector<Image> images{picture({90, 70}, 1)};
  const Patches patches = tower.preprocess(images);
  int some = 0;  // its address stands for a stream
  const auto expect_refused = [](const auto& call) {
    expect_error(ErrorCode::invalid_argument, "stream: expected none for a tower on cpu, got one", call);
  };
  expect_refused([&] { (void)tower.preprocess(images, {.stream = &some}); });
  expect_refused([&] { (void)tower.encode(patches, {.stream = &some}); });
  expect_refused([&] { (void)tower.get_hidden_states(patches, std::vector<int64_t>{0}, {.stream = &some}); });
  expect_refused([&] { (void)tower.get_image_embeddings(images, {.stream = &some}); });
  expect_refused([&] { (void)tower.get_image_embeddings(patches, {.stream = &some}); });
  expect_refused([&] { (void)tower.get_video_embeddings(images, {.embed = {.stream = &some}}); });
  EXPECT_EQ(tower.plan({90, 70}, {.stream = &some}).tokens, tower.plan({90, 70}).tokens);
}

TEST(Stages, WhatACallbackThrowsReachesTheCaller) {
  struct Mine {};
  const VisionTower tower = load_tiny("siglip");
  const auto throws = [](const Progress&) { throw Mine(); };
  EXPECT_THROW((void)tower.get_image_embeddings(picture({9, 9}, 1), {.progress = throws}), Mine);
  EXPECT_THROW((void)load_tiny("siglip", {.progress = throws}), Mine);
  EXPECT_EQ(tower.get_image_embeddings(picture({9, 9}, 1)).length(), 64);
}

TEST(Stages, ASpecialTokenMayNotHaveThePlaceholdersId) {
  const Scratch scratch("qwen2_vl");
  const Json config = Json::parse(scratch.read("config.json"), "config.json");
  const std::string start = std::to_string(config["vision_start_token_id"].integer());
  const std::string image = std::to_string(config["image_token_id"].integer());
  scratch.replace("config.json", "\"vision_start_token_id\": " + start, "\"vision_start_token_id\": " + image);
  expect_error(ErrorCode::malformed_model,
               fmt::format("{}: expected image_token_id to differ from the other special tokens, got {} for two",
                           scratch.path("config.json"), image),
               [&] { (void)VisionTower::load(scratch.path()); });
}

TEST(Stages, PlansOfEnormousPicturesCostNothing) {
  const VisionTower tower = load_tiny("qwen2_vl", {.weights = false});
  const ImagePlan plan = tower.plan({1000, 1000}, {.min_pixels = int64_t{1} << 34, .max_pixels = int64_t{1} << 35});
  EXPECT_GT(plan.tokens, 20'000'000);
  EXPECT_EQ(plan.prompt_tokens, plan.tokens + 2);
}

TEST(Stages, AShapeWithAZeroCanStillBeTooLarge) {
  const std::vector<float> none;
  EXPECT_THROW((void)Tensor::copy_of(std::span<const float>(none), {0, int64_t{1} << 62, int64_t{1} << 62}), Error);
  EXPECT_EQ(Tensor::copy_of(std::span<const float>(none), {0, 5}).shape(), (std::vector<int64_t>{0, 5}));
}

TEST(Stages, ASavedEmbeddingOfHugeEmptyShapeIsRefused) {
  const TemporaryDirectory directory;
  const MMEmbedding good = load_tiny("siglip").get_image_embeddings(picture({9, 9}, 1));
  good.save(directory.path() / "good.safetensors");
  const SafetensorsFile file = SafetensorsFile::open(directory.path() / "good.safetensors");
  const std::filesystem::path path = directory.path() / "bad.safetensors";
  const TensorToWrite empty{"embeddings", "F32", {0, int64_t{1} << 40}, {}};
  write_safetensors(path, std::span(&empty, 1), file.metadata());
  expect_error(ErrorCode::malformed_model,
               fmt::format("{}: embeddings: expected a shape [length, hidden], got [0, 1099511627776]", path.string()),
               [&] { (void)MMEmbedding::load(path); });
}

}  // namespace
}  // namespace oriel
