// Towers at both ends: pictures of one patch, or as few as a family allows, and calls of more than 32,768 patches.
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>

#include <oriel/torch.hpp>

#include "kernels/towers.hpp"

namespace oriel {
namespace {

class TowerSizes : public TowerOnGpu {
 protected:
  /// Random patches of these grids on the GPU, in bfloat16.
  static Patches draw(const VisionTower& tower, const std::vector<Grid>& grids) {
    Patches patches;
    int64_t rows = 0;
    for (const Grid& grid : grids) {
      patches.images.push_back({.grid = grid, .name = "random"});
      rows += grid.patches();
    }
    const int64_t values = 3 * tower.patch_size() * tower.patch_size() * (tower.has_video() ? 2 : 1);
    patches.values = from_torch(at::randn({rows, values}, at::dtype(at::kFloat).device(at::kCUDA)).to(at::kBFloat16));
    return patches;
  }
  static at::Tensor wide(const Tensor& rows) { return to_torch(rows).to(at::kCUDA, at::kDouble); }
  /// Norm over norm.
  static double distance(const Tensor& ours, const Tensor& truth) {
    return ((wide(ours) - wide(truth)).norm() / wide(truth).norm()).item<double>();
  }
};

TEST_F(TowerSizes, TheSmallestPicturesGiveTheRowsOfTheCpu) {
  struct Case {
    std::string tower;
    int64_t patches;
  };
  for (const auto& [name, patches] :
       {Case{"pixtral_64", 1}, Case{"mistral3_64", 4}, Case{"qwen2_vl_80", 4}, Case{"qwen2_5_vl_80", 4},
        Case{"gemma3_72_one_patch", 1}, Case{"siglip_72_one_patch", 1}, Case{"pixtral", 1}, Case{"qwen2_5_vl", 4}})
    for (const DType dtype : {DType::float32, DType::bfloat16, DType::float16}) {
      SCOPED_TRACE(name);
      const VisionTower cpu = load(name, Device::cpu(), DType::float32);
      const VisionTower gpu = load(name, Device::cuda(), dtype);
      EmbedOptions options;
      PreprocessOptions limits;
      if (gpu.has_pixel_limits()) options.min_pixels = limits.min_pixels = 1;
      const Image image = noise(5, 4, 1);
      ASSERT_EQ(gpu.plan({5, 4}, limits).grid.patches(), patches);
      const std::vector<float> expected = values(cpu.get_image_embeddings(image, options));
      // As for larger pictures: the rounding of the dtype.
      const double tolerance = dtype == DType::float32 ? 1e-4 : dtype == DType::bfloat16 ? 0.05 : 0.01;
      for (int round = 0; round < 3; ++round)  // plain, captured, replayed
        EXPECT_LT(largest_difference(values(gpu.get_image_embeddings(image, options)), expected),
                  tolerance * scale(expected));
      // Two of them, side by side with a large one: segments of one row beside others.
      const std::vector<Image> images{image, noise(260, 200, 2), image};
      const auto packed = gpu.get_image_embeddings(images, options);
      for (const size_t i : {size_t{0}, size_t{2}})
        EXPECT_LT(largest_difference(values(packed[i]), expected), tolerance * scale(expected));
    }
}

// Sides are primes, so that no tile, bucket or round of blocks comes out even. The truth is float32 on the GPU, which
// other tests hold against the CPU's: there this would take minutes. Norm over norm, since a softmax over so many keys
// averages values to a few percent of a row: a part of the keys that is left out would move the norm by as much, the
// rounding to bfloat16 moves it by one (0.9 percent were seen on the CPU, of 3,969 patches). attention_test.cpp is
// stricter.
TEST_F(TowerSizes, ManyTokensGiveTheRowsOfFloat32) {
  const std::vector<Grid> grids{{1, 131, 251}};  // 32,881 patches
  const VisionTower truth = load("pixtral_64", Device::cuda(), DType::float32);
  const Patches patches = draw(truth, grids);
  Patches wide_patches = patches;
  wide_patches.values = from_torch(to_torch(patches.values).to(at::kFloat));
  const Tensor expected = truth.encode(wide_patches).front();
  const VisionTower tower = load("pixtral_64", Device::cuda(), DType::bfloat16);
  EXPECT_LT(distance(tower.encode(patches).front(), expected), 0.018);
}

TEST_F(TowerSizes, ManyTokensOfManyPicturesAreThoseOfEachAlone) {
  for (const std::string name : {"pixtral_64", "qwen2_5_vl_80"}) {
    SCOPED_TRACE(name);
    const VisionTower tower = load(name, Device::cuda(), DType::bfloat16, /*deterministic=*/true);
    const int64_t merge = tower.merge_size();
    std::vector<Grid> grids;
    for (const auto& [h, w] : std::vector<std::pair<int64_t, int64_t>>{
             {101, 127}, {1, 1}, {3, 61}, {67, 113}, {1, 97}, {53, 53}, {97, 101}, {2, 2}})
      grids.push_back({1, merge == 1 ? h : h / merge * merge + merge, merge == 1 ? w : w / merge * merge + merge});
    const Patches packed = draw(tower, grids);
    ASSERT_GT(packed.values.shape()[0], 32768);
    const std::vector<Tensor> rows = tower.encode(packed);
    int64_t begin = 0;
    for (size_t i = 0; i < grids.size(); ++i) {
      const int64_t end = begin + grids[i].patches();
      const Tensor alone = tower.encode({packed.values.rows(begin, end), {packed.images[i]}}).front();
      EXPECT_EQ(rows[i].to_float32(), alone.to_float32()) << grids[i].h << " x " << grids[i].w;
      begin = end;
    }
  }
}

}  // namespace
}  // namespace oriel
