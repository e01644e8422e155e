// Crops of pictures against transformers' processor (tests/goldens/make_crop_goldens.py).
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <oriel/oriel.hpp>

#include "core/expect_error.hpp"
#include "core/json.hpp"
#include "image/pixel_recipes.hpp"

namespace oriel {
namespace {

const std::string directory = ORIEL_ASSETS "/tiny/gemma3";

Json goldens() { return Json::read(ORIEL_TEST_DATA "/crops/gemma3.json"); }

Size size_of(const Json& json) { return {json.integers()[0], json.integers()[1]}; }

Image picture_of(const Json& json) {
  const image::Picture picture =
      image::make_picture(json["kind"].string(), size_of(json["size"]), static_cast<uint64_t>(json["seed"].integer()));
  return Image::from_pixels({.data = picture.rgb.data(), .size = picture.size}, {}, "picture");
}

TEST(Crops, ArePlannedAsTransformersCutsThem) {
  const VisionTower tower = VisionTower::load(directory, {.weights = false});
  int cut = 0;
  for (const Json& plan : goldens()["plans"].elements()) {
    SCOPED_TRACE(plan.dump());
    const Json& options = plan["options"];
    const CropOptions crop_options{.min_ratio = options["min_ratio"].number(),
                                   .min_side = options["min_side"].integer(),
                                   .max_crops = options["max_crops"].integer()};
    const auto planned = [&] { return tower.plan_crops(size_of(plan["size"]), crop_options); };
    if (plan["crops"].is_null()) {
      EXPECT_THROW((void)planned(), Error);
      continue;
    }
    std::vector<Rect> expected;
    for (const Json& crop : plan["crops"].elements()) {
      const std::vector<int64_t> place = crop.integers();
      expected.push_back({place[0], place[1], {place[2], place[3]}});
    }
    EXPECT_EQ(planned(), expected);
    cut += expected.empty() ? 0 : 1;
  }
  EXPECT_GT(cut, 30);
}

TEST(Crops, PixelsAreTransformersPixels) {
  const VisionTower tower = VisionTower::load(directory, {.weights = false});
  for (const Json& golden : goldens()["pictures"].elements()) {
    SCOPED_TRACE(golden.dump());
    const Image picture = picture_of(golden);
    std::vector<Image> views{picture};
    for (const Rect& part : tower.plan_crops(picture.size())) views.push_back(picture.crop(part));
    const std::vector<Json> expected = golden["views"].elements();
    ASSERT_EQ(views.size(), expected.size());
    for (size_t i = 0; i < views.size(); ++i) {
      EXPECT_EQ(views[i].size(), size_of(expected[i]["size"]));
      const Patches patches = tower.preprocess({&views[i], 1});
      EXPECT_EQ(fmt::format("{:016x}", image::polynomial_hash(patches.values.data(), patches.values.size_in_bytes())),
                expected[i]["patches"].string());
    }
  }
}

TEST(Crops, ViewsAreEmbeddingsOfTheWholeAndOfEachCrop) {
  const VisionTower tower = VisionTower::load(directory);
  const Image picture = picture_of(goldens()["pictures"].elements()[0]);
  const PictureViews views = tower.get_image_views(picture);
  ASSERT_EQ(views.size(), 3U);
  EXPECT_EQ(views[0].content_hash(), picture.content_hash());
  EXPECT_EQ(views[1].content_hash(), picture.crop({0, 0, {300, 270}}).content_hash());
  EXPECT_EQ(views[2].content_hash(), picture.crop({300, 0, {300, 270}}).content_hash());
  EXPECT_EQ(views[2].original_size(), (Size{300, 270}));
  EXPECT_EQ(tower.get_image_views(picture, {.min_ratio = 3}).size(), 1U);
}

TEST(Crops, PromptsAreTransformersPrompts) {
  const VisionTower tower = VisionTower::load(directory);
  const Tokenizer tokenizer = Tokenizer::load(directory);
  const ChatFormat format = ChatFormat::load(directory);
  std::vector<PictureViews> pictures;
  for (const Json& golden : goldens()["pictures"].elements())
    pictures.push_back(tower.get_image_views(picture_of(golden)));
  for (const Json& prompt : goldens()["prompts"].elements()) {
    SCOPED_TRACE(prompt["text"].string());
    std::vector<PictureViews> used;
    for (const int64_t i : prompt["pictures"].integers()) used.push_back(pictures.at(static_cast<size_t>(i)));
    std::vector<int64_t> ids = tokenizer.encode(format.place_views(prompt["text"].string(), used));
    for (const PictureViews& views : used)
      for (const MMEmbedding& view : views)
        for (int64_t& id : ids)
          if (id >= view.first_id() && id < view.first_id() + view.length()) id = view.info().placeholder_id;
    std::vector<int64_t> expected = prompt["input_ids"].integers();
    // A bos in the text is doubled by transformers and not by the tokenizer.
    if (prompt["text"].string().starts_with("<bos>")) expected.erase(expected.begin());
    EXPECT_EQ(ids, expected);
  }
}

TEST(Crops, ArePartsOfOneMessage) {
  const VisionTower tower = VisionTower::load(directory);
  const ChatFormat format = ChatFormat::load(directory);
  const PictureViews views = tower.get_image_views(picture_of(goldens()["pictures"].elements()[0]));
  const std::vector<ChatMessage> messages{{"user", {views, "Look."}}, {"assistant", {"Yes."}}, {"user", {views[0]}}};
  std::string text;
  for (const PromptSegment& segment : format.render(messages)) {
    const auto* plain = std::get_if<TextSegment>(&segment);
    text += plain != nullptr
                ? plain->text
                : "[" +
                      std::to_string(std::get<MMEmbedding>(segment).content_hash() == views[0].content_hash() ? 0 : 1) +
                      "]";
  }
  EXPECT_EQ(text,
            "<bos><start_of_turn>user\nHere is the original image \n\n[0]\n\n and here are some crops to help you see "
            "better \n\n[1]\n\n \n\n[1]\n\nLook.<end_of_turn>\n<start_of_turn>model\nYes.<end_of_turn>\n"
            "<start_of_turn>user\n\n\n[0]\n\n<end_of_turn>\n<start_of_turn>model\n");
}

TEST(Crops, WhatCantBeCutIsRefused) {
  const VisionTower gemma = VisionTower::load(directory, {.weights = false});
  const VisionTower siglip = VisionTower::load(ORIEL_ASSETS "/tiny/siglip", {.weights = false});
  EXPECT_TRUE(gemma.has_crops());
  EXPECT_FALSE(siglip.has_crops());
  expect_error(ErrorCode::unsupported_model, "plan_crops: SigLIP: this family sees pictures as a whole, without crops",
               [&] {
                 (void)siglip.plan_crops({600, 200});
               });
  const auto refused = [&](const CropOptions& options, const std::string& message) {
    expect_error(ErrorCode::invalid_argument, message, [&] { (void)gemma.plan_crops({600, 200}, options); });
  };
  refused({.min_ratio = 0.5}, "min_ratio: expected a number from 1 and below 1e+06, got 0.5");
  refused({.min_ratio = 2e6}, "min_ratio: expected a number from 1 and below 1e+06, got 2000000");
  refused({.min_side = 0}, "min_side: expected a positive number of pixels, got 0");
  refused({.max_crops = 0}, "max_crops: expected 1 to 1024, got 0");
  expect_error(ErrorCode::unsupported_image,
               "plan_crops: a picture of 9 x 1 pixels: can't be cut into 4 crops of 3 pixels", [&] {
                 (void)gemma.plan_crops({9, 1}, {.min_side = 1});
               });
}

TEST(Crops, PromptsOfOtherFamiliesTakeOneView) {
  const std::string qwen = ORIEL_ASSETS "/tiny/qwen2_vl";
  const VisionTower tower = VisionTower::load(qwen);
  const ChatFormat format = ChatFormat::load(qwen);
  const MMEmbedding picture = tower.get_image_embeddings(picture_of(goldens()["pictures"].elements()[2]));
  const auto refused = [&](const PictureViews& views, const std::string& message) {
    const std::vector<ChatMessage> messages{{"user", {views, "Look."}}};
    expect_error(ErrorCode::invalid_argument, message, [&] { (void)format.render(messages); });
  };
  refused({picture, picture},
          "the prompt of the chat template: this family's prompts take one view of a picture, got 2");
  refused({}, "messages[0].content: expected views of a picture, got none");
  const std::vector<PictureViews> none(1);
  expect_error(ErrorCode::invalid_argument, "pictures: expected views of each, got none of one",
               [&] { (void)format.place_views("Look.", none); });
}

}  // namespace
}  // namespace oriel
