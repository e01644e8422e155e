// What architectures make of their files and of sizes: the edges. Sizes in bulk are compared with transformers in
// tests/tower/plan_test.cpp.
#include "arch/architecture.hpp"

#include <gmock/gmock.h>

#include "arch/checkpoint_directory.hpp"
#include "core/expect_error.hpp"

namespace oriel::arch {
namespace {

using testing::ElementsAre;

/// Builds from config.json and preprocessor_config.json alone.
std::unique_ptr<Architecture> build(const std::string& config, const std::string& preprocessor = "{}") {
  CheckpointDirectory directory(config);
  directory.write("preprocessor_config.json", preprocessor);
  return directory.architecture();
}

/// `message` follows the directory's path.
void expect_refused(ErrorCode code, const std::string& config, const std::string& preprocessor,
                    const std::string& message) {
  SCOPED_TRACE(config + preprocessor);
  CheckpointDirectory directory(config);
  directory.write("preprocessor_config.json", preprocessor);
  expect_error(code, directory.path() + message, [&] { (void)directory.architecture(); });
}

constexpr const char* qwen2 = R"({"model_type": "qwen2_vl"})";
constexpr const char* qwen25 = R"({"model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 1280}})";
constexpr const char* mistral3 = R"({"model_type": "mistral3"})";
constexpr const char* siglip = R"({"model_type": "siglip"})";

std::string llava(const std::string& more_vision = "", const std::string& more = "") {
  return R"({"model_type": "llava", "vision_feature_select_strategy": "full", "vision_config": {"model_type": "pixtral")" +
         more_vision + "}" + more + "}";
}

// ---- the registry

TEST(Registry, OtherTypesGetTheListOfKnownOnes) {
  CheckpointDirectory directory(R"({"model_type": "qwen3_vl"})");
  expect_error(ErrorCode::unsupported_model,
               directory.path() +
                   "/config.json: model_type: expected one of gemma3, llava, mistral3, qwen2_5_vl, "
                   "qwen2_vl, siglip, siglip_vision_model, got \"qwen3_vl\"",
               [&] { (void)directory.architecture(); });
}

TEST(Registry, EveryKnownTypeIsBuilt) {
  EXPECT_THAT(known_model_types(),
              ElementsAre("gemma3", "llava", "mistral3", "qwen2_5_vl", "qwen2_vl", "siglip", "siglip_vision_model"));
  EXPECT_EQ(build(qwen2)->traits().family, "Qwen2-VL");
  EXPECT_EQ(build(qwen25)->traits().family, "Qwen2.5-VL");
  EXPECT_EQ(build(mistral3)->traits().family, "Mistral3");
  EXPECT_EQ(build(llava())->traits().family, "Pixtral");
  EXPECT_EQ(build(siglip)->traits().family, "SigLIP");
  EXPECT_EQ(build(R"({"model_type": "siglip_vision_model"})")->traits().family, "SigLIP");
  EXPECT_EQ(build(R"({"model_type": "gemma3", "vision_config": {"image_size": 896, "patch_size": 14}})",
                  R"({"size": {"height": 896, "width": 896}})")
                ->traits()
                .family,
            "Gemma 3");
}

// ---- class defaults of absent keys: spec/pixtral.md 1, qwen_vl.md 1, siglip.md 1

