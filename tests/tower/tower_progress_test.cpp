// Progress, and stopping a call before and in the middle.
#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

using Steps = std::vector<std::tuple<Progress::Stage, int64_t, int64_t>>;
using enum Progress::Stage;

ProgressCallback record(Steps& steps) {
  return [&steps](const Progress& progress) { steps.emplace_back(progress.stage, progress.done, progress.total); };
}

TEST(ProgressReport, CountsPicturesThenBlocks) {
  const VisionTower tower = load_tiny("pixtral");
  ASSERT_EQ(tower.depth(), 3);
  const std::vector<Image> pictures{picture({40, 40}, 1), picture({30, 60}, 2)};
  Steps steps;
  (void)tower.get_image_embeddings(pictures, {.progress = record(steps)});
  EXPECT_EQ(
      steps,
      (Steps{{preprocess, 1, 2}, {preprocess, 2, 2}, {encode, 0, 3}, {encode, 1, 3}, {encode, 2, 3}, {encode, 3, 3}}));
}

TEST(ProgressReport, CountsOnlyBlocksThatRun) {
  const VisionTower tower = VisionTower::load(towers_root + "/pixtral_second_to_last_layer_bfloat16");
  ASSERT_EQ(tower.depth(), 3);
  const Image image = picture({40, 40}, 3);
  Steps steps;
  (void)tower.encode(tower.preprocess({&image, 1}), {.progress = record(steps)});
  EXPECT_EQ(steps, (Steps{{encode, 0, 2}, {encode, 1, 2}, {encode, 2, 2}}));
}

TEST(ProgressReport, CountsTheSlotsOfAVideo) {
  const VisionTower tower = load_tiny("qwen2_vl");
  const std::vector<Image> frames(5, picture({40, 40}, 4));
  Steps steps;
  (void)tower.preprocess_video(frames, {.embed = {.progress = record(steps)}});
  EXPECT_EQ(steps, (Steps{{preprocess, 1, 3}, {preprocess, 2, 3}, {preprocess, 3, 3}}));
}

TEST(ProgressReport, LoadingCountsBytes) {
  Steps steps;
  const VisionTower tower = load_tiny("gemma3", {.progress = record(steps)});
  ASSERT_GT(steps.size(), 10U);
  int64_t before = 0;
  for (const auto& [stage, done, total] : steps) {
    EXPECT_EQ(stage, Progress::Stage::load);
    EXPECT_GT(done, before);
    EXPECT_EQ(total, std::get<2>(steps.front()));
    before = done;
  }
  EXPECT_EQ(before, std::get<2>(steps.back()));
  EXPECT_EQ(tower.weight_bytes(), 2 * before) << "stored as bfloat16, held as float32";
}

void expect_cancelled(const std::function<void()>& call) {
  expect_error(ErrorCode::cancelled, "the call was cancelled", call);
}

class Cancel : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Tiny, Cancel, testing::ValuesIn(tiny_names), [](const auto& test) { return test.param; });

TEST_P(Cancel, ACallThatIsStoppedBeforeItStartsDoesNothing) {
  const VisionTower tower = load_tiny(GetParam());
  const Image image = picture({40, 40}, 5);
  const Patches patches = tower.preprocess({&image, 1});
  std::stop_source stop;
  stop.request_stop();
  const ProgressCallback never = [](const Progress&) { FAIL() << "work was done"; };
  expect_cancelled([&] { (void)tower.get_image_embeddings(image, {.progress = never, .cancel = stop.get_token()}); });
  expect_cancelled([&] { (void)tower.preprocess({&image, 1}, {.progress = never, .cancel = stop.get_token()}); });
  expect_cancelled([&] { (void)tower.encode(patches, {.progress = never, .cancel = stop.get_token()}); });
  expect_cancelled([&] { (void)load_tiny(GetParam(), {.progress = never, .cancel = stop.get_token()}); });
}

TEST_P(Cancel, ACallCanBeStoppedAtEveryStepAndTheTowerStaysUsable) {
  const VisionTower tower = load_tiny(GetParam());
  const std::vector<Image> pictures{picture({40, 40}, 6), picture({30, 60}, 7)};
  const std::vector<MMEmbedding> expected = tower.get_image_embeddings(pictures);
  Steps all;
  (void)tower.get_image_embeddings(pictures, {.progress = record(all)});
  // The last step is the end of the work: there is nothing left to stop.
  for (size_t last = 1; last < all.size(); ++last) {
    SCOPED_TRACE(last);
    std::stop_source stop;
    size_t steps = 0;
    const ProgressCallback stop_after = [&](const Progress&) {
      if (++steps == last) stop.request_stop();
    };
    expect_cancelled(
        [&] { (void)tower.get_image_embeddings(pictures, {.progress = stop_after, .cancel = stop.get_token()}); });
    EXPECT_EQ(steps, last) << "work went on";
  }
  const std::vector<MMEmbedding> after = tower.get_image_embeddings(pictures);
  for (size_t i = 0; i < after.size(); ++i) expect_identical(values(after[i]), values(expected[i]), "afterwards");
}

TEST_P(Cancel, LoadingCanBeStopped) {
  std::stop_source stop;
  int steps = 0;
  expect_cancelled([&] {
    (void)load_tiny(GetParam(), {.progress =
                                     [&](const Progress&) {
                                       if (++steps == 3) stop.request_stop();
                                     },
                                 .cancel = stop.get_token()});
  });
  EXPECT_EQ(steps, 3);
}

TEST(Cancel, AVideoCanBeStopped) {
  const VisionTower tower = load_tiny("qwen2_vl");
  const std::vector<Image> frames(6, picture({40, 40}, 8));
  std::stop_source stop;
  const VideoOptions options{
      .embed = {.progress = [&](const Progress&) { stop.request_stop(); }, .cancel = stop.get_token()}};
  expect_cancelled([&] { (void)tower.get_video_embeddings(frames, options); });
}

TEST(ProgressReport, AnExceptionOfTheCallbackReachesTheCaller) {
  const VisionTower tower = load_tiny("pixtral");
  const Image image = picture({40, 40}, 9);
  const ProgressCallback fail = [](const Progress& progress) {
    if (progress.stage == encode) throw std::runtime_error("mine");
  };
  try {
    (void)tower.get_image_embeddings(image, {.progress = fail});
    FAIL() << "nothing was thrown";
  } catch (const std::runtime_error& error) {
    EXPECT_STREQ(error.what(), "mine");
  }
  EXPECT_NO_THROW((void)tower.get_image_embeddings(image));
}

}  // namespace
}  // namespace oriel
