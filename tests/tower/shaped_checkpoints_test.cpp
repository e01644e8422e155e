// The checkpoints that tests on a GPU write for themselves: that they are what their names say.
#include "tower/shaped_checkpoints.hpp"

#include "tower/checkpoints.hpp"

namespace oriel {
namespace {

TEST(ShapedCheckpoints, AreCompleteAndTellPicturesApart) {
  for (const auto& [name, shaped] : shaped_checkpoints()) {
    SCOPED_TRACE(name);
    const ModelReport report = inspect_model(checkpoint(name));
    EXPECT_TRUE(report.complete());
    EXPECT_TRUE(report.unused.empty());
    const VisionTower tower = VisionTower::load(checkpoint(name), {.threads = 2});
    const std::vector<float> first = values(tower.get_image_embeddings(picture({120, 90}, 1)));
    const std::vector<float> second = values(tower.get_image_embeddings(picture({120, 90}, 2)));
    double difference = 0;
    double size = 0;
    for (size_t i = 0; i < first.size(); ++i) {
      difference = std::max(difference, std::abs(static_cast<double>(first[i]) - second[i]));
      size = std::max(size, std::abs(static_cast<double>(first[i])));
    }
    EXPECT_GT(difference, 0.1 * size);
    EXPECT_GT(size, 0.1);
    EXPECT_LT(size, 100);
  }
}

TEST(ShapedCheckpoints, OnePatchIsOnePatch) {
  for (const std::string name : {"gemma3_72_one_patch", "siglip_72_one_patch"})
    EXPECT_EQ(VisionTower::load(checkpoint(name), {.threads = 1}).plan({30, 20}).grid, (Grid{1, 1, 1})) << name;
}

}  // namespace
}  // namespace oriel
