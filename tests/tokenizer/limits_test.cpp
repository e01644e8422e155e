// Tokenizer files that mean harm: each ends in an Error, and soon.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <chrono>

#include "core/expect_error.hpp"
#include "core/json.hpp"
#include "tokenizer/added_tokens.hpp"
#include "tokenizer/decoder.hpp"
#include "tokenizer/pipeline.hpp"
#include "tokenizer/post_processor.hpp"

namespace oriel::tokenizer {
namespace {

std::string repeated(std::string_view text, size_t count, std::string_view between = "") {
  std::string all;
  for (size_t i = 0; i < count; ++i) (all += i > 0 ? between : "") += text;
  return all;
}

/// A template whose token x has `ids` ids and stands `pieces` times before the text.
Json surroundings(size_t ids, size_t pieces) {
  return Json::parse(fmt::format(R"({{"type": "TemplateProcessing", "single": [{}, {{"Sequence": {{"id": "A"}}}}],
                       "special_tokens": {{"x": {{"ids": [{}]}}}}}})",
                                 repeated(R"({"SpecialToken": {"id": "x"}})", pieces, ","), repeated("1", ids, ",")),
                     "file");
}

TEST(TokenizerLimits, IdsAroundAText) {
  EXPECT_EQ(PostProcessor::read(surroundings(250, 4)).prefix().size(), 1000U);
  const std::string message = "file: single: expected at most 1000 ids around a text, got more";
  for (const auto& json : {surroundings(1'000'000, 3000), surroundings(1, 1001)})
    expect_error(ErrorCode::limit_exceeded, message, [&] { (void)PostProcessor::read(json); });
}

Normalizer normalizer(const std::string& steps) {
  return Normalizer::read(Json::parse(R"({"type": "Sequence", "normalizers": [)" + steps + "]}", "file"));
}

std::string replace_step(std::string_view from, std::string_view to) {
  return fmt::format(R"({{"type": "Replace", "pattern": {{"String": "{}"}}, "content": "{}"}})", from, to);
}

TEST(TokenizerLimits, WhatANormalizerPutsIn) {
  (void)normalizer(replace_step("a", std::string(4096, 'b')));
  expect_error(ErrorCode::limit_exceeded, "file: normalizers[0].content: expected at most 4096 bytes, got 4097",
               [&] { (void)normalizer(replace_step("a", std::string(4097, 'b'))); });
  expect_error(ErrorCode::limit_exceeded, "file: normalizers[0].prepend: expected at most 4096 bytes, got 1000000",
               [&] { (void)normalizer(R"({"type": "Prepend", "prepend": ")" + std::string(1'000'000, 'b') + "\"}"); });
}

TEST(TokenizerLimits, AddedTokens) {
  const auto build = [](size_t size, const std::string& steps) {
    AddedTokens tokens;
    tokens.add({.content = std::string(size, 'a'), .normalized = true}, {});
    tokens.build(normalizer(steps));
    return tokens.tokens()[0].decoded.size();
  };
  EXPECT_EQ(build(4096, ""), 4096U);
  const Json too_long = Json::parse(R"({"content": ")" + std::string(4097, 'a') + "\"}", "file");
  expect_error(ErrorCode::limit_exceeded, "file: content: expected at most 4096 bytes, got 4097",
               [&] { (void)AddedToken::read(too_long); });
  const std::string prepend = R"({"type": "Prepend", "prepend": ")" + std::string(2000, 'b') + "\"}";
  EXPECT_EQ(build(2096, prepend), 4096U);
  expect_error(ErrorCode::limit_exceeded, "added tokens: expected at most 4096 bytes of normalized text, got 4097",
               [&] { (void)build(2097, prepend); });
  // Shorter in the end, but not on the way.
  const std::string there_and_back = replace_step("a", std::string(16, 'b')) + "," + replace_step("b", "");
  EXPECT_EQ(build(256, there_and_back), 0U);
  expect_error(ErrorCode::limit_exceeded,
               "tokenizer: expected replacements that keep a text below 4096 bytes, got more",
               [&] { (void)build(257, there_and_back); });
}

