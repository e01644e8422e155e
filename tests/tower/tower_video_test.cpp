// Videos: spec/qwen_vl.md 3. Pixels and rows are compared with transformers in golden_test.cpp.
#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

std::vector<Image> frames(int64_t count, Size size = {60, 50}) {
  std::vector<Image> result;
  for (int64_t i = 0; i < count; ++i)
    result.push_back(picture(size, 100 + static_cast<uint64_t>(i), fmt::format("frame {}", i)));
  return result;
}

class QwenVideo : public testing::TestWithParam<std::string> {
 protected:
  VisionTower tower = load_tiny(GetParam());
  void expect_refused(const std::vector<Image>& video, const VideoOptions& options, const std::string& message) const {
    expect_error(ErrorCode::invalid_argument, message, [&] { (void)tower.get_video_embeddings(video, options); });
  }
};
INSTANTIATE_TEST_SUITE_P(Tiny, QwenVideo, testing::Values("qwen2_vl", "qwen2_5_vl"),
                         [](const auto& test) { return test.param; });

TEST_P(QwenVideo, AnOddFrameIsRepeatedToFillItsSlot) {
  const std::vector<Image> odd = frames(5);
  std::vector<Image> even = odd;
  even.push_back(odd.back());
  const MMEmbedding of_odd = tower.get_video_embeddings(odd);
  EXPECT_EQ(of_odd.grid().t, 3);
  expect_identical(values(of_odd), values(tower.get_video_embeddings(even)), "last frame given twice");
  EXPECT_EQ(tower.get_video_embeddings(frames(1)).grid().t, 1);
}

TEST_P(QwenVideo, AFrameShownTwiceIsAPicture) {
  const std::vector<Image> twice{picture({60, 50}, 1), picture({60, 50}, 1)};
  const MMEmbedding video = tower.get_video_embeddings(twice);
  const MMEmbedding still = tower.get_image_embeddings(twice[0]);
  expect_identical(values(video), values(still), "rows");
  EXPECT_EQ(video.grid(), still.grid());
  EXPECT_NE(video.info().placeholder_id, still.info().placeholder_id);
  EXPECT_NE(video.content_hash(), still.content_hash());
}

TEST_P(QwenVideo, SlotsDoNotReachEachOther) {
  std::vector<Image> video = frames(4);
  const std::vector<float> before = values(tower.get_video_embeddings(video));
  video[3] = picture({60, 50}, 999);
  const std::vector<float> after = values(tower.get_video_embeddings(video));
  ASSERT_EQ(before.size(), after.size());
  const size_t half = before.size() / 2;
  expect_identical({after.begin(), after.begin() + static_cast<ptrdiff_t>(half)},
                   {before.begin(), before.begin() + static_cast<ptrdiff_t>(half)}, "first slot");
  EXPECT_NE(std::vector(after.begin() + static_cast<ptrdiff_t>(half), after.end()),
            std::vector(before.begin() + static_cast<ptrdiff_t>(half), before.end()));
}

TEST_P(QwenVideo, FramesAreSampled) {
  const std::vector<Image> video = frames(9);
  const std::vector<Image> kept{video[0], video[2], video[4], video[6]};  // trunc(k * 9 / 4)
  const std::vector<float> expected = values(tower.get_video_embeddings(kept));
  const MMEmbedding by_number = tower.get_video_embeddings(video, {.sample_frames = 4});
  expect_identical(values(by_number), expected, "by number");
  EXPECT_EQ(by_number.grid().t, 2);
  // 9 frames at 9 a second: one second. 4.5 a second are floored to whole slots.
  const MMEmbedding by_rate = tower.get_video_embeddings(video, {.fps = 9, .sample_fps = 4.5});
  expect_identical(values(by_rate), expected, "by rate");
  EXPECT_DOUBLE_EQ(by_rate.info().seconds_per_slot, 0.5);
  EXPECT_NE(by_rate.content_hash(), tower.get_video_embeddings(video).content_hash());
  EXPECT_EQ(by_rate.content_hash(), tower.get_video_embeddings(kept).content_hash());
}

