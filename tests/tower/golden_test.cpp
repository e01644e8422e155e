// Every tower against what transformers computed, stage by stage, so that a failure names the stage.
#include "tower/golden.hpp"

namespace oriel {
namespace {

// float32 against float32: both round differently, layer after layer; 1e-5 of the scale is the project's promise.
constexpr double float32_tolerance = 1e-5;

class TowerGolden : public testing::TestWithParam<std::string> {
 protected:
  std::filesystem::path directory = std::filesystem::path(towers_root) / GetParam();
  Golden golden{directory / "golden.safetensors"};
  VisionTower tower = VisionTower::load(directory, {.threads = 2});
};

std::string indexed(const char* name, size_t index) { return std::string(name) + "." + std::to_string(index); }

TEST_P(TowerGolden, PatchesAreBitEqual) {
  const std::vector<Image> images = golden.images();
  ASSERT_GE(images.size(), 2u);
  const Patches patches = tower.preprocess(images);
  int64_t begin = 0;
  for (size_t i = 0; i < images.size(); ++i) {
    const int64_t end = begin + patches.images[i].grid.patches();
    const Grid grid = patches.images[i].grid;
    EXPECT_EQ((std::vector{grid.t, grid.h, grid.w}), golden.values<int64_t>(indexed("grid", i)));
    expect_identical(patches.values.rows(begin, end).to_float32(), golden.values<float>(indexed("pixels", i)),
                     indexed("pixels", i));
    begin = end;
  }
}

TEST_P(TowerGolden, HiddenStatesOfEveryLayerAgree) {
  const Patches patches = tower.preprocess(golden.images());
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer <= tower.depth(); ++layer) layers.push_back(layer);
  const std::vector<Tensor> states = tower.get_hidden_states(patches, layers);
  ASSERT_EQ(states.size(), layers.size());
  for (size_t layer = 0; layer < states.size(); ++layer)
    expect_close(states[layer].to_float32(), golden.values<float>(indexed("hidden", layer)), float32_tolerance,
                 indexed("hidden", layer));
  const std::vector<int64_t> from_the_end{-1, -tower.depth() - 1};
  const std::vector<Tensor> same = tower.get_hidden_states(patches, from_the_end);
  expect_identical(same[0].to_float32(), states.back().to_float32(), "layer -1");
  expect_identical(same[1].to_float32(), states.front().to_float32(), "layer -depth - 1");
}

TEST_P(TowerGolden, EmbeddingsOfAPackedCallAgree) {
  const std::vector<MMEmbedding> embeddings = tower.get_image_embeddings(golden.images());
  for (size_t i = 0; i < embeddings.size(); ++i) {
    EXPECT_EQ(embeddings[i].embeddings().shape(), golden.shape(indexed("embeddings", i)));
    expect_close(embeddings[i].embeddings().to_float32(), golden.values<float>(indexed("embeddings", i)),
                 float32_tolerance, indexed("embeddings", i));
  }
}

TEST_P(TowerGolden, EmbeddingsOfSinglePicturesAgree) {
  const std::vector<Image> images = golden.images();
  for (size_t i = 0; i < images.size(); ++i)
    expect_close(tower.get_image_embeddings(images[i]).embeddings().to_float32(),
                 golden.values<float>(indexed("embeddings", i)), float32_tolerance, indexed("embeddings", i));
}

TEST_P(TowerGolden, PromptTokensAreTheProcessors) {
  const std::vector<MMEmbedding> embeddings = tower.get_image_embeddings(golden.images());
  for (size_t i = 0; i < embeddings.size(); ++i) {
    const std::string name = indexed("token_ids", i);
    const std::vector<int64_t> expected = golden.has(name) ? golden.values<int64_t>(name) : std::vector<int64_t>{};
    EXPECT_EQ(embeddings[i].placeholder_tokens(), expected);
    const Size size = embeddings[i].original_size();
    const ImagePlan plan = tower.plan(size);
    EXPECT_EQ(plan.tokens, embeddings[i].length());
    EXPECT_EQ(plan.prompt_tokens, expected.empty() ? plan.tokens : static_cast<int64_t>(expected.size()));
    EXPECT_EQ(plan.embedding_bytes, static_cast<int64_t>(embeddings[i].size_in_bytes()));
  }
}

TEST_P(TowerGolden, VideosAgreeWhereTheFamilyTakesThem) {
  if (!tower.has_video()) {
    EXPECT_THROW((void)tower.get_video_embeddings(golden.images()), Error);
    return;
  }
  for (size_t i = 0; golden.has("video." + std::to_string(i) + ".frames"); ++i) {
    const std::string prefix = "video." + std::to_string(i) + ".";
    const std::vector<Image> frames = golden.frames(i);
    const Patches patches = tower.preprocess_video(frames);
    const Grid grid = patches.images.front().grid;
    EXPECT_EQ((std::vector{grid.t, grid.h, grid.w}), golden.values<int64_t>(prefix + "grid"));
    expect_identical(patches.values.to_float32(), golden.values<float>(prefix + "pixels"), prefix + "pixels");
    const MMEmbedding embedding = tower.get_video_embeddings(frames);
    expect_close(embedding.embeddings().to_float32(), golden.values<float>(prefix + "embeddings"), float32_tolerance,
                 prefix + "embeddings");
    EXPECT_EQ(embedding.placeholder_tokens(), golden.values<int64_t>(prefix + "token_ids"));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryCheckpoint, TowerGolden, testing::ValuesIn(checkpoints_under(towers_root)),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace oriel