TEST(ClassDefaults, AreThoseOfTransformers) {
  const Traits pixtral = build(llava())->traits();
  EXPECT_THAT((std::vector{pixtral.vit.width, pixtral.vit.mlp_width, pixtral.vit.depth, pixtral.vit.heads,
                           pixtral.pixels.patch, pixtral.merge_size}),
              ElementsAre(1024, 4096, 24, 16, 16, 1));
  EXPECT_EQ(pixtral.vit.activation, ops::Activation::gelu_erf);
  EXPECT_THAT(pixtral.vit.feature_layers, ElementsAre(23));

  const auto mistral = build(mistral3);
  EXPECT_EQ(mistral->traits().pixels.patch, 14);
  EXPECT_EQ(mistral->traits().merge_size, 2);
  EXPECT_EQ(mistral->traits().row_width, 5120);
  EXPECT_THAT(mistral->traits().vit.feature_layers, ElementsAre(24));

  const auto two = build(qwen2);
  EXPECT_THAT((std::vector{two->traits().vit.width, two->traits().vit.mlp_width, two->traits().vit.depth,
                           two->traits().vit.heads, two->traits().row_width, two->traits().pixels.patch_values()}),
              ElementsAre(1280, 5120, 32, 16, 3584, 3 * 2 * 14 * 14));
  EXPECT_EQ(two->traits().vit.activation, ops::Activation::quick_gelu);

  const auto five = build(R"({"model_type": "qwen2_5_vl"})");
  EXPECT_EQ(five->traits().vit.width, 3584);
  EXPECT_EQ(five->traits().vit.mlp_width, 3420);
  for (int64_t block = 0; block < 32; ++block)
    EXPECT_EQ(five->traits().vit.windowed[static_cast<size_t>(block)], block % 8 != 7) << block;

  const auto plain = build(siglip);
  EXPECT_THAT((std::vector{plain->traits().vit.width, plain->traits().vit.mlp_width, plain->traits().vit.depth,
                           plain->traits().vit.heads, plain->traits().pixels.patch}),
              ElementsAre(768, 3072, 12, 12, 16));
}

// ---- sizes

TEST(Plan, QwenRefusesAnAspectOverTwoHundred) {
  for (const char* config : {qwen2, qwen25}) {
    const auto architecture = build(config);
    EXPECT_EQ(architecture->plan({4000, 20}, {}).grid, (Grid{1, 2, 286}));
    EXPECT_NO_THROW((void)architecture->plan({20, 4000}, {}));
    expect_error(ErrorCode::unsupported_image, "a picture of 4001 x 20 pixels: expected an aspect ratio of at most 200",
                 [&] {
                   (void)architecture->plan({4001, 20}, {});
                 });
    expect_error(ErrorCode::unsupported_image, "a picture of 20 x 4001 pixels: expected an aspect ratio of at most 200",
                 [&] {
                   (void)architecture->plan({20, 4001}, {});
                 });
  }
}

TEST(Plan, QwenRoundsHalvesToEvenAndEnlargesTinyPictures) {
  const auto architecture = build(qwen2);
  EXPECT_EQ(architecture->plan({42, 70}, {}).resized, (Size{56, 56}));  // 1.5 and 2.5 units of 28
  EXPECT_EQ(architecture->plan({1, 1}, {}).resized, (Size{56, 56}));
  EXPECT_EQ(architecture->plan({13, 2000}, {}).grid.w, 2);
}

TEST(Plan, QwenPixelLimitsActAloneAndTogether) {
  const auto architecture = build(qwen2, R"({"min_pixels": 3136, "max_pixels": 1003520})");
  const Size size{300, 200};
  EXPECT_EQ(architecture->plan(size, {}).resized, (Size{308, 196}));
  EXPECT_EQ(architecture->plan(size, {.min_pixels = {}, .max_pixels = 20000}).resized, (Size{168, 112}));
  EXPECT_EQ(architecture->plan(size, {.min_pixels = 100000, .max_pixels = {}}).resized, (Size{392, 280}));
  EXPECT_EQ(architecture->plan(size, {.min_pixels = 100000, .max_pixels = 200000}).resized, (Size{392, 280}));
}

TEST(Plan, PixtralRefusesASideThatFloorsToNothing) {
  const auto architecture = build(llava(), R"({"size": {"longest_edge": 64}})");
  EXPECT_EQ(architecture->plan({64, 1}, {}).resized, (Size{64, 16}));
  expect_error(ErrorCode::unsupported_image,
               "a picture of 65 x 1 pixels: shrunk into 64 x 64, a side falls below one pixel or one token", [&] {
                 (void)architecture->plan({65, 1}, {});
               });
}

TEST(Plan, PixtralFloorsTheDoubleQuotient) {
  // Exact arithmetic would give one row of tokens more: spec/pixtral.md, pitfalls.
  const auto architecture = build(mistral3, R"({"size": {"longest_edge": 1540}})");
  EXPECT_EQ(architecture->plan({2044, 1971}, {}).resized, (Size{1540, 1484}));
  EXPECT_EQ(architecture->plan({2520, 414}, {}).resized.height, 252);
  EXPECT_EQ(architecture->plan({3388, 495}, {}).resized.height, 224);
}

