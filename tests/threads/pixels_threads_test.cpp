// Resizing and patches on one pool.
#include "image/patches.hpp"
#include "image/pixel_recipes.hpp"
#include "threads/in_threads.hpp"

namespace oriel {
namespace {

TEST(ThreadsOfResize, OnePoolServesAll) {
  using namespace image;
  const ThreadPool pool(3);
  const ThreadPool alone(1);
  const Picture source = noise({311, 203}, 5);
  const auto resized = [&](const ThreadPool& used, int variant) {
    Picture target = blank({90 + variant % 4, 70 + variant / 4});
    resize(source.view(), target.mutable_view(), Filter::bicubic, static_cast<ResizeArithmetic>(variant % 3), used);
    return target;
  };
  std::vector<Picture> expected;
  for (int i = 0; i < thread_count; ++i) expected.push_back(resized(alone, i));
  in_threads([&](int thread) {
    for (int k = 0; k < 2 * thread_count; ++k) {
      const int variant = (thread + k) % thread_count;
      expect(resized(pool, variant).rgb == expected[static_cast<size_t>(variant)].rgb,
             "pixels are the single thread's");
    }
  });
}

TEST(ThreadsOfPatches, OnePoolServesAll) {
  using namespace image;
  PixelSpec spec;
  spec.mean = spec.std = {0.5, 0.4, 0.3};
  spec.merge = 2;
  spec.temporal = 2;
  const ThreadPool pool(3);
  const ThreadPool alone(1);
  const Picture source = noise({200, 150}, 9);
  const RgbView view = source.view();
  const auto patches = [&](const ThreadPool& used) {
    std::vector<float> rows(static_cast<size_t>(8 * 12 * spec.patch_values()));
    write_patches({&view, 1}, {168, 112}, spec, ResizeArithmetic::torchvision, used, rows);
    return rows;
  };
  const std::vector<float> expected = patches(alone);
  in_threads([&](int) {
    for (int round = 0; round < 8; ++round) expect(patches(pool) == expected, "values are the single thread's");
  });
}

}  // namespace
}  // namespace oriel
