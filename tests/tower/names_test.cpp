// One checkpoint under every layout of names that spec/weights.md 1 lists, with the stale tensors that old files hold.
#include <gmock/gmock.h>
#include <functional>

#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

using Prefixes = std::vector<std::pair<std::string, std::string>>;

/// The first prefix that fits gives way to its replacement.
std::string renamed(const std::string& name, const Prefixes& prefixes) {
  for (const auto& [from, to] : prefixes)
    if (name.starts_with(from)) return to + name.substr(from.size());
  return name;
}

struct Layout {
  std::string checkpoint;
  std::string name;
  Prefixes prefixes;                    ///< from the names of assets/tiny
  std::vector<std::string> stale = {};  ///< further tensors of the tower's part that nothing needs
};

// assets/tiny holds gemma3, pixtral and both Qwens in the hub's old layout, mistral3 in that of 4.52, siglip whole.
const std::vector<Layout> layouts{
    {"pixtral", "Old", {}, {"vision_tower.patch_positional_embedding.inv_freq"}},
    {"pixtral",
     "Since452",
     {{"language_model.model.", "model.language_model."},
      {"language_model.lm_head.", "lm_head."},
      {"vision_tower.", "model.vision_tower."},
      {"multi_modal_projector.", "model.multi_modal_projector."}},
     {"model.vision_tower.patch_positional_embedding.inv_freq"}},
    {"mistral3",
     "Old",
     {{"model.language_model.", "language_model.model."},
      {"lm_head.", "language_model.lm_head."},
      {"model.vision_tower.", "vision_tower."},
      {"model.multi_modal_projector.", "multi_modal_projector."}}},
    {"mistral3", "Since452", {}, {"model.vision_tower.patch_positional_embedding.inv_freq"}},
    {"gemma3",
     "Old",
     {},
     {"vision_tower.vision_model.head.probe", "vision_tower.vision_model.head.mlp.fc1.weight",
      "vision_tower.vision_model.embeddings.position_ids"}},
    {"gemma3",
     "Since452",
     {{"language_model.model.", "model.language_model."},
      {"vision_tower.", "model.vision_tower."},
      {"multi_modal_projector.", "model.multi_modal_projector."}},
     {"model.vision_tower.vision_model.head.layernorm.bias"}},
    {"gemma3",
     "Canonical",
     {{"language_model.model.", "model.language_model."},
      {"vision_tower.vision_model.", "model.vision_tower."},
      {"multi_modal_projector.", "model.multi_modal_projector."}},
     {"model.vision_tower.head.probe"}},
    {"gemma3", "FreshSiglip", {{"vision_tower.vision_model.", "vision_tower."}}, {"vision_tower.head.probe"}},
    {"qwen2_vl", "Old", {}, {"visual.rotary_pos_emb.inv_freq"}},
    {"qwen2_vl",
     "Since452",
     {{"visual.", "model.visual."}, {"model.", "model.language_model."}},
     {"model.visual.rotary_pos_emb.inv_freq"}},
    {"qwen2_5_vl", "Old", {}, {"visual.rotary_pos_emb.inv_freq"}},
    {"qwen2_5_vl",
     "Since452",
     {{"visual.", "model.visual."}, {"model.", "model.language_model."}},
     {"model.visual.rotary_pos_emb.inv_freq"}},
    {"siglip", "Whole", {}, {"vision_model.embeddings.position_ids"}},
    {"siglip", "Bare", {{"vision_model.", ""}}, {"embeddings.position_ids"}}};

class Names : public testing::TestWithParam<Layout> {};

TEST_P(Names, EveryLayoutGivesTheSameRows) {
  const Layout& layout = GetParam();
  const VisionTower original = load_tiny(layout.checkpoint);
  const Scratch scratch(layout.checkpoint);
  std::vector<StoredTensor> tensors = scratch.tensors();
  for (StoredTensor& tensor : tensors) tensor.name = renamed(tensor.name, layout.prefixes);
  for (const std::string& name : layout.stale)
    tensors.push_back({name, name.ends_with("position_ids") ? "I64" : "F32", {2}, {}});
  for (StoredTensor& tensor : tensors)
    if (tensor.bytes.empty()) tensor.bytes.resize(tensor.dtype == "I64" ? 16 : 8);
  scratch.write_tensors(tensors);

  const VisionTower tower = scratch.load();
  EXPECT_EQ(tower.fingerprint(), original.fingerprint());
  const Image image = picture({75, 58}, 1);
  expect_identical(values(tower.get_image_embeddings(image)), values(original.get_image_embeddings(image)), "rows");

  const ModelReport report = inspect_model(scratch.path());
  EXPECT_TRUE(report.complete());
  EXPECT_EQ(report.found.size(), inspect_model(tiny(layout.checkpoint)).found.size());
  std::vector<std::string> unused;
  for (const ReportedTensor& tensor : report.unused) unused.push_back(tensor.name);
  EXPECT_THAT(unused, testing::IsSupersetOf(layout.stale));
}

INSTANTIATE_TEST_SUITE_P(Layouts, Names, testing::ValuesIn(layouts),
                         [](const auto& test) { return test.param.checkpoint + "_" + test.param.name; });

TEST(Names, MixedLayoutsOfOneTensorAreRefused) {
  const Scratch scratch("qwen2_vl");
  std::vector<StoredTensor> tensors = scratch.tensors();
  for (const StoredTensor& tensor : scratch.tensors())
    if (tensor.name == "visual.merger.ln_q.weight") {
      tensors.push_back(tensor);
      tensors.back().name = "model." + tensor.name;
    }
  scratch.write_tensors(tensors);
  scratch.expect_refused(ErrorCode::malformed_model,
                         "/model.safetensors: model.visual.merger.ln_q.weight and visual.merger.ln_q.weight are two "
                         "names of one tensor; expected one of them");
}

TEST(Names, ShardsGiveTheSameRows) {
  const Scratch scratch("pixtral");
  std::vector<StoredTensor> shards[2];
  std::string map;
  for (const StoredTensor& tensor : scratch.tensors()) {
    const size_t shard = tensor.name.size() % 2;
    shards[shard].push_back(tensor);
    map += fmt::format("{}\"{}\": \"shard-{}.safetensors\"", map.empty() ? "" : ", ", tensor.name, shard);
  }
  scratch.remove("model.safetensors");
  for (size_t shard = 0; shard < 2; ++shard) {
    ASSERT_FALSE(shards[shard].empty());
    scratch.write_tensors(shards[shard], fmt::format("shard-{}.safetensors", shard));
  }
  scratch.write("model.safetensors.index.json", "{\"weight_map\": {" + map + "}}");
  const Image image = picture({75, 58}, 2);
  expect_identical(values(scratch.load().get_image_embeddings(image)),
                   values(load_tiny("pixtral").get_image_embeddings(image)), "rows");
}

}  // namespace
}  // namespace oriel