TEST(Plan, PicturesMustFitWhereNothingIsResized) {
  const auto pixtral = build(mistral3, R"({"do_resize": false})");
  EXPECT_EQ(pixtral->plan({56, 28}, {}).grid, (Grid{1, 2, 4}));
  expect_error(ErrorCode::unsupported_image, "a picture of 56 x 42 pixels: expected sides of a multiple of 28 pixels",
               [&] {
                 (void)pixtral->plan({56, 42}, {});
               });
  const auto qwen = build(qwen2, R"({"do_resize": false})");
  EXPECT_EQ(qwen->plan({56, 28}, {}).grid, (Grid{1, 2, 4}));
  expect_error(ErrorCode::unsupported_image,
               "a picture of 56 x 42 pixels: expected sides of a multiple of 28 pixels, since do_resize is false", [&] {
                 (void)qwen->plan({56, 42}, {});
               });
  const auto square = build(siglip, R"({"do_resize": null})");
  EXPECT_EQ(square->plan({224, 224}, {}).rows, 14 * 14);
  expect_error(ErrorCode::unsupported_image,
               "a picture of 224 x 223 pixels: expected 224 x 224, since do_resize is false", [&] {
                 (void)square->plan({224, 223}, {});
               });
}

TEST(Plan, SiglipTakesAnyAspect) { EXPECT_EQ(build(siglip)->plan({4100, 20}, {}).grid, (Grid{1, 14, 14})); }

// ---- videos

VideoRequest video(Size frame, int64_t frames, double fps = 24) {
  VideoRequest request;
  request.frame = frame;
  request.frames = frames;
  request.fps = fps;
  return request;
}

std::vector<int64_t> frames_kept(const Architecture& architecture, int64_t frames, std::optional<double> fps,
                                 std::optional<int64_t> count) {
  VideoRequest request = video({56, 56}, frames);
  request.sample_fps = fps;
  request.sample_frames = count;
  return architecture.plan_video(request).frame_indices;
}

TEST(PlanVideo, FramesAreSampledByRateOrNumber) {
  const auto architecture = build(qwen2);
  EXPECT_THAT(frames_kept(*architecture, 5, {}, {}), ElementsAre(0, 1, 2, 3, 4));
  EXPECT_THAT(frames_kept(*architecture, 9, {}, 4), ElementsAre(0, 2, 4, 6));
  EXPECT_THAT(frames_kept(*architecture, 9, {}, 3), ElementsAre(0, 2, 4, 6));  // 1.5 slots: half to even
  EXPECT_THAT(frames_kept(*architecture, 48, 2.0, {}), ElementsAre(0, 12, 24, 36));
  EXPECT_EQ(frames_kept(*architecture, 48, 24.0, {}).size(), 48U);
  EXPECT_EQ(frames_kept(*architecture, 48, 0.001, {}).size(), 4U);  // min_frames
  EXPECT_EQ(frames_kept(*architecture, 2000, 1000.0, {}).size(), 768U);
  for (const int64_t count : {int64_t{0}, int64_t{-4}, int64_t{1} << 62})
    EXPECT_THROW((void)frames_kept(*architecture, 9, {}, count), Error) << count;
  expect_error(ErrorCode::invalid_argument, "video: expected to sample 1 to 9 frames, got 12",
               [&] { (void)frames_kept(*architecture, 9, {}, 12); });
}

TEST(PlanVideo, AnOddFrameFillsASlotOfItsOwn) {
  const auto architecture = build(qwen2, R"({"min_pixels": 3136, "max_pixels": 12845056})");
  const VideoTarget target = architecture->plan_video(video({56, 84}, 5, 10));
  EXPECT_EQ(target.target.grid, (Grid{3, 6, 4}));
  EXPECT_EQ(target.target.rows, 3 * 3 * 2);
  EXPECT_DOUBLE_EQ(target.seconds_per_slot, 0.2);
}

