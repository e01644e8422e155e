// Tokenizer files that mean harm: each ends in an Error, and soon.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/expect_error.hpp"
#include "core/json.hpp"
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

}  // namespace
}  // namespace oriel::tokenizer
