#include "text/stop_strings.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/expect_error.hpp"

namespace oriel::text {
namespace {

struct Passed {
  std::string text;
  std::string found;
  friend bool operator==(const Passed&, const Passed&) = default;
};

Passed pass(const std::vector<std::string>& stops, const std::vector<std::string>& pieces) {
  StopStrings filter(stops);
  Passed passed;
  for (const std::string& piece : pieces) {
    passed.text += filter.push(piece);
    if (filter.found()) return {passed.text, *filter.found()};
  }
  passed.text += filter.finish();
  return passed;
}

TEST(StopStrings, WithoutAnyEverythingPassesAtOnce) {
  StopStrings filter({});
  EXPECT_EQ(filter.push("some text"), "some text");
  EXPECT_EQ(filter.finish(), "");
}

TEST(StopStrings, APartialMatchIsHeldUntilItIsDecided) {
  StopStrings filter({"STOP"});
  EXPECT_EQ(filter.push("go ST"), "go ");
  EXPECT_EQ(filter.push("O"), "");
  EXPECT_EQ(filter.push("NE"), "STONE");
  EXPECT_EQ(filter.push(" S"), " ");
  EXPECT_EQ(filter.finish(), "S");
  EXPECT_EQ(filter.push("TOP"), "TOP") << "finish forgets what was held";
}

TEST(StopStrings, HowTheTextIsCutMakesNoDifference) {
  const std::vector<std::string> stops{"abcd", "bc", "\n\n", "c\xc3\xa9"};
  for (const std::string text : {"xxabcde", "a\n\nb", "a\nb\n", "aac\xc3\xa9z", "ababab", "abc", "nothing"}) {
    const Passed whole = pass(stops, {text});
    for (size_t first = 0; first <= text.size(); ++first)
      for (size_t second = first; second <= text.size(); ++second)
        EXPECT_EQ(pass(stops, {text.substr(0, first), text.substr(first, second - first), text.substr(second)}), whole)
            << text << " cut at " << first << " and " << second;
  }
}

TEST(StopStrings, TheMatchThatIsCompleteFirstWins) {
  EXPECT_EQ(pass({"abcd", "bc"}, {"xabcd"}), (Passed{"xa", "bc"}));
  EXPECT_EQ(pass({"bc", "abcd"}, {"xabcd"}), (Passed{"xa", "bc"}));
  EXPECT_EQ(pass({"c", "abc", "bc"}, {"xabc"}), (Passed{"x", "abc"})) << "of those that end together the longest";
}

TEST(StopStrings, ARepeatedBeginIsNotMissed) {
  EXPECT_EQ(pass({"aab"}, {"a", "a", "a", "b"}), (Passed{"a", "aab"}));
  EXPECT_EQ(pass({"abab!"}, {"abab", "ab!"}), (Passed{"ab", "abab!"}));
}

TEST(StopStrings, TheTextAfterAMatchIsGone) { EXPECT_EQ(pass({"."}, {"one. two."}), (Passed{"one", "."})); }

TEST(StopStrings, WholeCharactersInAreWholeCharactersOut) {
  // "ä" and "ö" share their first byte, which must not be held alone.
  StopStrings filter({"\xc3\xb6!"});
  EXPECT_EQ(filter.push("\xc3\xa4"), "\xc3\xa4");
  EXPECT_EQ(filter.push("\xc3\xb6"), "");
  EXPECT_EQ(filter.push("?"), "\xc3\xb6?");
}

TEST(StopStrings, EmptyAndBrokenOnesAreRefused) {
  expect_error(ErrorCode::invalid_argument, "JobOptions::stop_strings: expected texts, got an empty one", [] {
    StopStrings({"a", ""});
  });
  for (const std::string broken : {"\x80", "a\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xc0\x80"})
    expect_error(
        ErrorCode::invalid_argument,
        "JobOptions::stop_strings: expected UTF-8, got " + std::to_string(broken.size()) + " bytes that are not",
        [&] { StopStrings({broken}); });
  EXPECT_NO_THROW(StopStrings({"\xf0\x9f\x98\x80", "\xe2\x82\xac", "\xed\x9f\xbf", "\xc3\xa9"}));
}

}  // namespace
}  // namespace oriel::text