TEST(PlanVideo, TheCapSharesTokensAmongFrames) {
  const auto architecture = build(qwen2, R"({"min_pixels": 3136, "max_pixels": 12845056})");
  const VideoRequest request = video({1280, 720}, 400);
  const VideoTarget free = architecture->plan_video(request);
  VideoRequest capped = request;
  capped.cap_pixels_per_frame = true;
  const VideoTarget shared = architecture->plan_video(capped);
  EXPECT_EQ(free.target.resized, (Size{1288, 728}));
  // int(128000 * 28^2 * 0.9) * 2 // 400 pixels a frame: 576 units of 28 x 28.
  EXPECT_LE(shared.target.resized.width * shared.target.resized.height, 451584);
  EXPECT_EQ(shared.target.resized, (Size{896, 504}));
}

TEST(PlanVideo, ATokenBudgetBeyondAllNumbersIsRefused) {
  expect_refused(ErrorCode::malformed_model,
                 R"({"model_type": "qwen2_vl", "vision_config": {"patch_size": 4096, "spatial_merge_size": 64}})",
                 R"({"max_video_tokens": 1073741824, "cap_pixels_per_frame": true})",
                 "/preprocessor_config.json: max_video_tokens: pixels of all frames: 1073741824 * 68719476736 does not "
                 "fit");
}

TEST(PlanVideo, OtherFamiliesSayThatTheyTakePictures) {
  expect_error(ErrorCode::unsupported_model, "Mistral3: this family takes pictures, not videos", [] {
    (void)build(mistral3)->plan_video(video({56, 56}, 2));
  });
}

// ---- files that contradict themselves

TEST(Contradictions, AreNamedWithBothSides) {
  constexpr auto malformed = ErrorCode::malformed_model;
  constexpr auto unsupported = ErrorCode::unsupported_model;
  expect_refused(malformed, siglip, R"({"size": {"height": 384, "width": 384}})",
                 "/preprocessor_config.json: size: expected 224 x 224 as vision_config.image_size of config.json says, "
                 "got 384 x 384");
  expect_refused(unsupported, siglip, R"({"size": 224})",
                 "/preprocessor_config.json: size: expected {\"height\", \"width\"} of 1 to 65536 pixels, got 224");
  expect_refused(unsupported, siglip, R"({"size": null})",
                 "/preprocessor_config.json: size: expected {\"height\", \"width\"} of 1 to 65536 pixels, got null");
  expect_refused(unsupported, siglip, R"({"resample": 0})",
                 "/preprocessor_config.json: resample: expected 1 (lanczos), 2 (bilinear) or 3 (bicubic), got 0");
  expect_refused(malformed, qwen2, R"({"patch_size": 16})",
                 "/preprocessor_config.json: patch_size: expected 14 as vision_config.patch_size of config.json says, "
                 "got 16");
  expect_refused(malformed, qwen2, R"({"merge_size": 1})",
                 "/preprocessor_config.json: merge_size: expected 2 as vision_config.spatial_merge_size of config.json "
                 "says, got 1");
  expect_refused(malformed, qwen2, R"({"do_resize": null})",
                 "/preprocessor_config.json: do_resize: expected true or false, got null");
  expect_refused(unsupported, qwen2, R"({"size": 448})",
                 "/preprocessor_config.json: size: expected {\"shortest_edge\", \"longest_edge\"} in pixels, got 448");
  expect_refused(malformed, qwen2, R"({"size": {"longest_edge": 5}})",
                 "/preprocessor_config.json: size: expected shortest_edge or min_pixels, found neither");
  expect_refused(malformed, llava(R"(, "head_dim": 32)"), "{}",
                 "/config.json: vision_config.head_dim: expected hidden_size / num_attention_heads = 64, got 32");
  expect_refused(malformed, llava(R"(, "num_attention_heads": 7)"), "{}",
                 "/config.json: vision_config.hidden_size: expected hidden_size 1024 to be num_attention_heads 7 times "
                 "a multiple of 4");
  expect_refused(malformed, llava("", R"(, "vision_feature_layer": 25)"), "{}",
                 "/config.json: vision_feature_layer: expected -25 to 24, got 25");
  expect_refused(malformed, llava("", R"(, "vision_feature_layer": [])"), "{}",
                 "/config.json: vision_feature_layer: expected at least one layer, got []");
  expect_refused(unsupported, R"({"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}})", "{}",
                 "/config.json: vision_config.model_type: expected \"pixtral\", got \"clip_vision_model\"");
  expect_refused(unsupported, R"({"model_type": "llava"})", "{}",
                 "/config.json: vision_config.model_type: expected \"pixtral\", found nothing (which means a CLIP "
                 "tower)");
  expect_refused(unsupported, R"({"model_type": "llava", "vision_config": {"model_type": "pixtral"}})", "{}",
                 "/config.json: vision_feature_select_strategy: expected \"full\" (a Pixtral tower has no class token "
                 "to drop), got nothing, which means \"default\"");
  expect_refused(unsupported, R"({"model_type": "mistral3", "vision_feature_layer": [-1, -2]})", "{}",
                 "/config.json: vision_feature_layer: expected one layer, got [-1,-2]");
  expect_refused(malformed, R"({"model_type": "qwen2_5_vl", "vision_config": {"window_size": 27}})", "{}",
                 "/config.json: vision_config.window_size: expected at least one merged patch of 28 pixels, got 27");
  expect_refused(
      malformed,
      R"({"model_type": "gemma3", "vision_config": {"image_size": 896, "patch_size": 14}, "mm_tokens_per_image": 200})",
      R"({"size": {"height": 896, "width": 896}})",
      "/config.json: mm_tokens_per_image: expected a square number that pools 64 x 64 patches evenly, got "
      "200");
  expect_refused(malformed, R"({"model_type": "siglip", "vision_config": {"num_attention_heads": 7}})", "{}",
                 "/config.json: vision_config.hidden_size: expected a multiple of num_attention_heads 7, got 768");
  expect_refused(malformed, R"({"model_type": "siglip", "vision_config": {"patch_size": 300}})", "{}",
                 "/config.json: vision_config.image_size: expected at least patch_size 300, got 224");
}