TEST_P(QwenVideo, InfoDescribesTheVideo) {
  const MMEmbedding video = tower.get_video_embeddings(frames(6), {.fps = 12, .embed = {.text_alias = "<clip>"}});
  EXPECT_EQ(video.text_alias(), "<clip>");
  EXPECT_EQ(video.original_size(), (Size{60, 50}));
  EXPECT_EQ(video.preprocessed_size(), (Size{56, 56}));
  EXPECT_EQ(video.grid(), (Grid{3, 4, 4}));
  EXPECT_EQ(video.length(), 3 * 2 * 2);
  EXPECT_DOUBLE_EQ(video.info().seconds_per_slot, 2.0 / 12);
  EXPECT_EQ(video.placeholder_tokens().front(), 305);
  EXPECT_EQ(video.placeholder_tokens().back(), 306);
  EXPECT_EQ(video.info().placeholder_id, 309);
}

TEST_P(QwenVideo, FramesInAGpusMemoryNeedATowerThere) {
  const std::vector<uint8_t> bytes(3 * 60 * 50);  // in the wrong memory, and never read
  const std::vector<DevicePixelView> views{{.data = bytes.data(), .size = {60, 50}}};
  const char* text = "frame 0: pixels in a GPU's memory need a tower on a GPU, this one is on cpu";
  expect_error(ErrorCode::invalid_argument, text, [&] { (void)tower.get_video_embeddings(views); });
  expect_error(ErrorCode::invalid_argument, text, [&] { (void)tower.preprocess_video(views); });
  expect_error(ErrorCode::invalid_argument, "video: expected at least one frame, got none",
               [&] { (void)tower.get_video_embeddings(std::vector<DevicePixelView>{}); });
}

TEST_P(QwenVideo, BadVideosAreRefused) {
  expect_refused({}, {}, "video: expected at least one frame, got none");
  std::vector<Image> video = frames(3);
  video.push_back(picture({50, 60}, 2, "frame 3"));
  expect_refused(video, {}, "frame 3: expected a frame of 60 x 50 as the first one, got 50 x 60");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  expect_refused(frames(2), {.fps = 0}, "fps: expected a positive number of frames per second, got 0");
  expect_refused(frames(2), {.fps = -3}, "fps: expected a positive number of frames per second, got -3");
  expect_refused(frames(2), {.fps = nan}, "fps: expected a positive number of frames per second, got nan");
  expect_refused(frames(2), {.sample_fps = 0}, "sample_fps: expected a positive number, got 0");
  expect_refused(frames(2), {.sample_fps = nan}, "sample_fps: expected a positive number, got nan");
  expect_refused(frames(2), {.sample_fps = 1, .sample_frames = 2},
                 "sample_fps, sample_frames: expected one of them, got both");
  expect_refused(frames(2), {.sample_frames = 4}, "frame 0: video: expected to sample 1 to 2 frames, got 4");
  expect_refused(frames(2), {.sample_frames = 0}, "frame 0: video: expected to sample 1 to 2 frames, got 0");
  expect_error(ErrorCode::limit_exceeded, "frame 0: needs 8 tokens, more than max_tokens = 7",
               [&] { (void)tower.get_video_embeddings(frames(4), {.embed = {.max_tokens = 7}}); });
}

// Dividing and rounding gives one step too many for these; the frame behind the last one does not exist.
TEST(Video, SamplingNeverTakesAFramePastTheEnd) {
  const VisionTower tower = load_tiny("qwen2_vl");
  for (const auto& [total, wanted] : {std::pair{17, 14}, {30, 26}, {41, 28}, {49, 44}}) {
    const Patches patches = tower.preprocess_video(frames(total), {.sample_frames = wanted});
    EXPECT_EQ(patches.images.front().grid.t, wanted / 2) << wanted << " of " << total;
  }
}

TEST(Video, OtherFamiliesTakePictures) {
  for (const std::string& name : tiny_names) {
    const VisionTower tower = load_tiny(name);
    if (tower.has_video()) continue;
    for (const std::vector<Image>& video : {frames(2), std::vector<Image>{}})
      expect_error(ErrorCode::unsupported_model, tower.family() + ": this family takes pictures, not videos",
                   [&, &refused = video] { (void)tower.get_video_embeddings(refused); });
  }
}

}  // namespace
}  // namespace oriel
