// EmbeddingCache: what is shared, what is kept, what is thrown away, and what happens when things go wrong.
#include <atomic>
#include <barrier>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <oriel/oriel.hpp>
#include <random>
#include <thread>

#include "core/expect_error.hpp"
#include "core/temporary_directory.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

const std::string model = std::string(ORIEL_ASSETS) + "/tiny/qwen2_vl";

VisionTower load_tower() { return VisionTower::load(model, {.threads = 1}); }

/// A picture that differs from those of other seeds.
Image noise(uint32_t seed, Size size = {60, 40}) {
  std::mt19937 random(seed);
  std::vector<uint8_t> pixels(static_cast<size_t>(size.width * size.height * 3));
  for (uint8_t& value : pixels) value = static_cast<uint8_t>(random());
  return Image::from_pixels({pixels.data(), size}, {}, "noise " + std::to_string(seed));
}

TEST(EmbeddingCache, EqualPixelsGiveTheSameIdsAndRows) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache;
  const MMEmbedding first = cache.get_image_embeddings(tower, noise(1), {.text_alias = "<a>"});
  const MMEmbedding again = cache.get_image_embeddings(tower, noise(1));
  const MMEmbedding other = cache.get_image_embeddings(tower, noise(2));
  EXPECT_EQ(again.ids(), first.ids());
  EXPECT_EQ(again.embeddings().data(), first.embeddings().data());
  EXPECT_EQ(first.text_alias(), "<a>");
  EXPECT_EQ(again.text_alias(), "<$EMB_" + std::to_string(first.first_id()) + "$>");
  EXPECT_NE(other.first_id(), first.first_id());
  EXPECT_EQ(cache.stats().hits, 1);
  EXPECT_EQ(cache.stats().misses, 2);
  EXPECT_EQ(cache.stats().host_bytes, static_cast<int64_t>(first.size_in_bytes() + other.size_in_bytes()));
  expect_identical(first.embeddings().to_float32(), tower.get_image_embeddings(noise(1)).embeddings().to_float32(),
                   "rows");
}

TEST(EmbeddingCache, EveryOptionThatChangesTheRowsIsPartOfTheKey) {
  const VisionTower tower = load_tower();
  const VisionTower half = VisionTower::load(model, {.dtype = DType::bfloat16, .threads = 1});
  EmbeddingCache cache;
  const Image image = noise(1, {200, 150});
  const MMEmbedding base = cache.get_image_embeddings(tower, image);
  std::vector<MMEmbedding> others{
      cache.get_image_embeddings(tower, image, {.min_pixels = 60'000}),
      cache.get_image_embeddings(tower, image, {.max_pixels = 10'000}),
      cache.get_image_embeddings(tower, image, {.resize = ResizeBackend::pillow}),
      cache.get_image_embeddings(tower, image, {.resize = ResizeBackend::pillow12}),
      cache.get_image_embeddings(half, image),
  };
  for (const MMEmbedding& other : others) EXPECT_NE(other.first_id(), base.first_id());
  EXPECT_EQ(cache.stats().misses, 6);
  EXPECT_EQ(cache.get_image_embeddings(tower, image).first_id(), base.first_id());
}

TEST(EmbeddingCache, AHitKeepsToTheLimitsOfItsCall) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache;
  const MMEmbedding embedding = cache.get_image_embeddings(tower, noise(1));
  EXPECT_EQ(cache.get_image_embeddings(tower, noise(1), {.max_tokens = embedding.length()}).ids(), embedding.ids());
  EXPECT_THROW((void)cache.get_image_embeddings(tower, noise(1), {.max_tokens = embedding.length() - 1}), Error);
}

TEST(EmbeddingCache, AHitUnderACallersKeyKeepsToMaxTokensAsAMissWould) {
  const VisionTower tower = load_tower();
  const TemporaryDirectory directory;
  const auto open = [] { return noise(1, {200, 150}); };
  const auto get = [&](EmbeddingCache& cache, int64_t most) {
    return cache.get_image_embeddings(tower, "photo 7", open, {.max_tokens = most});
  };
  EmbeddingCache cache({.directory = directory.path().string()});
  const MMEmbedding embedding = cache.get_image_embeddings(tower, "photo 7", open);
  EXPECT_EQ(get(cache, embedding.length()).ids(), embedding.ids());
  EmbeddingCache restarted({.directory = directory.path().string()});
  for (EmbeddingCache* each : {&cache, &restarted}) {
    try {
      (void)get(*each, embedding.length() - 1);
      ADD_FAILURE() << "expected limit_exceeded";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::limit_exceeded) << error.what();
    }
  }
}

TEST(EmbeddingCache, TheLeastRecentlyUsedGoesFirst) {
  const VisionTower tower = load_tower();
  const auto bytes = static_cast<int64_t>(tower.get_image_embeddings(noise(1)).size_in_bytes());
  EmbeddingCache cache({.max_host_bytes = 2 * bytes});
  const MMEmbedding one = cache.get_image_embeddings(tower, noise(1));
  const MMEmbedding two = cache.get_image_embeddings(tower, noise(2));
  EXPECT_EQ(cache.get_image_embeddings(tower, noise(1)).ids(), one.ids());  // now two is the older one
  (void)cache.get_image_embeddings(tower, noise(3));
  EXPECT_EQ(cache.stats().entries, 2);
  EXPECT_EQ(cache.stats().evictions, 1);
  EXPECT_EQ(cache.stats().host_bytes, 2 * bytes);
  EXPECT_EQ(cache.get_image_embeddings(tower, noise(1)).ids(), one.ids());
  EXPECT_NE(cache.get_image_embeddings(tower, noise(2)).ids(), two.ids());
  EXPECT_EQ(two.embeddings().shape()[0], two.length()) << "a caller's embedding outlives the cache's";
}

TEST(EmbeddingCache, WhatIsLargerThanTheLimitIsNotKept) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache({.max_host_bytes = 0});
  const MMEmbedding one = cache.get_image_embeddings(tower, noise(1));
  EXPECT_NE(cache.get_image_embeddings(tower, noise(1)).ids(), one.ids());
  EXPECT_EQ(cache.stats().entries, 0);
  EXPECT_EQ(cache.stats().host_bytes, 0);
}

TEST(EmbeddingCache, ClearForgetsEverything) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache;
  (void)cache.get_image_embeddings(tower, noise(1));
  cache.clear();
  EXPECT_EQ(cache.stats().entries, 0);
  EXPECT_EQ(cache.stats().host_bytes, 0);
  (void)cache.get_image_embeddings(tower, noise(1));
  EXPECT_EQ(cache.stats().misses, 2);
}