TEST(Contradictions, APlaceholderThatIsASpecialTokenToo) {
  expect_refused(ErrorCode::malformed_model, R"({"model_type": "qwen2_vl", "image_token_id": 151652})", "{}",
                 "/config.json: expected image_token_id to differ from the other special tokens, got 151652 for two");
  expect_refused(ErrorCode::malformed_model, R"({"model_type": "qwen2_5_vl", "video_token_id": 151653})", "{}",
                 "/config.json: expected video_token_id to differ from the other special tokens, got 151653 for two");
  expect_refused(
      ErrorCode::malformed_model,
      R"({"model_type": "gemma3", "vision_config": {"image_size": 896, "patch_size": 14}, "boi_token_index": 262144})",
      R"({"size": {"height": 896, "width": 896}})",
      "/config.json: expected image_token_index to differ from the other special tokens, got 262144 for two");
}

TEST(Aliases, TheAliasOfNumHeadsWins) {
  EXPECT_EQ(build(R"({"model_type": "qwen2_vl", "vision_config": {"num_heads": 8}})")->traits().vit.heads, 8);
  EXPECT_EQ(build(R"({"model_type": "qwen2_vl", "vision_config": {"num_heads": 8, "num_attention_heads": 4}})")
                ->traits()
                .vit.heads,
            4);
}

TEST(Contradictions, ProcessorsOwnGeometryMustAgree) {
  CheckpointDirectory directory(mistral3);
  directory.write("processor_config.json", R"({"patch_size": 16, "spatial_merge_size": 2})");
  expect_error(ErrorCode::malformed_model,
               directory.path() +
                   "/processor_config.json: patch_size: expected 14 as vision_config.patch_size of "
                   "config.json says, got 16",
               [&] { (void)directory.architecture(); });
  directory.write("processor_config.json", R"({"patch_size": 14, "spatial_merge_size": 1})");
  expect_error(ErrorCode::malformed_model,
               directory.path() +
                   "/processor_config.json: spatial_merge_size: expected 2 as spatial_merge_size of "
                   "config.json says, got 1",
               [&] { (void)directory.architecture(); });
}

