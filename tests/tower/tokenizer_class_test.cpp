// Directories in which transformers takes a tokenizer class that builds parts of the tokenizer itself, or obeys the
// file.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <oriel/oriel.hpp>
#include <string>

#include "core/json.hpp"
#include "core/temporary_directory.hpp"

namespace oriel {
namespace {

std::filesystem::path data() { return std::filesystem::path(ORIEL_TEST_DATA) / "tokenizers"; }

/// An object with the members of `edits` in place of `base`'s own; those of "model" one level deeper.
std::string edited(const Json& base, const Json& edits, bool is_file = true) {
  std::string result;
  const auto add = [&](const std::string& key, const std::string& value) {
    result += fmt::format("{}{}:{}", result.empty() ? "{" : ",", quote_json(key), value);
  };
  for (const auto& [key, value] : base.members()) {
    const Json edit = edits[key];
    const bool is_model = is_file && key == "model" && !edit.is_absent();
    add(key, is_model ? edited(value, edit, false) : edit.is_absent() ? value.dump() : edit.dump());
  }
  for (const auto& [key, value] : edits.members())
    if (base[key].is_absent()) add(key, value.dump());
  return result + "}";
}

Tokenizer load(const Json& test) {
  const TemporaryDirectory directory;
  const Json file = Json::read(data() / test["kind"].string() / "tokenizer.json");
  (void)directory.write("tokenizer.json", edited(file, test["edits"]));
  (void)directory.write("tokenizer_config.json", test["config"].dump());
  (void)directory.write("config.json", fmt::format(R"({{"model_type": {}}})", test["model_type"].dump()));
  if (test["map"].has_value()) (void)directory.write("special_tokens_map.json", test["map"].dump());
  return Tokenizer::load(directory.path());
}

/// Ids and texts are transformers 5.17's, of released files and of ones with a part that the class may or may not obey.
TEST(TokenizerClass, BuildsTheGoldensParts) {
  const Json goldens = Json::read(data() / "classes.json");
  const std::vector<Json> texts = goldens["texts"].elements();
  const std::vector<Json> cases = goldens["cases"].elements();
  ASSERT_FALSE(cases.empty());
  for (const Json& test : cases) {
    const std::string name = fmt::format("{} of {}, {}, {}", test["kind"].string(), test["model_type"].string(),
                                         test["config"].dump(), test["edits"].dump());
    const Tokenizer tokenizer = load(test);
    const std::vector<Json> rows = test["rows"].elements();
    ASSERT_EQ(rows.size(), texts.size()) << name;
    for (size_t i = 0; i < rows.size(); ++i) {
      const std::string text = texts[i].string();
      const std::vector<Json> row = rows[i].elements();
      const std::vector<int64_t> ids = row.at(0).integers();
      EXPECT_EQ(tokenizer.encode(text), ids) << name << "\n" << texts[i].dump();
      EXPECT_EQ(tokenizer.encode(text, {.special_tokens = false}), row.at(1).integers()) << name << "\n"
                                                                                         << texts[i].dump();
      EXPECT_EQ(tokenizer.decode(ids, {.skip_special_tokens = false}), row.at(2).string()) << name << "\n"
                                                                                           << texts[i].dump();
    }
  }
}

}  // namespace
}  // namespace oriel
