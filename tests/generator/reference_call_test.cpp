// tower.get_image_embeddings(model, tokenizer, image, ...): ExLlamaV2's call, spec/reference_api.md 3 and 4.
#include <gtest/gtest.h>

#include "core/expect_error.hpp"
#include "core/temporary_directory.hpp"
#include "generator/tiny_chat.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

std::vector<int64_t> positions_of(const ForwardResult& result) {
  const auto* first = static_cast<const int64_t*>(result.positions.data());
  return {first, first + result.positions.element_count()};
}

class ReferenceCall : public testing::TestWithParam<std::string> {};

TEST_P(ReferenceCall, LooksSpecialTokensUpInTheModel) {
  const TinyChat& chat = TinyChat::of(GetParam());
  const Image image = picture({60, 45}, 3);
  const MMEmbedding called = chat.tower.get_image_embeddings(chat.model, chat.tokenizer, image, "<photo>");
  const MMEmbedding optioned =
      chat.tower.get_image_embeddings(image, {.layout = TokenLayout::exllamav2, .token_rows = chat.model.token_rows()});
  EXPECT_EQ(called.text_alias(), "<photo>");
  expect_identical(values(called), values(optioned), "rows");
  EXPECT_GT(called.length(), chat.tower.get_image_embeddings(image).length());
}

/// Families whose special tokens stand where transformers has them. (Pixtral's rows end with one more break.)
class ReferenceCallOfEqualTokens : public ReferenceCall {};

// The two layouts say the same to the model: special rows are what it would have looked up, in the same places.
TEST_P(ReferenceCallOfEqualTokens, GivesTheLogitsOfTransformersLayout) {
  const TinyChat& chat = TinyChat::of(GetParam());
  const Image image = picture({60, 45}, 3);
  const auto logits = [&](const MMEmbedding& embedding) {
    std::vector<int64_t> ids = chat.tokenizer.encode("So:");
    for (const int64_t id : embedding.tokens()) ids.push_back(id);
    for (const int64_t id : chat.tokenizer.encode(" what?", {.add_bos = false})) ids.push_back(id);
    return chat.model.forward(ids, std::vector{embedding});
  };
  const ForwardResult called = logits(chat.tower.get_image_embeddings(chat.model, chat.tokenizer, image));
  const ForwardResult usual = logits(chat.tower.get_image_embeddings(image));
  ASSERT_EQ(called.logits.shape(), usual.logits.shape());
  EXPECT_EQ(positions_of(called), positions_of(usual));
  expect_identical(called.logits.to_float32(), usual.logits.to_float32(), "logits");
}

INSTANTIATE_TEST_SUITE_P(Tiny, ReferenceCall,
                         testing::Values("tiny/gemma3", "tiny/mistral3", "tiny/pixtral", "tiny/qwen2_5_vl",
                                         "tiny/qwen2_vl"),
                         [](const auto& name) { return name.param.substr(5); });

INSTANTIATE_TEST_SUITE_P(Tiny, ReferenceCallOfEqualTokens,
                         testing::Values("tiny/gemma3", "tiny/qwen2_5_vl", "tiny/qwen2_vl"),
                         [](const auto& name) { return name.param.substr(5); });

TEST(ReferenceCallErrors, NameWhatDoesNotFit) {
  const TinyChat& gemma = TinyChat::of("tiny/gemma3");
  const TinyChat& qwen = TinyChat::of("tiny/qwen2_vl");
  const TemporaryDirectory directory;
  directory.write("tokenizer.json", R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})");
  directory.write("config.json", "{}");
  const Tokenizer small = Tokenizer::load(directory.path());
  const Image image = picture({60, 45}, 3);
  expect_error(ErrorCode::invalid_argument,
               "model: expected one of hidden size 40 as the tower's rows, got Qwen2-VL of 32",
               [&] { (void)gemma.tower.get_image_embeddings(qwen.model, gemma.tokenizer, image); });
  expect_error(ErrorCode::invalid_argument,
               "tokenizer: expected one that has token 7, which stands beside a picture's rows, got one of 1 ids",
               [&] { (void)gemma.tower.get_image_embeddings(gemma.model, small, image); });
}

}  // namespace
}  // namespace oriel
