// What a tower promises whatever the family: packing, options, errors, and that it stays usable after them.
#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

// Another order of summation moves a product by a few of float32's steps of 6e-8, and three blocks and a projector pass
// that on. Measured: below 1e-6 of the scale with AVX-512 kernels, up to 1.4e-6 with AVX2.
constexpr double packing_tolerance = 3e-6;

class EveryFamily : public testing::TestWithParam<std::string> {
 protected:
  VisionTower tower = load_tiny(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Tiny, EveryFamily, testing::ValuesIn(tiny_names), [](const auto& test) { return test.param; });

TEST_P(EveryFamily, PackedImagesEqualSingleImages) {
  const std::vector<Image> pictures = mixed_pictures();
  const std::vector<MMEmbedding> packed = tower.get_image_embeddings(pictures);
  ASSERT_EQ(packed.size(), pictures.size());
  for (size_t i = 0; i < pictures.size(); ++i) {
    const MMEmbedding single = tower.get_image_embeddings(pictures[i]);
    EXPECT_EQ(packed[i].grid(), single.grid());
    EXPECT_EQ(packed[i].content_hash(), single.content_hash());
    EXPECT_EQ(packed[i].original_size(), pictures[i].size());
    // The same sums; matrix products cut more rows into other blocks and so add in another order.
    expect_close(values(packed[i]), values(single), packing_tolerance, "picture " + std::to_string(i));
  }
}

TEST_P(EveryFamily, EqualPicturesOfOneCallGiveEqualRows) {
  const Image one = picture({61, 90}, 7);
  const std::vector<Image> pictures{one, picture({40, 40}, 8), one};
  const std::vector<MMEmbedding> packed = tower.get_image_embeddings(pictures);
  expect_close(values(packed[0]), values(packed[2]), packing_tolerance, "first and third");
  EXPECT_EQ(packed[0].content_hash(), packed[2].content_hash());
  EXPECT_NE(packed[0].content_hash(), packed[1].content_hash());
}

// NaN is as bad as pixels can get; it must stay with its picture.
TEST_P(EveryFamily, PicturesOfOneCallDoNotReachEachOther) {
  const std::vector<Image> pictures{picture({61, 90}, 9), picture({50, 40}, 10), picture({61, 90}, 11)};
  const Patches patches = tower.preprocess(pictures);
  const std::vector<Tensor> before = tower.encode(patches);
  std::vector<float> values = patches.values.to_float32();
  const int64_t width = patches.values.size(1);
  const int64_t begin = patches.images[0].grid.patches() * width;
  const int64_t end = begin + patches.images[1].grid.patches() * width;
  std::fill(values.begin() + begin, values.begin() + end, std::numeric_limits<float>::quiet_NaN());
  const Patches poisoned{Tensor::copy_of(values, patches.values.shape()), patches.images};
  const std::vector<Tensor> after = tower.encode(poisoned);
  expect_identical(after[0].to_float32(), before[0].to_float32(), "in front");
  expect_identical(after[2].to_float32(), before[2].to_float32(), "behind");
  EXPECT_TRUE(std::isnan(after[1].to_float32().front()));
}

TEST_P(EveryFamily, DeterministicPacksChangeNoBit) {
  const VisionTower exact = load_tiny(GetParam(), {.deterministic = true});
  EXPECT_NE(exact.fingerprint(), tower.fingerprint());
  const std::vector<Image> images = mixed_pictures();
  const std::vector<MMEmbedding> packed = exact.get_image_embeddings(images);
  const std::vector<int64_t> layers{0, -1};
  const Patches patches = exact.preprocess(images);
  const std::vector<Tensor> hidden = exact.get_hidden_states(patches, layers);
  int64_t begin = 0;
  for (size_t i = 0; i < images.size(); ++i) {
    expect_identical(values(packed[i]), values(exact.get_image_embeddings(images[i])), "rows");
    const int64_t end = begin + patches.images[i].grid.patches();
    const auto single = exact.get_hidden_states({patches.values.rows(begin, end), {patches.images[i]}}, layers);
    for (size_t k = 0; k < layers.size(); ++k)
      expect_identical(hidden[k].rows(begin, end).to_float32(), single[k].to_float32(), "hidden states");
    begin = end;
  }
}

TEST_P(EveryFamily, AnEmptySpanGivesAnEmptyResult) {
  EXPECT_TRUE(tower.get_image_embeddings(std::span<const Image>{}).empty());
  EXPECT_TRUE(tower.preprocess(std::span<const Image>{}).images.empty());
  EXPECT_TRUE(tower.encode(Patches{}).empty());
  EXPECT_TRUE(tower.get_image_embeddings(Patches{}).empty());
}

TEST_P(EveryFamily, PlanTellsWhatWillHappen) {
  for (const Image& image : mixed_pictures()) {
    const ImagePlan plan = tower.plan(image.size());
    const Patches patches = tower.preprocess({&image, 1});
    const MMEmbedding embedding = tower.get_image_embeddings(image);
    EXPECT_EQ(plan.original, image.size());
    EXPECT_EQ(plan.resized, embedding.preprocessed_size());
    EXPECT_EQ(plan.grid, embedding.grid());
    EXPECT_EQ(plan.tokens, embedding.length());
    EXPECT_EQ(plan.pixel_bytes, static_cast<int64_t>(patches.values.size_in_bytes()));
    EXPECT_EQ(plan.embedding_bytes, static_cast<int64_t>(embedding.size_in_bytes()));
    EXPECT_GT(plan.working_bytes, 0);
    EXPECT_EQ(plan.total_bytes(), plan.pixel_bytes + plan.working_bytes + plan.embedding_bytes);
    EXPECT_EQ(embedding.hidden_size(), tower.hidden_size());
    EXPECT_EQ(embedding.info().merge_size, tower.merge_size());
    EXPECT_EQ(embedding.info().model_fingerprint, tower.fingerprint());
  }
}

TEST_P(EveryFamily, TokensHoldThisEmbeddingsIdsInPlaceOfPlaceholders) {
  const MMEmbedding embedding = tower.get_image_embeddings(picture({80, 50}, 12));
  const std::vector<int64_t> tokens = embedding.tokens();
  const std::vector<int64_t>& placeholders = embedding.placeholder_tokens();
  if (tower.family() == "SigLIP") {  // no text side
    EXPECT_TRUE(placeholders.empty());
    EXPECT_EQ(tokens, embedding.ids());
    return;
  }
  ASSERT_EQ(tokens.size(), placeholders.size());
  EXPECT_GT(tokens.size(), static_cast<size_t>(embedding.length()));
  int64_t next = embedding.first_id();
  for (size_t i = 0; i < tokens.size(); ++i)
    EXPECT_EQ(tokens[i], placeholders[i] == embedding.info().placeholder_id ? next++ : placeholders[i]);
  EXPECT_EQ(next, embedding.first_id() + embedding.length());
}

TEST_P(EveryFamily, RowsOnTheTowersDeviceAreTheSame) {
  const Image image = picture({70, 60}, 13);
  const MMEmbedding host = tower.get_image_embeddings(image);
  const MMEmbedding device = tower.get_image_embeddings(image, {.embeddings_cpu = false});
  EXPECT_EQ(host.embeddings().device(), Device::cpu());
  EXPECT_EQ(device.embeddings().device(), tower.device());
  expect_identical(values(device), values(host), "rows");
}

TEST_P(EveryFamily, StagesOneByOneGiveTheSameRows) {
  const std::vector<Image> pictures = mixed_pictures();
  const std::vector<MMEmbedding> whole = tower.get_image_embeddings(pictures);
  const Patches patches = tower.preprocess(pictures);
  const std::vector<Tensor> rows = tower.encode(patches);
  const std::vector<MMEmbedding> from_patches = tower.get_image_embeddings(patches);
  for (size_t i = 0; i < pictures.size(); ++i) {
    expect_identical(rows[i].to_float32(), values(whole[i]), "encode");
    expect_identical(values(from_patches[i]), values(whole[i]), "from patches");
    EXPECT_EQ(from_patches[i].content_hash(), pictures[i].content_hash());
  }
}

TEST_P(EveryFamily, WithoutWeightsItPlansButDoesNotEncode) {
  const VisionTower bare = load_tiny(GetParam(), {.weights = false});
  EXPECT_EQ(bare.plan({90, 70}).tokens, tower.plan({90, 70}).tokens);
  const Image image = picture({90, 70}, 14);
  expect_identical(bare.preprocess({&image, 1}).values.to_float32(), tower.preprocess({&image, 1}).values.to_float32(),
                   "patches");
  expect_error(ErrorCode::invalid_argument, "encode: the tower was loaded without weights",
               [&] { (void)bare.get_image_embeddings(image); });
  const std::vector<int64_t> layers{0};
  EXPECT_THROW((void)bare.get_hidden_states(bare.preprocess({&image, 1}), layers), Error);
  EXPECT_EQ(bare.weight_bytes(), 0);
  EXPECT_GT(tower.weight_bytes(), 0);
}

TEST_P(EveryFamily, HiddenStatesAreCountedFromBothEnds) {
  const Image image = picture({60, 60}, 15);
  const Patches patches = tower.preprocess({&image, 1});
  const int64_t depth = tower.depth();
  for (const int64_t layer : {depth + 1, -depth - 2, int64_t{1} << 62, -(int64_t{1} << 62)}) {
    const std::vector<int64_t> layers{0, layer};
    expect_error(ErrorCode::invalid_argument,
                 fmt::format("layers: expected {} to {}, got {}", -depth - 1, depth, layer),
                 [&] { (void)tower.get_hidden_states(patches, layers); });
  }
  EXPECT_TRUE(tower.get_hidden_states(patches, {}).empty());
  const std::vector<int64_t> layers{depth, -1, 0, depth};
  const std::vector<Tensor> states = tower.get_hidden_states(patches, layers);
  ASSERT_EQ(states.size(), 4U);
  EXPECT_EQ(states[0].shape(), (std::vector{patches.images[0].grid.patches(), tower.width()}));
  expect_identical(states[0].to_float32(), states[1].to_float32(), "last");
  expect_identical(states[0].to_float32(), states[3].to_float32(), "asked for twice");
  EXPECT_NE(states[0].to_float32(), states[2].to_float32());
}

TEST_P(EveryFamily, HandMadePatchesAreChecked) {
  const Image image = picture({60, 60}, 16);
  const Patches good = tower.preprocess({&image, 1});
  const std::vector<float> values = good.values.to_float32();
  const int64_t rows = good.values.size(0);
  const int64_t width = good.values.size(1);
  const std::string expected =
      fmt::format("patches: expected float32 [{}, {}] in host memory for the grids given, got ", rows, width);
  const auto refused = [&](Patches patches, const std::string& message) {
    expect_error(ErrorCode::invalid_argument, message, [&] { (void)tower.encode(patches); });
  };
  const auto count = static_cast<int64_t>(values.size());
  refused({{}, good.images}, expected + "an empty tensor");
  refused({Tensor::copy_of(values, {count}), good.images},
          expected + fmt::format("float32 tensor of {} elements on cpu", count));
  refused({Tensor::copy_of(values, {width, rows}), good.images},
          expected + fmt::format("float32 tensor of {} elements on cpu", count));
  refused({good.values.rows(0, rows - 1), good.images},
          expected + fmt::format("float32 tensor of {} elements on cpu", count - width));
  refused({good.values.to(DType::bfloat16), good.images},
          expected + fmt::format("bfloat16 tensor of {} elements on cpu", count));
  for (const Grid& grid : {Grid{1, 0, 4}, Grid{1, 4, -4}, Grid{0, 4, 4}}) {
    Patches patches = good;
    patches.images[0].grid = grid;
    refused(patches,
            fmt::format("picture: expected a grid of positive sides, got [{}, {}, {}]", grid.t, grid.h, grid.w));
  }
  Patches huge = good;
  huge.images[0].grid = {1, int64_t{1} << 40, int64_t{1} << 40};
  refused(huge, "grid: 1099511627776 * 1099511627776 does not fit");
  huge.images.assign(3, {.grid = {1, int64_t{1} << 31, int64_t{1} << 31}});
  refused(huge, "grids: 4611686018427387904 + 4611686018427387904 does not fit");
  EXPECT_EQ(tower.encode(good).size(), 1U) << "the tower is spoilt";
}

TEST_P(EveryFamily, APictureWithTooManyTokensIsRefusedBeforeItsPixelsAreRead) {
  const Image image = picture({300, 200}, 17, "photo.jpg");
  const int64_t tokens = tower.plan(image.size()).tokens;
  EXPECT_EQ(tower.get_image_embeddings(image, {.max_tokens = tokens}).length(), tokens);
  const int64_t unit = tower.patch_size() * tower.merge_size();
  const std::string advice =
      tower.has_pixel_limits() ? fmt::format("; max_pixels = {} would keep it within", (tokens - 1) * unit * unit) : "";
  expect_error(ErrorCode::limit_exceeded,
               fmt::format("photo.jpg: needs {} tokens, more than max_tokens = {}{}", tokens, tokens - 1, advice),
               [&] { (void)tower.get_image_embeddings(image, {.max_tokens = tokens - 1}); });
  expect_error(ErrorCode::limit_exceeded,
               fmt::format("plan: needs {} tokens, more than max_tokens = {}{}", tokens, tokens - 1, advice),
               [&] { (void)tower.plan(image.size(), {.max_tokens = tokens - 1}); });
  EXPECT_THROW((void)tower.plan(image.size(), {.max_tokens = -1}), Error);
  if (tower.has_pixel_limits()) {
    // The advice holds.
    const EmbedOptions follow{.max_pixels = (tokens - 1) * unit * unit, .max_tokens = tokens - 1};
    EXPECT_LE(tower.get_image_embeddings(image, follow).length(), tokens - 1);
  }
}

TEST_P(EveryFamily, PixelLimitsAreForFamiliesThatHaveThem) {
  const Image image = picture({100, 80}, 18);
  const auto refused = [&](const PreprocessOptions& options, const std::string& message) {
    expect_error(ErrorCode::invalid_argument, message, [&] { (void)tower.plan({100, 80}, options); });
  };
  if (!tower.has_pixel_limits()) {
    refused({.min_pixels = 5}, "min_pixels: " + tower.family() + " has no pixel limits");
    refused({.max_pixels = 5}, "max_pixels: " + tower.family() + " has no pixel limits");
    expect_error(ErrorCode::invalid_argument, "max_pixels: " + tower.family() + " has no pixel limits",
                 [&] { (void)tower.get_image_embeddings(image, {.max_pixels = 5}); });
    return;
  }
  const auto rows = [&](std::optional<int64_t> least, std::optional<int64_t> most) {
    return tower.get_image_embeddings(image, {.min_pixels = least, .max_pixels = most}).length();
  };
  const int64_t usual = rows({}, {});
  EXPECT_LT(rows({}, 4000), usual);
  EXPECT_GT(rows(20000, {}), usual);
  EXPECT_GT(rows(20000, 40000), usual);
  EXPECT_LT(rows(1000, 4000), usual);
  refused({.max_pixels = 0}, "max_pixels: expected 1 to 2^40 pixels, got 0");
  refused({.min_pixels = -1}, "min_pixels: expected 1 to 2^40 pixels, got -1");
  refused({.max_pixels = (int64_t{1} << 40) + 1}, "max_pixels: expected 1 to 2^40 pixels, got 1099511627777");
  refused({.min_pixels = 9, .max_pixels = 8}, "min_pixels 9: expected at most max_pixels 8");
  expect_error(ErrorCode::limit_exceeded,
               "plan: resized to 1048600 x 1048600 it would need 6597371760000 patch values, more than 274877906944",
               [&] {
                 (void)tower.plan({100, 100}, {.min_pixels = int64_t{1} << 40});
               });
}

TEST_P(EveryFamily, AnAliasIsForOnePicture) {
  const std::vector<Image> pictures{picture({40, 40}, 19), picture({50, 40}, 20)};
  EXPECT_EQ(tower.get_image_embeddings(pictures[0], {.text_alias = "<image_1>"}).text_alias(), "<image_1>");
  expect_error(ErrorCode::invalid_argument, "text_alias: expected none for 2 pictures at once, got \"<image_1>\"",
               [&] { (void)tower.get_image_embeddings(pictures, {.text_alias = "<image_1>"}); });
  const std::vector<MMEmbedding> both = tower.get_image_embeddings(pictures);
  for (const MMEmbedding& embedding : both)
    EXPECT_EQ(embedding.text_alias(), fmt::format("<$EMB_{}$>", embedding.first_id()));
}

TEST_P(EveryFamily, PicturesOutsideALimitAreNamed) {
  const std::vector<Image> pictures{picture({40, 40}, 21, "good.png"), picture({201, 1}, 22, "line.png")};
  if (tower.has_pixel_limits())
    expect_error(ErrorCode::unsupported_image,
                 "line.png: a picture of 201 x 1 pixels: expected an aspect ratio of at most 200",
                 [&] { (void)tower.get_image_embeddings(pictures); });
  else
    EXPECT_EQ(tower.get_image_embeddings(pictures).size(), 2U);
}

TEST(Load, DtypesThatAreNotFloatsAreRefused) {
  for (const DType dtype : {DType::int64, DType::uint8})
    expect_error(ErrorCode::invalid_argument,
                 fmt::format("dtype: expected float32, bfloat16 or float16, got {}", to_string(dtype)),
                 [&] { (void)load_tiny("pixtral", {.dtype = dtype}); });
  expect_error(ErrorCode::invalid_argument, "threads: expected 0 (all) or 1 to 1024, got -1",
               [] { (void)load_tiny("pixtral", {.threads = -1}); });
  expect_error(ErrorCode::invalid_argument, "threads: expected a positive number, got 0",
               [] { set_compute_threads(0); });
}

#ifndef ORIEL_CUDA
TEST(Load, AGpuIsUnavailableInACpuBuild) {
  expect_error(ErrorCode::unavailable, "device cuda:0: this build of oriel runs on the CPU only",
               [] { (void)load_tiny("pixtral", {.device = Device::cuda()}); });
  const MMEmbedding embedding = load_tiny("siglip").get_image_embeddings(picture({20, 20}, 23));
  expect_error(ErrorCode::unavailable, "device cuda:1: this build of oriel runs on the CPU only",
               [&] { (void)embedding.to(Device::cuda(1)); });
}
#endif

TEST(Load, ATowerCanBeMovedAndReplaced) {
  VisionTower tower = load_tiny("pixtral");
  const Image image = picture({50, 40}, 24);
  const std::vector<float> before = values(tower.get_image_embeddings(image));
  VisionTower moved = std::move(tower);
  expect_identical(values(moved.get_image_embeddings(image)), before, "moved");
  moved = load_tiny("siglip");
  EXPECT_EQ(moved.family(), "SigLIP");
}

TEST(Load, Bfloat16StaysNearFloat32) {
  for (const std::string& name : checkpoints_under(towers_root)) {
    const Golden golden(std::filesystem::path(towers_root) / name / "golden.safetensors");
    const std::vector<Image> images = golden.images();
    const VisionTower tower =
        VisionTower::load(std::filesystem::path(towers_root) / name, {.dtype = DType::bfloat16, .threads = 2});
    EXPECT_EQ(tower.dtype(), DType::bfloat16);
    const std::vector<MMEmbedding> embeddings = tower.get_image_embeddings(images);
    for (size_t i = 0; i < embeddings.size(); ++i) {
      EXPECT_EQ(embeddings[i].embeddings().dtype(), DType::bfloat16);
      // About a dozen roundings of up to 2^-8 for each of two to four blocks and the projector, at random signs, on the
      // element where they add up worst: 8 of them.
      expect_close(values(embeddings[i]), golden.values<float>("embeddings." + std::to_string(i)), 8 * 0x1p-8,
                   name + ", picture " + std::to_string(i));
    }
  }
}

}  // namespace
}  // namespace oriel
