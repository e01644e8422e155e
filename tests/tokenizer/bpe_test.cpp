#include "tokenizer/bpe.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>

#include "core/expect_error.hpp"

namespace oriel::tokenizer {
namespace {

using testing::ElementsAre;

Bpe read(const std::string& text, bool byte_level = false) {
  const Json json = Json::parse(text, "model");
  return Bpe::read(json, json, byte_level);
}

std::vector<uint32_t> encode(const Bpe& bpe, std::string_view word, bool plain = false) {
  Bpe::Cache cache;
  std::vector<WordToken> tokens;
  bpe.encode(word, plain, cache, tokens);
  std::vector<uint32_t> ids;
  for (const WordToken& token : tokens) ids.push_back(token.id);
  return ids;
}

TEST(Bpe, MergesTheFirstOfTheListAndTheLeftmost) {
  const Bpe bpe = read(R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "aa": 3, "aab": 4},
                           "merges": ["a b", "a a", "a ab"]})");
  EXPECT_THAT(encode(bpe, "aab"), ElementsAre(4));
  EXPECT_THAT(encode(bpe, "aaa"), ElementsAre(3, 0));
  EXPECT_THAT(encode(bpe, "aaab"), ElementsAre(3, 2));
}

TEST(Bpe, FusesUnknownCharactersWhereItIsTold) {
  const std::string model = R"("type": "BPE", "vocab": {"a": 0, "?": 1}, "merges": [], "unk_token": "?")";
  EXPECT_THAT(encode(read("{" + model + "}"), "xya\u00e9"), ElementsAre(1, 1, 0, 1));
  EXPECT_THAT(encode(read("{" + model + R"(, "fuse_unk": true})"), "xya\u00e9"), ElementsAre(1, 0, 1));
}

TEST(Bpe, DropsUnknownCharactersWithoutAnUnknownToken) {
  EXPECT_THAT(encode(read(R"({"type": "BPE", "vocab": {"a": 0}, "merges": []})"), "xax"), ElementsAre(0));
}

TEST(Bpe, PlainWordsBecomeNoSpecialToken) {
  Bpe bpe = read(R"({"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "bb": 3},
                     "merges": [["a", "b"], ["b", "b"]], "ignore_merges": true})",
                 /*byte_level=*/true);
  bpe.set_special({false, false, true, false});
  EXPECT_THAT(encode(bpe, "ab"), ElementsAre(2));
  EXPECT_THAT(encode(bpe, "ab", true), ElementsAre(0, 1));
  EXPECT_THAT(encode(bpe, "abb", true), ElementsAre(0, 3));
}

/// A model of pairs of a few letters, so that merges compete. The cut at impossible neighbours is part of it.
std::string competing_model(bool with_bytes) {
  std::vector<std::string> tokens = {"a", "b", "c", "_"};
  std::string merges;
  std::mt19937 random(3);
  for (int i = 0; i < 60; ++i) {
    const std::string left = tokens[random() % tokens.size()];
    const std::string right = tokens[random() % tokens.size()];
    const bool ends_in_word = left.find('_') == std::string::npos && right.find('_', 1) == std::string::npos;
    if (!ends_in_word && left != "_") continue;  // '_' only at the start
    if (right.find('_') != std::string::npos) continue;
    if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end()) tokens.push_back(left + right);
    merges += fmt::format("{}[{},{}]", merges.empty() ? "" : ",", quote_json(left), quote_json(right));
  }
  if (with_bytes)
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(fmt::format("<0x{:02X}>", byte));
  std::string vocab;
  for (size_t id = 0; id < tokens.size(); ++id)
    vocab += fmt::format("{}{}:{}", id == 0 ? "" : ",", quote_json(tokens[id]), id);
  return fmt::format(R"({{"type":"BPE","vocab":{{{}}},"merges":[{}],"byte_fallback":{}}})", vocab, merges, with_bytes);
}

/// Words are cut with byte fallback, and short ones are merged in another way than long ones: none of it shows.
TEST(Bpe, CuttingAndTheTwoWaysOfMergingGiveTheSame) {
  const Bpe whole = read(competing_model(false));
  const Bpe cut = read(competing_model(true));
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    const size_t length = 1 + random() % 60;
    for (size_t i = 0; i < length; ++i) text += "abc_"[random() % 4];
    EXPECT_EQ(encode(whole, text), encode(cut, text)) << text;
    // Many copies behind a border that no merge crosses are one long word, and each copy a short one.
    std::string copies;
    std::vector<uint32_t> expected;
    const std::vector<uint32_t> once = encode(whole, "_" + text);
    for (int i = 0; i < 5; ++i) {
      copies += "_" + text;
      expected.insert(expected.end(), once.begin(), once.end());
    }
    EXPECT_EQ(encode(whole, copies), expected) << text;
  }
}

TEST(Bpe, AWordOfAMillionCharactersTakesAMoment) {
  const Bpe bpe = read(competing_model(false));
  std::string word;
  std::mt19937 random(2);
  for (int i = 0; i < 1'000'000; ++i) word += "abc"[random() % 3];
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_GT(encode(bpe, word).size(), 100'000U);
  // A quadratic merge takes hours; sanitizers slow this down to seconds.
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60));
}

TEST(Bpe, RefusesModelsThatDoNotFit) {
  const auto refused = [](ErrorCode code, const std::string& text, const std::string& message) {
    expect_error(code, message, [&] { (void)read(text); });
  };
  refused(ErrorCode::unsupported_model, R"({"type": "Unigram"})", "model: type: expected BPE, got \"Unigram\"");
  refused(ErrorCode::unsupported_model, R"({"type": "BPE", "vocab": {}, "merges": [], "dropout": 0.1})",
          "model: dropout: expected null, got 0.1");
  refused(ErrorCode::unsupported_model, R"({"type": "BPE", "vocab": {}, "merges": [], "end_of_word_suffix": "</w>"})",
          "model: end_of_word_suffix: expected null, got \"</w>\"");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]})",
          "model: merges[0]: expected tokens of the vocabulary, got \"b\"");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]})",
          "model: merges[0]: expected tokens of the vocabulary, got \"aa\"");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "vocab": {"a": 0}, "merges": ["a a a"]})",
          "model: merges[0]: expected two tokens with one space between, got \"a a a\"");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]})",
          "model: merges[0]: expected two tokens, got 1");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []})",
          "model: vocab.b: expected an id that no other token has, got 0, the id of \"a\"");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "vocab": {"a": 2097152}, "merges": []})",
          "model: vocab.a: expected an integer in [0, 2097151], got 2097152");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "vocab": {"a": -1}, "merges": []})",
          "model: vocab.a: expected an integer in [0, 2097151], got -1");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "?"})",
          "model: unk_token: expected a token of the vocabulary, got \"?\"");
  refused(ErrorCode::malformed_model, R"({"type": "BPE", "merges": []})",
          "model: vocab: expected an object, the key is missing");
}

}  // namespace
}  // namespace oriel::tokenizer
