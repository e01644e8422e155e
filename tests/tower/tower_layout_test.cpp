// TokenLayout::exllamav2: special tokens as rows, spec/reference_api.md 4 and 16.
#include <gmock/gmock.h>

#include <cstring>

#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

using Ids = std::vector<int64_t>;

/// The row of a token: id, id + 1/2, id, ... so that rows tell which id they belong to.
float row_value(int64_t id, int64_t column) { return static_cast<float>(id) + (column % 2 == 0 ? 0.0F : 0.5F); }

TokenRows rows_of(int64_t hidden, std::vector<Ids>& calls) {
  return [hidden, &calls](std::span<const int64_t> ids) {
    calls.emplace_back(ids.begin(), ids.end());
    std::vector<float> rows;
    for (const int64_t id : ids)
      for (int64_t column = 0; column < hidden; ++column) rows.push_back(row_value(id, column));
    return Tensor::copy_of(rows, {static_cast<int64_t>(ids.size()), hidden});
  };
}

/// Where the tower's rows and the special tokens' rows are expected; -1 stands for a row of the tower.
void expect_layout(const std::string& name, const Ids& layout, int64_t pre, int64_t post, Size size) {
  SCOPED_TRACE(name);
  const VisionTower tower = load_tiny(name);
  const Image image = picture(size, 1);
  const std::vector<float> plain = values(tower.get_image_embeddings(image));
  std::vector<Ids> calls;
  const int64_t hidden = tower.hidden_size();
  const MMEmbedding baked =
      tower.get_image_embeddings(image, {.layout = TokenLayout::exllamav2, .token_rows = rows_of(hidden, calls)});

  std::vector<float> expected;
  Ids specials;
  size_t next = 0;
  for (const int64_t token : layout) {
    if (token != -1) specials.push_back(token);
    for (int64_t column = 0; column < hidden; ++column)
      expected.push_back(token == -1 ? plain[next++] : row_value(token, column));
  }
  ASSERT_EQ(next, plain.size()) << "the layout leaves rows out";
  EXPECT_THAT(calls, testing::ElementsAre(specials));
  ASSERT_EQ(baked.length(), static_cast<int64_t>(layout.size()));
  expect_identical(values(baked), expected, "rows");
  EXPECT_EQ(baked.info().pre_tokens, pre);
  EXPECT_EQ(baked.info().post_tokens, post);
  EXPECT_EQ(baked.vision_id_range(), (std::pair{baked.first_id() + pre, baked.first_id() + baked.length() - post}));
  EXPECT_EQ(baked.tokens(), baked.ids()) << "special rows are rows: nothing is put around them";
  EXPECT_TRUE(baked.placeholder_tokens().empty());
}

Ids repeated(int64_t count, const Ids& row) {
  Ids result;
  for (int64_t i = 0; i < count; ++i) result.insert(result.end(), row.begin(), row.end());
  return result;
}

// [IMG_BREAK] is 12 and [IMG_END] 13 in both tokenizers.
TEST(ReferenceLayout, PixtralHasABreakAfterEveryRowAndAnEnd) {
  Ids layout = repeated(3, {-1, -1, -1, -1, -1, 12});  // 80 x 48 pixels, patches of 16
  layout.push_back(13);
  ASSERT_EQ(layout.size(), 3U * (5 + 1) + 1);
  expect_layout("pixtral", layout, 0, 0, {80, 48});
}

TEST(ReferenceLayout, Mistral3CountsMergedRows) {
  Ids layout = repeated(2, {-1, -1, -1, 12});  // 84 x 56 pixels, merged patches of 28
  layout.push_back(13);
  expect_layout("mistral3", layout, 0, 0, {84, 56});
}

TEST(ReferenceLayout, QwenHasStartAndEndOnce) {
  Ids layout{305};
  layout.resize(1 + 6, -1);  // 84 x 56 pixels, merged patches of 28
  layout.push_back(306);
  expect_layout("qwen2_vl", layout, 1, 1, {84, 56});
  expect_layout("qwen2_5_vl", layout, 1, 1, {84, 56});
}

TEST(ReferenceLayout, GemmaHasStartAndEnd) {
  Ids layout{7};
  layout.resize(1 + 16, -1);
  layout.push_back(8);
  expect_layout("gemma3", layout, 1, 1, {50, 90});
}

TEST(ReferenceLayout, SiglipHasNoTextSide) {
  const VisionTower tower = load_tiny("siglip");
  const Image image = picture({50, 90}, 2);
  std::vector<Ids> calls;
  const MMEmbedding baked = tower.get_image_embeddings(
      image, {.layout = TokenLayout::exllamav2, .token_rows = rows_of(tower.hidden_size(), calls)});
  EXPECT_TRUE(calls.empty());
  expect_identical(values(baked), values(tower.get_image_embeddings(image)), "rows");
}

