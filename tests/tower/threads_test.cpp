// One tower, many threads.
#include <algorithm>
#include <atomic>

#include "threads/in_threads.hpp"
#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

class Threads : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Tiny, Threads, testing::ValuesIn(tiny_names), [](const auto& test) { return test.param; });

TEST_P(Threads, EightAtOnceGetWhatOneGets) {
  const VisionTower tower = load_tiny(GetParam());
  const std::vector<Image> pictures = mixed_pictures();
  std::vector<std::vector<float>> expected;
  for (const Image& image : pictures) expected.push_back(values(tower.get_image_embeddings(image)));
  std::vector<std::vector<std::vector<float>>> got(thread_count);
  in_threads([&](int thread) {
    // Every thread begins with another picture, so that sizes meet in all combinations.
    for (size_t k = 0; k < 2 * pictures.size(); ++k) {
      const Image& image = pictures[(static_cast<size_t>(thread) + k) % pictures.size()];
      got[static_cast<size_t>(thread)].push_back(values(tower.get_image_embeddings(image)));
    }
  });
  for (size_t thread = 0; thread < thread_count; ++thread)
    for (size_t k = 0; k < got[thread].size(); ++k)
      expect_identical(got[thread][k], expected[(thread + k) % pictures.size()],
                       fmt::format("thread {}, call {}", thread, k));
}

TEST_P(Threads, PackedCallsPlansAndHiddenStatesMixToo) {
  const VisionTower tower = load_tiny(GetParam());
  const std::vector<Image> pictures = mixed_pictures();
  const Patches patches = tower.preprocess(pictures);
  const std::vector<Tensor> expected = tower.encode(patches);
  const std::vector<int64_t> layers{0, -1};
  const std::vector<Tensor> states = tower.get_hidden_states(patches, layers);
  std::atomic<int> wrong = 0;
  const auto compare = [&](const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
    for (size_t i = 0; i < a.size(); ++i) wrong += a[i].to_float32() != b[i].to_float32();
  };
  in_threads([&](int thread) {
    for (int round = 0; round < 4; ++round) {
      if (thread % 4 == 0) compare(tower.encode(patches), expected);
      if (thread % 4 == 1) compare(tower.get_hidden_states(patches, layers), states);
      if (thread % 4 == 2) compare(tower.encode(tower.preprocess(pictures)), expected);
      if (thread % 4 == 3)
        for (const Image& image : pictures)
          wrong += tower.plan(image.size()).tokens != tower.get_image_embeddings(image).length();
    }
  });
  EXPECT_EQ(wrong, 0);
}

TEST(Threads, TowersLoadAtTheSameTime) {
  const Image image = picture({60, 60}, 1);
  in_threads([&](int thread) {
    const std::string& name = tiny_names[static_cast<size_t>(thread) % tiny_names.size()];
    const VisionTower tower = load_tiny(name);
    if (tower.fingerprint() != load_tiny(name).fingerprint()) throw std::runtime_error("another fingerprint");
    if (tower.get_image_embeddings(image).length() < 1) throw std::runtime_error("no rows");
  });
}

TEST(Ids, NeverRepeatAcrossThreads) {
  constexpr int64_t each = 500;
  std::vector<std::vector<std::pair<int64_t, int64_t>>> ranges(thread_count);
  in_threads([&](int thread) {
    for (int64_t i = 0; i < each; ++i) {
      const int64_t length = 1 + (i * 7 + thread) % 5;
      const std::vector<float> rows(static_cast<size_t>(length * 2));
      const MMEmbedding embedding = MMEmbedding::from_rows(Tensor::copy_of(rows, {length, 2}));
      ranges[static_cast<size_t>(thread)].emplace_back(embedding.first_id(), embedding.first_id() + length);
    }
  });
  std::vector<std::pair<int64_t, int64_t>> all;
  for (const auto& of_thread : ranges) {
    EXPECT_TRUE(std::is_sorted(of_thread.begin(), of_thread.end())) << "a thread saw ids go down";
    all.insert(all.end(), of_thread.begin(), of_thread.end());
  }
  std::sort(all.begin(), all.end());
  ASSERT_EQ(all.size(), thread_count * static_cast<size_t>(each));
  EXPECT_GE(all.front().first, 1'000'000'000);
  for (size_t i = 1; i < all.size(); ++i) ASSERT_GE(all[i].first, all[i - 1].second) << "ranges overlap";
}

}  // namespace
}  // namespace oriel