TEST(BadNumbers, AreRefusedByNameRangeAndValue) {
  constexpr auto malformed = ErrorCode::malformed_model;
  expect_refused(malformed, llava(R"(, "hidden_size": null)"), "{}",
                 "/config.json: vision_config.hidden_size: expected an integer in [1, 65536], got null");
  expect_refused(malformed, llava(R"(, "hidden_size": 0)"), "{}",
                 "/config.json: vision_config.hidden_size: expected an integer in [1, 65536], got 0");
  expect_refused(malformed, llava(R"(, "num_hidden_layers": 1000000)"), "{}",
                 "/config.json: vision_config.num_hidden_layers: expected an integer in [1, 1000], got 1000000");
  expect_refused(malformed, llava(R"(, "hidden_size": 1e300)"), "{}",
                 "/config.json: vision_config.hidden_size: expected an integer, got 1e+300");
  expect_refused(malformed, llava(R"(, "hidden_act": null)"), "{}",
                 "/config.json: vision_config.hidden_act: expected a string, got null");
  expect_refused(malformed, R"({"model_type": "qwen2_vl", "vision_config": []})", "{}",
                 "/config.json: vision_config: expected an object, got []");
  expect_refused(malformed, R"({"model_type": "siglip", "vision_config": {"layer_norm_eps": -1}})", "{}",
                 "/config.json: vision_config.layer_norm_eps: expected a small positive number, got -1");
  expect_refused(malformed, R"({"model_type": "siglip", "vision_config": {"layer_norm_eps": NaN}})", "{}",
                 "/config.json: line 1, column 62: expected a finite number, got NaN");
  expect_refused(malformed, qwen2, R"({"fps": 0})",
                 "/preprocessor_config.json: fps: expected a positive number of frames per second, got 0");
  expect_refused(malformed, qwen2, R"({"max_pixels": 0})",
                 "/preprocessor_config.json: max_pixels: expected an integer in [1, 1099511627776], got 0");
  expect_refused(malformed, R"({"model_type": "qwen2_5_vl", "vision_config": {"fullatt_block_indexes": null}})", "{}",
                 "/config.json: vision_config.fullatt_block_indexes: expected an array of integers, got null");
}

// ---- what is made of grids

TEST(SegmentBounds, EveryTemporalSlotIsASegment) {
  const std::vector<Grid> grids{{1, 2, 4}, {3, 1, 2}};
  EXPECT_THAT(segment_bounds(grids), ElementsAre(0, 8, 10, 12, 14));
  EXPECT_THAT(segment_bounds({}), ElementsAre(0));
}

TEST(PatchCoordinates, FollowTheProcessorsOrder) {
  const auto values = [](const at::Tensor& x) {
    return std::vector<int64_t>(x.const_data_ptr<int64_t>(), x.const_data_ptr<int64_t>() + x.numel());
  };
  const std::vector<Grid> grids{{1, 2, 4}};
  const PatchCoordinates raster = patch_coordinates(grids, 1);
  EXPECT_THAT(values(raster.rows), ElementsAre(0, 0, 0, 0, 1, 1, 1, 1));
  EXPECT_THAT(values(raster.columns), ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
  const PatchCoordinates blocks = patch_coordinates(grids, 2);
  EXPECT_THAT(values(blocks.rows), ElementsAre(0, 0, 1, 1, 0, 0, 1, 1));
  EXPECT_THAT(values(blocks.columns), ElementsAre(0, 1, 0, 1, 2, 3, 2, 3));
}

TEST(Arrange, QwenWindowsAreClippedAtTheEdges) {
  // 5 x 3 cells of 2 x 2 patches in windows of 2 x 2 cells, two slots.
  const auto architecture = build(
      R"({"model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 64, "patch_size": 7, "window_size": 28}})");
  const std::vector<Grid> grids{{2, 10, 6}};
  const Arrangement arrangement = architecture->arrange(grids, at::kCPU);
  EXPECT_THAT(arrangement.cu_seqlens, ElementsAre(0, 60, 120));
  EXPECT_THAT(arrangement.cu_window_seqlens, ElementsAre(0, 16, 24, 40, 48, 56, 60, 76, 84, 100, 108, 116, 120));
  const auto* order = arrangement.order.const_data_ptr<int64_t>();
  // The first window holds cells (0,0), (0,1), (1,0), (1,1); cell (1,0) is the fourth of the processor's order.
  EXPECT_THAT(std::vector<int64_t>(order, order + 16),
              ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15, 16, 17, 18, 19));
  std::vector<int64_t> sorted(order, order + 120);
  std::sort(sorted.begin(), sorted.end());
  for (int64_t i = 0; i < 120; ++i) ASSERT_EQ(sorted[static_cast<size_t>(i)], i);
}

