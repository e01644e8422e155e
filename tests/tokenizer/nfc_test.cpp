#include "tokenizer/nfc.hpp"

#include <gtest/gtest.h>

#include <string>

#include "tokenizer/unicode.hpp"

namespace oriel::tokenizer {
namespace {

std::string compose(std::string_view text) {
  std::vector<ComposedCharacter> characters;
  compose_text(text, characters);
  std::string result;
  for (const ComposedCharacter& character : characters) append_utf8(result, character.code_point);
  return result;
}

TEST(Nfc, PutsTogetherWhatBelongsTogether) {
  EXPECT_EQ(compose("e\u0301"), "\u00e9");
  EXPECT_EQ(compose("A\u030a \u212b"), "\u00c5 \u00c5");
  EXPECT_EQ(compose("\u1112\u1161\u11ab\uac00\u11a8"), "\ud55c\uac01");
  EXPECT_EQ(compose("plain \u4f60"), "plain \u4f60");
}

TEST(Nfc, OrdersMarksAndRespectsWhatStandsBetween) {
  EXPECT_EQ(compose("q\u0307\u0323"), "q\u0323\u0307");
  EXPECT_EQ(compose("e\u0302\u0323"), "\u1ec7");
  EXPECT_EQ(compose("a\u0315\u0300"), "\u00e0\u0315");
  EXPECT_EQ(compose("a\u05ae\u0300\u0345"), "\u00e0\u05ae\u0345");
}

TEST(Nfc, LeavesExcludedCharactersApart) {
  EXPECT_EQ(compose("\u0958"), "\u0915\u093c");
  EXPECT_EQ(compose("\ufb1d"), "\u05d9\u05b4");
}

TEST(Nfc, KnowsUnicode9Alone) {
  EXPECT_EQ(compose("\U00011935\U00011930"), "\U00011935\U00011930");  // composes since Unicode 13
}

TEST(Nfc, ToldComposedTextComesOutAsItIs) {
  for (const char* text : {"", "a", "\u00e9 \u4f60 \ud55c", "\U0001F600"}) {
    EXPECT_TRUE(is_composed(text));
    EXPECT_EQ(compose(text), text);
  }
  for (const char* text : {"e\u0301", "\u212b", "\u0958", "\u1112\u1161"}) EXPECT_FALSE(is_composed(text));
}

TEST(Nfc, TakesOneBaseWithVeryManyMarks) {
  std::string text = "a";
  for (int i = 0; i < 100000; ++i) text += "\u0301\u0323";
  const std::string composed = compose(text);
  // One dot below joins the letter; the others come first, then the accents above.
  EXPECT_TRUE(composed.starts_with("\u1ea1\u0323"));
  EXPECT_TRUE(composed.ends_with("\u0301"));
  EXPECT_EQ(composed.size(), text.size());
}

}  // namespace
}  // namespace oriel::tokenizer