TEST(EmbeddingCache, ACallersKeyStandsForThePicture) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache;
  int opened = 0;
  const auto open = [&] {
    ++opened;
    return noise(1);
  };
  const MMEmbedding first = cache.get_image_embeddings(tower, "photo 7", open);
  EXPECT_EQ(cache.get_image_embeddings(tower, "photo 7", open).ids(), first.ids());
  EXPECT_NE(cache.get_image_embeddings(tower, "photo 8", open).ids(), first.ids());
  EXPECT_EQ(opened, 2);
}

TEST(EmbeddingCache, RowsOfACallbackNeedACallersKey) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache;
  const auto zeros = [&](std::span<const int64_t> ids) {
    const auto count = static_cast<int64_t>(ids.size());
    const std::vector<float> rows(static_cast<size_t>(count * tower.hidden_size()));
    return Tensor::copy_of(std::span<const float>(rows), {count, tower.hidden_size()});
  };
  const EmbedOptions options{.layout = TokenLayout::exllamav2, .token_rows = zeros};
  expect_error(ErrorCode::invalid_argument,
               "layout exllamav2: its rows depend on token_rows; use the overload of the cache that takes a key",
               [&] { (void)cache.get_image_embeddings(tower, noise(1), options); });
  const MMEmbedding baked = cache.get_image_embeddings(
      tower, "photo", [] { return noise(1); }, options);
  EXPECT_EQ(baked.length(), tower.get_image_embeddings(noise(1)).length() + 2);
}

TEST(EmbeddingCache, ThreadsThatAskTogetherEncodeOnce) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache;
  constexpr int threads = 8;
  std::barrier start(threads);
  std::atomic<int> opened{0};
  std::vector<int64_t> first_ids(threads);
  {
    std::vector<std::jthread> workers;
    for (int i = 0; i < threads; ++i)
      workers.emplace_back([&, i] {
        start.arrive_and_wait();
        const MMEmbedding embedding = cache.get_image_embeddings(tower, "shared", [&] {
          ++opened;
          std::this_thread::sleep_for(std::chrono::milliseconds(50));  // long enough that the others come to wait
          return noise(1);
        });
        first_ids[static_cast<size_t>(i)] = embedding.first_id();
      });
  }
  EXPECT_EQ(opened, 1);
  for (const int64_t id : first_ids) EXPECT_EQ(id, first_ids[0]);
  EXPECT_EQ(cache.stats().misses, 1);
  EXPECT_EQ(cache.stats().hits, threads - 1);
}

TEST(EmbeddingCache, AFailureReachesOnlyTheCallThatFailed) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache;
  constexpr int threads = 4;
  std::barrier start(threads);
  std::atomic<int> opened{0};
  std::atomic<int> failed{0};
  {
    std::vector<std::jthread> workers;
    for (int i = 0; i < threads; ++i)
      workers.emplace_back([&] {
        start.arrive_and_wait();
        try {
          (void)cache.get_image_embeddings(tower, "shared", [&]() -> Image {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            if (opened++ == 0) throw Error(ErrorCode::file_error, "gone");
            return noise(1);
          });
        } catch (const Error& error) {
          EXPECT_EQ(error.code(), ErrorCode::file_error);
          ++failed;
        }
      });
  }
  EXPECT_EQ(failed, 1);
  EXPECT_EQ(opened, 2);
  EXPECT_EQ(cache.stats().misses, 1);
}

