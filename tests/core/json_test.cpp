#include "core/json.hpp"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>

#include "core/expect_error.hpp"
#include "core/temporary_directory.hpp"

namespace oriel {
namespace {

using testing::ElementsAre;

Json parse(std::string_view text) { return Json::parse(text, "c.json"); }

void expect_malformed(std::string_view text, const std::string& message) {
  expect_error(ErrorCode::malformed_model, message, [&] { (void)parse(text); });
}

TEST(Json, ReadsEveryKindOfValue) {
  const Json json =
      parse(R"({"i": -3, "f": 0.5, "b": true, "s": "a\u00e9\n", "n": null, "l": [1, 2.0], "o": {"k": 7}})");
  EXPECT_EQ(json["i"].integer(), -3);
  EXPECT_EQ(json["i"].number(), -3.0);
  EXPECT_EQ(json["f"].number(), 0.5);
  EXPECT_TRUE(json["b"].boolean());
  EXPECT_EQ(json["s"].string(), "a\xc3\xa9\n");
  EXPECT_THAT(json["l"].integers(), ElementsAre(1, 2));
  EXPECT_THAT(json["l"].numbers(), ElementsAre(1.0, 2.0));
  EXPECT_EQ(json["o"]["k"].integer(), 7);
  EXPECT_TRUE(json.is_object() && json["l"].is_array() && json["s"].is_string() && json["f"].is_number() &&
              json["b"].is_bool());
  EXPECT_FALSE(json["b"].is_number() || json["i"].is_string() || json["n"].is_object() || json["absent"].is_array());
  EXPECT_TRUE(json["i"].is_integer() && json["l"].elements()[0].is_integer());
  EXPECT_FALSE(json["l"].elements()[1].is_integer() || json["f"].is_integer() || json["b"].is_integer());
}

TEST(Json, TellsAbsentFromNull) {
  const Json json = parse(R"({"n": null})");
  EXPECT_TRUE(json["n"].is_null());
  EXPECT_FALSE(json["n"].is_absent() || json["n"].has_value());
  EXPECT_TRUE(json["a"].is_absent());
  EXPECT_FALSE(json["a"].is_null() || json["a"].has_value());
  EXPECT_TRUE(json["n"]["below"]["it"].is_absent());
  EXPECT_TRUE(json["a"]["below"]["it"].is_absent());
}

TEST(Json, HidesControlCharactersOfKeysAndCutsLongOnes) {
  expect_error(ErrorCode::malformed_model, "c.json: a?b: expected an integer, got true", [] {
    (void)parse(R"({"a\u001bb": true})")
        ["a\x1b"
         "b"]
            .integer();
  });
  const std::string key(1000, 'k');
  expect_error(ErrorCode::malformed_model, "c.json: " + std::string(200, 'k') + "...: expected an integer, got null",
               [&] { (void)parse("{\"" + key + "\": null}")[key].integer(); });
}

TEST(Json, FallbacksStandInForAbsentKeysOnly) {
  const Json json = parse(R"({"n": null, "i": 1, "f": 1.5, "b": false, "s": "x"})");
  EXPECT_EQ(json["a"].integer_or(5), 5);
  EXPECT_EQ(json["i"].integer_or(5), 1);
  EXPECT_EQ(json["a"].number_or(5.5), 5.5);
  EXPECT_EQ(json["f"].number_or(5.5), 1.5);
  EXPECT_TRUE(json["a"].boolean_or(true));
  EXPECT_FALSE(json["b"].boolean_or(true));
  EXPECT_EQ(json["a"].string_or("y"), "y");
  EXPECT_EQ(json["s"].string_or("y"), "x");
  expect_error(ErrorCode::malformed_model, "c.json: n: expected an integer, got null",
               [&] { (void)json["n"].integer_or(5); });
}

TEST(Json, WrongKindsNameFileKeyExpectedAndFound) {
  const Json json = parse(R"({"vision_config": {"patch_size": "sixteen", "sizes": [1, [2]], "half": 0.5, "b": true}})");
  const Json vision = json["vision_config"];
  const auto expect = [](const std::string& text, const auto& call) {
    expect_error(ErrorCode::malformed_model, text, call);
  };
  expect("c.json: vision_config.patch_size: expected an integer, got \"sixteen\"",
         [&] { (void)vision["patch_size"].integer(); });
  expect("c.json: vision_config.patch_size: expected an object, got \"sixteen\"",
         [&] { (void)vision["patch_size"]["x"]; });
  expect("c.json: vision_config.sizes[1]: expected an integer, got [2]", [&] { (void)vision["sizes"].integers(); });
  expect("c.json: vision_config.sizes: expected true or false, got [1,[2]]", [&] { (void)vision["sizes"].boolean(); });
  expect("c.json: vision_config.half: expected an integer, got 0.5", [&] { (void)vision["half"].integer(); });
  expect("c.json: vision_config.b: expected an integer, got true", [&] { (void)vision["b"].integer(); });
  expect("c.json: vision_config.b: expected a number, got true", [&] { (void)vision["b"].number(); });
  expect("c.json: vision_config.depth: expected an integer, the key is missing",
         [&] { (void)vision["depth"].integer(); });
  expect("c.json: vision_config.half: expected a string, got 0.5", [&] { (void)vision["half"].string(); });
  expect("c.json: vision_config.half: expected an array, got 0.5", [&] { (void)vision["half"].elements(); });
  expect("c.json: vision_config.half: expected an array of integers, got 0.5",
         [&] { (void)vision["half"].integers(); });
  expect("c.json: vision_config.half: expected an array of numbers, got 0.5", [&] { (void)vision["half"].numbers(); });
  expect("c.json: vision_config.half: expected an object, got 0.5", [&] { (void)vision["half"].members(); });
  EXPECT_EQ(json.where(), "c.json");
  EXPECT_EQ(vision["sizes"].elements()[1].where(), "c.json: vision_config.sizes[1]");
}

TEST(Json, IntegersKeepToTheirBounds) {
  const Json json = parse(R"({"d": 32, "f": 33.0, "s": "x", "h": 3.5, "n": null})");
  EXPECT_EQ(json["d"].integer_in(32, 32), 32);
  EXPECT_EQ(json["f"].integer_in_or(0, 64, 1), 33);
  EXPECT_EQ(json["a"].integer_in_or(0, 64, 1), 1);
  expect_error(ErrorCode::malformed_model, "c.json: d: expected an integer in [33, 64], got 32",
               [&] { (void)json["d"].integer_in(33, 64); });
  expect_error(ErrorCode::malformed_model, "c.json: d: expected an integer in [1, 31], got 32",
               [&] { (void)json["d"].integer_in(1, 31); });
  expect_error(ErrorCode::malformed_model, "c.json: s: expected an integer in [1, 31], got \"x\"",
               [&] { (void)json["s"].integer_in(1, 31); });
  expect_error(ErrorCode::malformed_model, "c.json: h: expected an integer, got 3.5",
               [&] { (void)json["h"].integer_in(1, 31); });
  expect_error(ErrorCode::malformed_model, "c.json: n: expected an integer in [1, 31], got null",
               [&] { (void)json["n"].integer_in_or(1, 31, 5); });
}

TEST(Json, IntegersThatDoNotFitAreRefused) {
  const Json json = parse(R"({"max": 9223372036854775807, "min": -9223372036854775808, "over": 9223372036854775808,
                              "huge": 123456789012345678901234567890, "exact": 9007199254740992.0, "vague": 1e17})");
  EXPECT_EQ(json["max"].integer(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(json["min"].integer(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(json["exact"].integer(), int64_t{1} << 53);
  expect_error(ErrorCode::malformed_model, "c.json: over: expected an integer, got 9.223372036854776e+18",
               [&] { (void)json["over"].integer(); });
  expect_error(ErrorCode::malformed_model, "c.json: huge: expected an integer, got 1.2345678901234568e+29",
               [&] { (void)json["huge"].integer(); });
  expect_error(ErrorCode::malformed_model, "c.json: vague: expected an integer, got 1e+17",
               [&] { (void)json["vague"].integer(); });
}

TEST(Json, LastOfEqualKeysWinsAtThePlaceOfTheFirst) {
  for (const int padding : {0, 20}) {  // small objects are searched one by one, large ones through an index
    std::string text = R"({"a": 1, "b": 2, "a": 3, "a": 4)";
    for (int i = 0; i < padding; ++i) text += ", \"p" + std::to_string(i) + "\": 0";
    const Json json = parse(text + "}");
    EXPECT_EQ(json["a"].integer(), 4);
    EXPECT_EQ(json["b"].integer(), 2);
    EXPECT_EQ(json.members().size(), static_cast<size_t>(2 + padding));
    EXPECT_EQ(json.members()[0].first, "a");
    EXPECT_EQ(json.members()[1].first, "b");
    if (padding > 0) {
      EXPECT_EQ(json["p19"].integer(), 0);
      EXPECT_TRUE(json["p20"].is_absent());
    }
  }
}

TEST(Json, EqualKeysCanBeRefused) {
  expect_error(ErrorCode::malformed_model, "c.json: expected unique keys, got \"w\" twice", [] {
    (void)Json::parse(R"({"v": 0, "o": {"w": 1, "x": 2, "w": 3}})", "c.json", Json::DuplicateKeys::refuse);
  });
  EXPECT_NO_THROW((void)Json::parse(R"({"o": {"w": 1}, "w": 2})", "c.json", Json::DuplicateKeys::refuse));
}

TEST(Json, MembersKeepTheOrderOfTheFile) {
  const Json json = parse(R"({"z": 1, "a": 2, "m": 3})");
  std::string order;
  for (const auto& [key, value] : json.members()) order += key + value.dump();
  EXPECT_EQ(order, "z1a2m3");
}

TEST(Json, DumpIsCompactAndReadsBackEqual) {
  const std::string text = R"({"s":"q\"b\\n\n\u0001é","l":[1,-2,0.1,1e+30,true,false,null],"o":{},"e":[]})";
  EXPECT_EQ(parse(text).dump(), text);
  EXPECT_EQ(parse(parse(text).dump()).dump(), text);
  EXPECT_EQ(parse("{}")["absent"].dump(), "");
  EXPECT_EQ(parse(R"({"a":16.0,"b":-0.0,"c":-0e40,"d":-0.5,"e":-0})").dump(), R"({"a":16,"b":0,"c":0,"d":-0.5,"e":0})");
}

TEST(Json, ValuesOutliveTheJsonTheyCameFrom) {
  const Json inner = [] { return parse(R"({"a": {"b": ["kept"]}})")["a"]["b"].elements()[0]; }();
  EXPECT_EQ(inner.string(), "kept");
  EXPECT_EQ(inner.where(), "c.json: a.b[0]");
}

TEST(Json, SyntaxErrorsNameLineAndColumn) {
  expect_malformed("{\n  \"a\": 1,\n  \"b\": }",
                   "c.json: line 3, column 8: expected JSON, got syntax error while parsing value - unexpected '}'; "
                   "expected '[', '{', or a literal");
  expect_malformed("",
                   "c.json: line 1, column 1: expected JSON, got syntax error while parsing value - unexpected end of "
                   "input; expected '[', '{', or a literal");
  expect_malformed("{} x",
                   "c.json: line 1, column 4: expected JSON, got syntax error while parsing value - invalid literal; "
                   "last read: '{} x'; expected end of input");
}

TEST(Json, TextThatIsNoObjectIsRefused) {
  expect_malformed("[1, 2]", "c.json: expected an object, got [1,2]");
  expect_malformed("null", "c.json: expected an object, got null");
  expect_malformed("7", "c.json: expected an object, got 7");
}

TEST(Json, NumbersThatAreNotFiniteAreRefused) {
  expect_malformed("{\"a\": NaN}", "c.json: line 1, column 7: expected a finite number, got NaN");
  expect_malformed("{\"a\":\n[1, Infinity]}", "c.json: line 2, column 5: expected a finite number, got Infinity");
  expect_malformed("{\"a\": -Infinity}", "c.json: line 1, column 7: expected a finite number, got -Infinity");
  expect_malformed("{\"a\": 1e999}", "c.json: line 1, column 7: expected a number in the range of a double, got 1e999");
}

TEST(Json, BrokenUtf8IsRefusedWithAPrintableMessage) {
  try {
    (void)parse("{\"a\": \"\xff\xfe\"}");
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::malformed_model);
    EXPECT_TRUE(is_utf8(error.what())) << error.what();
    EXPECT_THAT(error.what(), testing::StartsWith("c.json: line 1, column 8: expected JSON, got "));
  }
}

TEST(Json, NestingStopsAtOneHundred) {
  const auto nested = [](size_t depth) {
    return R"({"a": )" + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_NO_THROW((void)parse(nested(100)));
  expect_malformed(nested(101), "c.json: expected at most 100 levels of nesting, got more");
  // Never closed, and long enough to end a recursive parser.
  expect_malformed(R"({"a": )" + std::string(5'000'000, '['),
                   "c.json: expected at most 100 levels of nesting, got more");
}

TEST(Json, MoreThanEightMillionValuesAreRefused) {
  std::string text = R"({"a": [0)";
  for (int i = 0; i < 8'000'000; ++i) text += ",0";
  expect_error(ErrorCode::limit_exceeded, "c.json: expected at most 8000000 JSON values, got more",
               [&] { (void)parse(text + "]}"); });
}

TEST(Json, LongFoundValuesAreCutInMessages) {
  expect_error(ErrorCode::malformed_model, "c.json: a: expected an integer, got \"" + std::string(79, 'x') + "...",
               [] { (void)parse("{\"a\": \"" + std::string(100'000, 'x') + "\"}")["a"].integer(); });
  // The cut would fall into the second of two bytes.
  expect_error(ErrorCode::malformed_model, "c.json: a: expected an integer, got \"" + std::string(78, 'x') + "...",
               [] { (void)parse("{\"a\": \"" + std::string(78, 'x') + "ééé\"}")["a"].integer(); });
}

TEST(Json, AVocabularyOfHundredsOfThousandsIsReadInLinearTime) {
  std::string text = "{";
  for (int i = 0; i < 300'000; ++i) text += fmt::format(R"({}"t{}":{})", i == 0 ? "" : ",", i, i);
  const auto start = std::chrono::steady_clock::now();
  const Json json = parse(text + "}");
  for (int i = 0; i < 300'000; i += 7) ASSERT_EQ(json[fmt::format("t{}", i)].integer(), i);
  // A tenth of a second here; a quadratic reader takes minutes, so the bound can be generous to slow machines.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(JsonFile, ErrorsNameThePath) {
  const TemporaryDirectory directory;
  const std::string missing = (directory.path() / "config.json").string();
  expect_error(ErrorCode::file_error, missing + ": expected a file, found nothing", [&] { (void)Json::read(missing); });
  expect_error(ErrorCode::file_error, directory.path().string() + ": expected a file, found a directory or device",
               [&] { (void)Json::read(directory.path()); });
  const std::filesystem::path path = directory.write("config.json", R"({"depth": "deep"})");
  EXPECT_EQ(Json::read(path)["depth"].string(), "deep");
  EXPECT_EQ(Json::read(path, 17)["depth"].string(), "deep");
  expect_error(ErrorCode::limit_exceeded, missing + ": expected at most 16 bytes, got 17",
               [&] { (void)Json::read(path, 16); });
  expect_error(ErrorCode::malformed_model, missing + ": depth: expected an integer, got \"deep\"",
               [&] { (void)Json::read(path)["depth"].integer(); });
}

TEST(JsonFuzz, FlippedBytesGiveAValueOrAnError) {
  const std::string valid =
      R"({"architectures": ["X"], "vision_config": {"patch_size": 14, "rope_theta": 1e4, "n": null},
                                "text": "\u00e9\ud83d\ude00 \"quoted\"", "flags": [true, false, -0.5e-3]})";
  const unsigned seed = 20'240'607;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = valid;
    for (auto flips = 1 + random() % 3; flips > 0; --flips) {
      text[random() % text.size()] = static_cast<char>(random() % 256);
    }
    if (random() % 4 == 0) text.resize(random() % text.size());
    try {
      const Json json = Json::parse(text, "fuzz");
      EXPECT_TRUE(is_utf8(json.dump()));
    } catch (const Error& error) {
      ++refused;
      EXPECT_EQ(error.code(), ErrorCode::malformed_model) << error.what();
      EXPECT_TRUE(is_utf8(error.what()));
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_LT(refused, 20'000);
}

TEST(Utf8, ShortestFormsWithoutSurrogatesOnly) {
  for (const std::string_view text : {"", "a", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
                                      "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(is_utf8(text)) << testing::PrintToString(text);
  }
  for (const std::string_view text :
       {"\x80", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2\x41", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82",
        "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff"}) {
    EXPECT_FALSE(is_utf8(text)) << testing::PrintToString(text);
  }
}

}  // namespace
}  // namespace oriel