TEST(Arrange, GridsThatTheFamilyCannotHaveAreRefused) {
  const std::vector<Grid> odd{{1, 3, 4}};
  const std::vector<Grid> slots{{2, 4, 4}};
  for (const char* config : {qwen2, qwen25})
    expect_error(ErrorCode::invalid_argument, "grid [1, 3, 4]: expected rows and columns that are multiples of 2",
                 [&] { (void)build(config)->arrange(odd, at::kCPU); });
  for (const auto& [grids, name] : {std::pair{odd, "[1, 3, 4]"}, std::pair{slots, "[2, 4, 4]"}})
    expect_error(ErrorCode::invalid_argument,
                 "grid " + std::string(name) + ": expected t = 1 and rows and columns that are multiples of 2",
                 [&, &refused = grids] { (void)build(mistral3)->arrange(refused, at::kCPU); });
  expect_error(ErrorCode::invalid_argument, "grid [2, 4, 4]: expected [1, 14, 14]",
               [&] { (void)build(siglip)->arrange(slots, at::kCPU); });
}

TEST(Prompt, PixtralWithoutItsTokensSaysWhatIsMissing) {
  CheckpointDirectory directory(mistral3);
  const auto architecture = directory.architecture();
  const Prompt prompt = architecture->prompt({1, 4, 4}, Modality::image);
  EXPECT_EQ(prompt.tokens.size(), 2U * 3U) << "the length is known without the ids";
  EXPECT_EQ(prompt.unavailable,
            directory.path() + ": no added token \"[IMG_BREAK]\" in tokenizer.json or tokenizer_config.json");
}

TEST(Prompt, PixtralBreaksRowsInBothLayouts) {
  CheckpointDirectory directory(mistral3);
  directory.write("tokenizer.json",
                  R"({"added_tokens": [{"id": 12, "content": "[IMG_BREAK]"}, {"id": 13, "content": "[IMG_END]"}]})");
  const auto architecture = directory.architecture();
  const Grid grid{1, 4, 6};
  EXPECT_THAT(architecture->prompt(grid, Modality::image).tokens, ElementsAre(10, 10, 10, 12, 10, 10, 10, 13));
  const Prompt reference = architecture->reference_prompt(grid, Modality::image);
  EXPECT_THAT(reference.tokens, ElementsAre(10, 10, 10, 12, 10, 10, 10, 12, 13));
  EXPECT_EQ(reference.pre_tokens, 0);
  EXPECT_EQ(reference.post_tokens, 0);
}

TEST(Prompt, QwenTellsPicturesFromVideos) {
  const auto architecture = build(qwen2);
  EXPECT_THAT(architecture->prompt({1, 2, 2}, Modality::image).tokens, ElementsAre(151652, 151655, 151653));
  const Prompt video = architecture->prompt({2, 2, 2}, Modality::video);
  EXPECT_THAT(video.tokens, ElementsAre(151652, 151656, 151656, 151653));
  EXPECT_EQ(video.pre_tokens, 1);
  EXPECT_EQ(video.post_tokens, 1);
}

TEST(PixelSpec, StepsThatAreOffNeedNoNumbers) {
  const auto architecture = build(R"({"model_type": "qwen2_vl"})",
                                  R"({"do_normalize": false, "image_mean": null, "image_std": null,
                                      "do_rescale": false, "rescale_factor": null})");
  EXPECT_FALSE(architecture->traits().pixels.do_normalize);
  expect_refused(ErrorCode::malformed_model, R"({"model_type": "qwen2_vl"})", R"({"image_mean": null})",
                 "/preprocessor_config.json: image_mean: expected an array of numbers, got null");
}

}  // namespace
}  // namespace oriel::arch