TEST(ReferenceLayout, EveryPictureOfACallGetsItsOwn) {
  const VisionTower tower = load_tiny("pixtral");
  const std::vector<Image> pictures{picture({32, 32}, 3), picture({16, 48}, 4)};
  std::vector<Ids> calls;
  const std::vector<MMEmbedding> baked = tower.get_image_embeddings(
      pictures, {.layout = TokenLayout::exllamav2, .token_rows = rows_of(tower.hidden_size(), calls)});
  EXPECT_EQ(baked[0].length(), 2 * 3 + 1);
  EXPECT_EQ(baked[1].length(), 3 * 2 + 1);
  EXPECT_THAT(calls, testing::ElementsAre(Ids{12, 12, 13}, Ids{12, 12, 12, 13}));
}

TEST(ReferenceLayout, AVideoHasStartAndEndOnceAroundAllFrames) {
  const VisionTower tower = load_tiny("qwen2_vl");
  const std::vector<Image> frames(4, picture({56, 56}, 5));
  std::vector<Ids> calls;
  const MMEmbedding baked = tower.get_video_embeddings(
      frames, {.embed = {.layout = TokenLayout::exllamav2, .token_rows = rows_of(tower.hidden_size(), calls)}});
  EXPECT_EQ(baked.length(), 1 + 2 * 4 + 1);
  EXPECT_THAT(calls, testing::ElementsAre(Ids{305, 306}));
}

TEST(ReferenceLayout, RowsOfOtherShapesAreRefused) {
  const VisionTower tower = load_tiny("pixtral");
  const Image image = picture({32, 32}, 6);
  const auto refused = [&](const TokenRows& rows, const std::string& message) {
    expect_error(ErrorCode::invalid_argument, message, [&] {
      (void)tower.get_image_embeddings(image, {.layout = TokenLayout::exllamav2, .token_rows = rows});
    });
  };
  refused({}, "layout exllamav2: expected token_rows, got none");
  refused([](auto) { return Tensor(); }, "token_rows: expected rows [3, 32], got an empty tensor");
  refused(
      [](auto) {
        return Tensor::copy_of(std::vector<float>(32), {1, 32});
      },
      "token_rows: expected rows [3, 32], got 32 elements");
  refused(
      [](auto) {
        return Tensor::copy_of(std::vector<float>(96), {32, 3});
      },
      "token_rows: expected rows [3, 32], got 96 elements");
  EXPECT_THROW(
      (void)tower.get_image_embeddings(image, {.layout = TokenLayout::exllamav2,
                                               .token_rows = [](auto) -> Tensor { throw std::runtime_error("mine"); }}),
      std::runtime_error);
}

TEST(ReferenceLayout, RowsInAnotherDtypeAreConverted) {
  const VisionTower tower = load_tiny("qwen2_vl", {.dtype = DType::bfloat16});
  std::vector<Ids> calls;
  const MMEmbedding baked = tower.get_image_embeddings(
      picture({56, 56}, 7), {.layout = TokenLayout::exllamav2, .token_rows = rows_of(tower.hidden_size(), calls)});
  EXPECT_EQ(baked.embeddings().dtype(), DType::bfloat16);
  EXPECT_EQ(values(baked)[0], 304.0F);  // 305 in 8 significant bits, ties to even
}

TEST(ReferenceLayout, WithoutATokenizerTheTokensAreUnavailable) {
  const Scratch scratch("pixtral");
  scratch.remove("tokenizer.json");
  scratch.remove("tokenizer_config.json");
  const VisionTower tower = scratch.load();
  const Image image = picture({32, 32}, 8);
  const std::string reason =
      scratch.path() + ": no added token \"[IMG_BREAK]\" in tokenizer.json or tokenizer_config.json";
  std::vector<Ids> calls;
  expect_error(ErrorCode::unavailable, "layout exllamav2: " + reason, [&] {
    (void)tower.get_image_embeddings(image, {.layout = TokenLayout::exllamav2, .token_rows = rows_of(32, calls)});
  });
  EXPECT_TRUE(calls.empty());
  const MMEmbedding plain = tower.get_image_embeddings(image);
  EXPECT_EQ(plain.length(), 4);
  expect_error(ErrorCode::unavailable, "prompt tokens: " + reason, [&] { (void)plain.tokens(); });
  expect_error(ErrorCode::unavailable, "prompt tokens: " + reason, [&] { (void)plain.placeholder_tokens(); });
}

}  // namespace
}  // namespace oriel
