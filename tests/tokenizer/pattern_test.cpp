#include "tokenizer/pattern.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "core/expect_error.hpp"
#include "core/json.hpp"

namespace oriel::tokenizer {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<std::string> matches(std::string_view regex, std::string_view text) {
  std::vector<Pattern::Match> found;
  Pattern(regex, "here").find_all(text, found);
  std::vector<std::string> result;
  for (const Pattern::Match& match : found) result.emplace_back(text.substr(match.begin, match.end - match.begin));
  return result;
}

TEST(Pattern, FindsAllMatchesFromLeftToRight) {
  EXPECT_THAT(matches("ab|c", "xabcab"), ElementsAre("ab", "c", "ab"));
  EXPECT_THAT(matches("[a-c]+", "é abc d cab"), ElementsAre("abc", "cab"));
  EXPECT_THAT(matches("x*", "axx"), ElementsAre("", "xx"));
  EXPECT_THAT(matches("a", ""), IsEmpty());
}

TEST(Pattern, RepeatsAsOftenAsItSays) {
  EXPECT_THAT(matches(R"(\p{N}{1,3})", "12345"), ElementsAre("123", "45"));
  EXPECT_THAT(matches("a{2}", "aaaaa"), ElementsAre("aa", "aa"));
  EXPECT_THAT(matches("a{,2}b", "aaab"), ElementsAre("aab"));
  EXPECT_THAT(matches("a{2,}", "a aaaa"), ElementsAre("aaaa"));
  EXPECT_THAT(matches("a+?", "aa"), ElementsAre("a", "a"));
  EXPECT_THAT(matches("a{b", "a{b"), ElementsAre("a{b"));
}

TEST(Pattern, LooksAround) {
  EXPECT_THAT(matches(R"(\s+(?!\S)|\s+)", "a  b "), ElementsAre(" ", " ", " "));
  EXPECT_THAT(matches("(?<=a)b(?=c)", "abc bc ab"), ElementsAre("b"));
  EXPECT_THAT(matches("(?<!a)b", "ab b"), ElementsAre("b"));
}

/// Facts of the `tokenizers` package, whose characters are those of Unicode 16.
TEST(Pattern, KnowsTheCharactersOfUnicode16) {
  EXPECT_THAT(matches(R"(\p{L}+)", "9 \U00010D4A\U0001DF00 \u1C89\uA7CB"),
              ElementsAre("\U00010D4A\U0001DF00", "\u1C89\uA7CB"));
  EXPECT_THAT(matches(R"(\s)", "\u180e\u200b\ufeff\x1c\x1f \u0085\u00a0\u3000"),
              ElementsAre(" ", "\u0085", "\u00a0", "\u3000"));
  EXPECT_THAT(matches(R"(\d+)", "1\u0663\u00bd\u2167"), ElementsAre("1\u0663"));
  EXPECT_THAT(matches(R"(\w+)", "\u200cA\u24b6\u2160 \u203f\U0001f130"),
              ElementsAre("A\u24b6\u2160", "\u203f\U0001f130"));
  EXPECT_THAT(matches(R"(\w+)", "x\u00b2\u00bd\u2070"), ElementsAre("x\u00b2\u00bd"));
  EXPECT_THAT(matches(R"([^\P{Lu}])", "aB\u01c5"), ElementsAre("B"));
}

TEST(Pattern, IgnoresCaseWhereItIsTold) {
  EXPECT_THAT(matches("(?i:'s|'t)", "'S 't '\u017f 'x"), ElementsAre("'S", "'t", "'\u017f"));
  EXPECT_THAT(matches("(?i:a)a", "AA Aa aa"), ElementsAre("Aa", "aa"));
  EXPECT_THAT(matches("(?i:[k-l])", "K\u212al"), ElementsAre("K", "\u212a", "l"));
}

TEST(Pattern, SetsHoldRangesEscapesAndDashes) {
  EXPECT_THAT(matches(R"([\-\]x])", "-]xa"), ElementsAre("-", "]", "x"));
  EXPECT_THAT(matches(R"([+-])", "+-,"), ElementsAre("+", "-"));
  EXPECT_THAT(matches(R"([\x41-\x{43}\u0044])", "ABCDE"), ElementsAre("A", "B", "C", "D"));
  EXPECT_THAT(matches(R"([^\s\S])", "a b"), IsEmpty());
  EXPECT_THAT(matches("[\u4e00-\u9fa5]+", "a\u4f60\u597d"), ElementsAre("\u4f60\u597d"));
}

TEST(Pattern, RefusesWhatOnigurumaReadsOtherwise) {
  const auto refused = [](std::string_view regex, const std::string& what) {
    expect_error(ErrorCode::unsupported_model,
                 "here: expected a pattern that oriel understands, got " + what + " in " + quote_json(regex),
                 [&] { Pattern(regex, "here"); });
  };
  refused("^a", "an anchor");
  refused("a**", "a repetition of a repetition");
  refused("*a", "a repetition of nothing");
  refused("(a", "a group without its end");
  refused("a)", "a ) without its (");
  refused("(?<name>a)", "the group \"(?<n\"");
  refused("(?m:a)", "the group \"(?m:\"");
  refused("a{1001}", "a repetition of more than 1000");
  refused("(?:(?:[ab]{20}c){10}|d){10}", "parts that read more than 2000 characters in all");
  refused("[ab]{,1000}|[ab]{1000}c", "parts that read more than 2000 characters in all");
  refused("[a[b]]", "a set inside a set");
  refused("[]", "an empty set");
  refused("[b-a]", "a range without order");
  refused("[ab", "an end too early");
  refused("(?i:\u00e9)", "characters beyond ASCII where case is ignored");
  refused("\\p{Han}", "the property \"Han\"");
  EXPECT_THROW(Pattern(R"(\bword)", "here"), Error);
  EXPECT_THROW(Pattern(R"(\1)", "here"), Error);
  EXPECT_THROW(Pattern("a\\", "here"), Error);
  EXPECT_THROW(Pattern(std::string(200, '('), "here"), Error);
}

TEST(Pattern, EndsWhereAPatternBacktracksWithoutEnd) {
  const Pattern pattern("(?:a|a|aa)+b", "here");
  std::vector<Pattern::Match> found;
  const std::string message = "here: the pattern backtracks without end in this text";
  expect_error(ErrorCode::limit_exceeded, message, [&] { pattern.find_all(std::string(200, 'a') + "cb", found); });
  // Each place ends, but all of them together take minutes.
  std::string text;
  for (int i = 0; i < 2000; ++i) text += std::string(16, 'a') + "c";
  expect_error(ErrorCode::limit_exceeded, message, [&] { pattern.find_all(text + "b", found); });
}

TEST(Pattern, FindsWhatTakesManySteps) {
  // Blanks are given back one by one, a million times, before the second choice is tried.
  const std::string blanks(1'000'000, ' ');
  EXPECT_THAT(matches(R"((?:\s)*[\r\n]+|x|\s+(?!\S)|\s+)", "x" + blanks + "xx"),
              ElementsAre("x", blanks.substr(1), " ", "x", "x"));
  // A start that takes many steps and finds nothing, and a match far behind it.
  EXPECT_THAT(matches("(?:a|a|aa)+b|d", std::string(12, 'a') + "c" + std::string(1000, 'e') + "dab"),
              ElementsAre("d", "ab"));
}

/// `text` has no match, and `last` behind it none but itself; it may be refused, but soon.
void expect_soon_nothing(const Pattern& pattern, const std::string& text, const std::string& last = "",
                         std::chrono::seconds limit = std::chrono::seconds(20)) {
  std::vector<Pattern::Match> found;
  const auto begin = std::chrono::steady_clock::now();
  try {
    pattern.find_all(text + last, found);
    for (const Pattern::Match& match : found) EXPECT_GE(match.begin, text.size());
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "here: the pattern backtracks without end in this text");
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, limit);
}