TEST(EmbeddingCache, AWaitingCallCanBeCancelled) {
  const VisionTower tower = load_tower();
  EmbeddingCache cache;
  std::stop_source stop;
  std::atomic<bool> encoding{false};
  std::atomic<bool> release{false};
  std::jthread slow([&] {
    (void)cache.get_image_embeddings(tower, "shared", [&] {
      encoding = true;
      while (!release) std::this_thread::yield();
      return noise(1);
    });
  });
  while (!encoding) std::this_thread::yield();
  std::jthread canceller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    stop.request_stop();
  });
  expect_error(ErrorCode::cancelled, "the call was cancelled", [&] {
    (void)cache.get_image_embeddings(tower, "shared", [] { return noise(1); }, {.cancel = stop.get_token()});
  });
  release = true;
}

class CacheDirectoryTest : public testing::Test {
 protected:
  TemporaryDirectory temporary;
  std::filesystem::path directory = temporary.path() / "cache";
  std::mutex mutex;
  std::vector<std::string> warnings;
  CacheOptions options{.directory = directory, .log = [this](LogLevel level, std::string_view message) {
                         const std::lock_guard guard(mutex);
                         if (level == LogLevel::warning) warnings.emplace_back(message);
                       }};
  VisionTower tower = load_tower();

  std::vector<std::filesystem::path> files() const {
    std::vector<std::filesystem::path> result;
    for (const auto& entry : std::filesystem::directory_iterator(directory)) result.push_back(entry.path());
    return result;
  }
};

TEST_F(CacheDirectoryTest, ASecondCacheReadsWhatTheFirstWrote) {
  const MMEmbedding written = EmbeddingCache(options).get_image_embeddings(tower, noise(1));
  EmbeddingCache second(options);
  const MMEmbedding read = second.get_image_embeddings(tower, noise(1));
  expect_identical(read.embeddings().to_float32(), written.embeddings().to_float32(), "rows");
  EXPECT_EQ(read.placeholder_tokens(), written.placeholder_tokens());
  EXPECT_NE(read.first_id(), written.first_id());
  EXPECT_EQ(second.stats().directory_hits, 1);
  EXPECT_EQ(second.stats().misses, 0);
  EXPECT_TRUE(warnings.empty());
}

TEST_F(CacheDirectoryTest, DamagedFilesAreIgnoredWithAWarning) {
  (void)EmbeddingCache(options).get_image_embeddings(tower, noise(1));
  ASSERT_EQ(files().size(), 1u);
  std::filesystem::resize_file(files()[0], 100);
  EmbeddingCache second(options);
  (void)second.get_image_embeddings(tower, noise(1));
  EXPECT_EQ(second.stats().misses, 1);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find(files()[0].string()), std::string::npos) << warnings[0];
}

TEST_F(CacheDirectoryTest, AnotherPicturesFileIsIgnoredWithAWarning) {
  (void)EmbeddingCache(options).get_image_embeddings(tower, noise(1));
  const std::filesystem::path first = files()[0];
  (void)EmbeddingCache(options).get_image_embeddings(tower, noise(2));
  for (const auto& path : files())
    if (path != first) std::filesystem::copy_file(first, path, std::filesystem::copy_options::overwrite_existing);
  EmbeddingCache third(options);
  (void)third.get_image_embeddings(tower, noise(2));
  EXPECT_EQ(third.stats().misses, 1);
  ASSERT_EQ(warnings.size(), 1u);
  EXPECT_NE(warnings[0].find("another picture"), std::string::npos) << warnings[0];
}

TEST_F(CacheDirectoryTest, TheOldestFilesGoWhenTheDirectoryIsFull) {
  (void)EmbeddingCache(options).get_image_embeddings(tower, noise(1));
  const std::filesystem::path oldest = files()[0];
  std::filesystem::last_write_time(oldest, std::filesystem::file_time_type::clock::now() - std::chrono::hours(1));
  options.max_directory_bytes = static_cast<int64_t>(std::filesystem::file_size(oldest)) * 2 + 100;
  EmbeddingCache second(options);
  (void)second.get_image_embeddings(tower, noise(2));
  (void)second.get_image_embeddings(tower, noise(3));
  EXPECT_EQ(files().size(), 2u);
  EXPECT_FALSE(std::filesystem::exists(oldest));
}

TEST_F(CacheDirectoryTest, ADirectoryThatCantBeMadeIsAnError) {
  temporary.write("file", "not a directory");
  options.directory = temporary.path() / "file";
  EXPECT_THROW(EmbeddingCache{options}, Error);
  expect_error(ErrorCode::invalid_argument, "max_host_bytes: expected at least 0, got -1",
               [] { EmbeddingCache cache({.max_host_bytes = -1}); });
}

}  // namespace
}  // namespace oriel
