// Every kind of tokenizer.json against the `tokenizers` package, on texts of many scripts.
#include <gtest/gtest.h>

#include <random>

#include "tokenizer/goldens.hpp"

namespace oriel::tokenizer {
namespace {

constexpr Span everything{0, ~uint32_t{0}};

class GoldenTokenizer : public testing::TestWithParam<std::string> {
 protected:
  GoldenTokenizer() : pipeline_(load_pipeline(GetParam())), goldens_(read_goldens(GetParam())) {}

  [[nodiscard]] std::vector<int64_t> encode(std::string_view text, std::span<const Span> plain = {}) const {
    std::vector<int64_t> ids;
    pipeline_.encode(text, plain, true, {.ids = ids});
    return ids;
  }

  Pipeline pipeline_;
  Goldens goldens_;
};

TEST_P(GoldenTokenizer, GivesTheSameIds) {
  ASSERT_GE(goldens_.texts.size(), 150U);
  for (const GoldenText& golden : goldens_.texts) EXPECT_EQ(encode(golden.text), golden.ids) << quote_json(golden.text);
}

TEST_P(GoldenTokenizer, GivesTheSameIdsWhereNoSpecialTokenIsRecognised) {
  for (const GoldenText& golden : goldens_.texts)
    EXPECT_EQ(encode(golden.text, {&everything, 1}), golden.plain) << quote_json(golden.text);
}

TEST_P(GoldenTokenizer, StretchesThatCoverATextAreTheWholeText) {
  for (const GoldenText& golden : goldens_.texts) {
    const Span stretch{0, static_cast<uint32_t>(golden.text.size())};
    EXPECT_EQ(encode(golden.text, {&stretch, 1}), golden.plain) << quote_json(golden.text);
  }
}

TEST_P(GoldenTokenizer, GivesTheSameOffsets) {
  for (const GoldenText& golden : goldens_.texts) {
    std::vector<int64_t> ids;
    std::vector<Span> spans;
    pipeline_.encode(golden.text, {}, true, {.ids = ids, .spans = &spans});
    EXPECT_EQ(ids, golden.ids);
    ASSERT_EQ(spans.size(), golden.offsets.size());
    for (size_t i = 0; i < spans.size(); ++i)
      EXPECT_TRUE(spans[i] == golden.offsets[i])
          << quote_json(golden.text) << " token " << i << ": got " << spans[i].begin << " to " << spans[i].end
          << ", expected " << golden.offsets[i].begin << " to " << golden.offsets[i].end;
  }
}

TEST_P(GoldenTokenizer, AddsTheSameAroundAText) {
  EXPECT_EQ(pipeline_.post_processor().prefix(), goldens_.prefix);
  EXPECT_EQ(pipeline_.post_processor().suffix(), goldens_.suffix);
}

TEST_P(GoldenTokenizer, DecodesTheSameText) {
  for (const bool skip : {false, true}) {
    for (const GoldenText& golden : goldens_.texts) {
      DecoderStream stream(pipeline_.decoder());
      std::string text;
      for (const int64_t id : golden.ids)
        if (const auto token = pipeline_.decoded_token(id, skip)) text += stream.push(*token);
      text += stream.finish();
      EXPECT_EQ(text, skip ? golden.skipped : golden.decoded);
    }
  }
}

/// Ids in any order give bytes that are no text, cut characters and special tokens in their midst.
TEST_P(GoldenTokenizer, WhatAStreamGivesOutIsNeverTakenBack) {
  std::mt19937 random(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string_view> tokens;
    for (int i = 0; i < 12; ++i) {
      const auto id = static_cast<int64_t>(random() % static_cast<uint32_t>(pipeline_.vocabulary_size()));
      if (const auto token = pipeline_.decoded_token(id, false)) tokens.push_back(*token);
    }
    DecoderStream stream(pipeline_.decoder());
    std::string given;
    for (size_t count = 1; count <= tokens.size(); ++count) {
      given += stream.push(tokens[count - 1]);
      DecoderStream whole(pipeline_.decoder());
      std::string text;
      for (size_t i = 0; i < count; ++i) text += whole.push(tokens[i]);
      text += whole.finish();
      EXPECT_TRUE(text.starts_with(given)) << quote_json(text) << " does not begin with " << quote_json(given);
      EXPECT_TRUE(is_utf8(given));
      if (count < tokens.size()) continue;
      EXPECT_EQ(given + stream.finish(), text);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, GoldenTokenizer, testing::ValuesIn(golden_kinds()),
                         [](const auto& kind) { return kind.param; });

}  // namespace
}  // namespace oriel::tokenizer