/// Repeats that PCRE2 does not count as steps, and that read a run to its end at every place of it. Unbounded, 100,000
/// characters take up to 40 seconds, and ten times as many a hundred times as long.
TEST(Pattern, EndsWhereAPatternReadsARunAtEveryPlace) {
  for (const std::string regex :
       {"(?=a*b)a", "(?=a*+b)a", "(?!a*c)b", "(?>a+)[bc]|d", "x?(?>a*)[bc]", "(?:aa)*+[bc]", "(?:a|aa)++b", "(?>a)*b",
        "(?:(?=a*b)|(?=a*c))a", "(?:(?=a*b)x|a)*b", "a*[bc]", "x?a*[bc]", "(?:aa)*[bc]"}) {
    const Pattern pattern(regex, "here");
    for (const size_t count : {10'000, 100'000, 1'000'000}) {
      SCOPED_TRACE(fmt::format("{} in {}", regex, count));
      expect_soon_nothing(pattern, std::string(count, 'a'));
    }
  }
}

std::string ideograph(unsigned number) {
  const unsigned code_point = 0x4e00 + number;
  return {static_cast<char>(0xe0 | code_point >> 12), static_cast<char>(0x80 | (code_point >> 6 & 63)),
          static_cast<char>(0x80 | (code_point & 63))};
}