/// Blanks beside blanks that are tokens themselves: a walk over all of them for each takes hours.
TEST(TokenizerLimits, BlanksAroundAddedTokens) {
  constexpr size_t blanks = 1'000'000;
  for (const bool left : {true, false}) {
    SCOPED_TRACE(left);
    AddedTokens tokens;
    tokens.add({.content = "\t", .special = true, .lstrip = left, .rstrip = !left}, {});
    tokens.build({});
    std::vector<TokenPart> parts;
    const auto begin = std::chrono::steady_clock::now();
    tokens.split_raw(std::string(blanks, '\t'), {}, parts);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
    ASSERT_EQ(parts.size(), blanks);
    EXPECT_EQ(parts[0].end, left ? 1 : blanks);
    EXPECT_EQ(parts.back().begin, blanks - 1);
  }
}

const std::string growth_message =
    "tokenizer: expected replacements that put at most 16 times the size of its tokens and 1 MiB into a decoded text, "
    "got more";

TEST(TokenizerLimits, DecodersThatReplaceWhatTheyPutIn) {
  const auto decode = [](size_t steps, std::string_view token) {
    const std::string step = replace_step("a", "aaaaaaaa");
    const Decoder decoder =
        Decoder::read(Json::parse(R"({"type": "Sequence", "decoders": [)" + repeated(step, steps, ",") + "]}", "file"));
    return DecoderStream(decoder).push(token).size();
  };
  EXPECT_EQ(decode(6, "a"), 262144U);
  expect_error(ErrorCode::limit_exceeded, growth_message, [&] { (void)decode(30, "a"); });
}

/// Each token is allowed little, however many come.
TEST(TokenizerLimits, DecodersThatReplaceInEveryToken) {
  const Decoder decoder = Decoder::read(Json::parse(replace_step("a", std::string(4096, 'b')), "file"));
  DecoderStream stream(decoder);
  size_t decoded = 0;
  expect_error(ErrorCode::limit_exceeded, growth_message, [&] {
    for (int i = 0; i < 1'000'000; ++i) decoded += stream.push("a").size();
  });
  EXPECT_EQ(decoded / 4096, (1 << 20) / (4096 - 16));  // each token brings 16 bytes
  // A text that grows 16 times is as long as it likes, and each text begins anew.
  const Decoder growing = Decoder::read(Json::parse(replace_step("a", std::string(16, 'b')), "file"));
  DecoderStream other(growing);
  decoded = 0;
  for (int i = 0; i < 200'000; ++i) decoded += other.push("a").size();
  EXPECT_EQ(decoded, 3'200'000U);
  DecoderStream texts(decoder);
  for (int text = 0; text < 3; ++text) {
    for (int i = 0; i < 200; ++i) EXPECT_EQ(texts.push("a").size(), 4096U);
    EXPECT_EQ(texts.finish(), "");
  }
}

/// What is held until a later token comes is paid for when it was held.
TEST(TokenizerLimits, DecodersMayReplaceWhatTheyHeld) {
  const Decoder decoder = Decoder::read(Json::parse(
      R"({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, )" + replace_step("\xef\xbf\xbd", "????") + "]}",
      "file"));
  DecoderStream stream(decoder);
  constexpr size_t bytes = 600'000;
  for (size_t i = 0; i < bytes; ++i) EXPECT_EQ(stream.push("<0xFF>"), "");
  EXPECT_EQ(stream.push("b").size(), 4 * bytes + 1);
  for (size_t i = 0; i < bytes; ++i) EXPECT_EQ(stream.push("<0xFF>"), "");
  EXPECT_EQ(stream.finish().size(), 4 * bytes);
}

/// Each piece ends soon, but all of them together take long.
TEST(TokenizerLimits, PatternsThatBacktrackInEveryPiece) {
  Pipeline pipeline = Pipeline::read(Json::parse(
      R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
          "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed"},
            {"type": "Split", "pattern": {"Regex": "(?:a|a|aa)+b|d"}, "behavior": "Isolated"}]}})",
      "file"));
  pipeline.finish();
  std::vector<int64_t> ids;
  pipeline.encode(repeated("aaaaaaaaaaaacb ", 10), {}, true, {.ids = ids});
  EXPECT_EQ(ids.size(), 120U);
  expect_error(ErrorCode::limit_exceeded,
               "file: pre_tokenizer.pretokenizers[1].pattern.Regex: the pattern backtracks without end in this text",
               [&] { pipeline.encode(repeated("aaaaaaaaaaaacb ", 50'000), {}, true, {.ids = ids}); });
}

}  // namespace
}  // namespace oriel::tokenizer