/// PCRE2 counts no steps on the way back to a letter: without a limit the first takes 3 seconds for 80,000 characters,
/// the second 30, and ten times as many a hundred times as long.
TEST(Pattern, EndsWhereARepeatGoesBackToALetter) {
  for (const std::string regex : {"[ab]{2,}c|xb", "[ab]{2,9}[ab]{2,}c|xb", "[ab]{2,}c{1}|xb", "[ab]{2,1000}c|xb"}) {
    const Pattern pattern(regex, "here");
    for (const size_t count : {80'000, 1'000'000}) {
      SCOPED_TRACE(fmt::format("{} in {}", regex, count));
      expect_soon_nothing(pattern, std::string(count, 'a') + "x", "c");
    }
  }
  // 102 classes, two of which PCRE2 takes for the cases of a letter: a, b and x are 1 to 3, and A and a are 65 and 97.
  std::string more;
  for (unsigned i = 0; i < 98; ++i) more += fmt::format("|{}", ideograph(i));
  const Pattern pair(fmt::format("[ab]{{2,}}[{}{}]|xb{}", ideograph(61), ideograph(93), more), "here");
  expect_soon_nothing(pair, std::string(300'000, 'a') + "x");
  // All 256 classes.
  for (unsigned i = 98; i < 251; ++i) more += fmt::format("|{}", ideograph(i));
  const Pattern full(fmt::format("[ab]{{2,}}c|xb{}", more), "here");
  expect_soon_nothing(full, std::string(300'000, 'a') + "x", "c");
  std::vector<Pattern::Match> found;
  full.find_all(fmt::format("aac{}aa{}xb", ideograph(250), ideograph(251)), found);
  EXPECT_EQ(found.size(), 3U);
}

/// Each step reads hundreds of characters, each start takes a hundred steps: unbounded 75 microseconds a character.
TEST(Pattern, HasFewerStepsWhereEachReadsMuch) {
  std::string regex = "a?a?a?a?a?a?a?(?:";
  for (int i = 0; i < 5; ++i) regex += "[ab]{330}[cd]|";
  const Pattern pattern(regex + "c)|xb", "here");
  expect_soon_nothing(pattern, std::string(300'000, 'a') + "x", "c", std::chrono::seconds(10));
  // What needs few steps is found all the same.
  EXPECT_THAT(matches("[ab]{900}c|(?:ab){1,300}|x", std::string(900, 'a') + "cababax"),
              ElementsAre(std::string(900, 'a') + "c", "abab", "x"));
}

TEST(Pattern, OfARealTokenizerIsCheap) {
  const std::string upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])";
  const std::string lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
  const std::string ends = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
  const std::string first = R"([^\r\n\p{L}\p{N}]?)";
  const std::string marks = R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::vector<std::string> patterns = {
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)",
      fmt::format(R"({}|{}\p{{L}}+|\p{{N}}{{1,3}}|{})", ends, first, marks),
      fmt::format(R"({2}{0}*{1}+{3}?|{2}{0}+{1}*{3}?|\p{{N}}{{1,3}}|{4})", upper, lower, first, ends, marks),
  };
  for (const std::string& regex : patterns) {
    const ParsedPattern parsed = parse_pattern(regex, "here");
    EXPECT_FALSE(parsed.reads_uncounted) << regex;
    EXPECT_LT(parsed.reads, 80U) << regex;
  }
}

TEST(Pattern, FindsTheSameInWindows) {
  // Matches that begin in one window and end in another, whose ends depend on what is far behind.
  const std::string run(5000, 'a');
  EXPECT_THAT(matches("a++b|a", run + "b" + "ac"), ElementsAre(run + "b", "a"));
  EXPECT_THAT(matches("(?>a+)", run + "c" + run), ElementsAre(run, run));
  EXPECT_THAT(matches("a(?=a*c)|b", "aab" + std::string(300, 'a') + "c").size(), 301U);
  EXPECT_THAT(matches("[^a]++|a{1,3}", run + "xyz"), testing::SizeIs(1668));
  // Digits in threes from the right.
  EXPECT_THAT(matches(R"(\d{1,3}(?=(?:\d{3})*(?!\d)))", "1234567 89"), ElementsAre("1", "234", "567", "89"));
  EXPECT_THAT(matches(R"(\d{1,3}(?=(?:\d{3})*(?!\d)))", std::string(1000, '7')).size(), 334U);
}

}  // namespace
}  // namespace oriel::tokenizer
