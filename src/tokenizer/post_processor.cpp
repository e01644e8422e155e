#include "tokenizer/post_processor.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/unicode.hpp"
#include "tokenizer/vocabulary.hpp"

namespace oriel::tokenizer {
namespace {

constexpr size_t most_ids = 1000;  // around a text; real templates have two

}  // namespace

PostProcessor PostProcessor::read(const Json& json) {
  PostProcessor result;
  result.add(json);
  return result;
}

void PostProcessor::add(const Json& json) {
  if (!json.has_value()) return;
  const std::string kind = json["type"].string();
  if (kind == "Sequence") {
    for (const Json& step : json["processors"].elements()) add(step);
  } else if (kind == "TemplateProcessing") {
    add_template(json);
  } else if (kind == "ByteLevel") {
    trims_offsets_ = json["trim_offsets"].boolean_or(true);
    adds_prefix_space_ = json["add_prefix_space"].boolean_or(true);
  } else {
    throw_error(ErrorCode::unsupported_model, "{}: expected TemplateProcessing, ByteLevel or Sequence, got {}",
                json.where(), quote_json(kind));
  }
}

void PostProcessor::add_template(const Json& json) {
  std::vector<int64_t> before;
  std::vector<int64_t> after;
  int texts = 0;
  for (const Json& piece : json["single"].elements()) {
    if (piece["Sequence"].has_value()) {
      ++texts;
      continue;
    }
    const std::string name = piece["SpecialToken"]["id"].string();
    const Json ids = json["special_tokens"][name]["ids"];
    if (ids.is_absent())
      throw_error(ErrorCode::malformed_model, "{}: expected a token of special_tokens, got {}",
                  piece["SpecialToken"]["id"].where(), quote_json(name));
    for (const Json& id : ids.elements()) {
      if (prefix_.size() + suffix_.size() + before.size() + after.size() >= most_ids)
        throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} ids around a text, got more",
                    json["single"].where(), most_ids);
      (texts == 0 ? before : after).push_back(id.integer_in(0, id_limit - 1));
    }
  }
  if (texts != 1)
    throw_error(ErrorCode::unsupported_model, "{}: expected the text once, got it {} times", json["single"].where(),
                texts);
  // A later template goes around an earlier one.
  prefix_.insert(prefix_.begin(), before.begin(), before.end());
  suffix_.insert(suffix_.end(), after.begin(), after.end());
}

PostProcessor::Blanks PostProcessor::blanks(std::string_view token, bool is_first) const {
  const uint32_t space = byte_alphabet[' '];
  std::vector<bool> is_space;
  for (size_t i = 0; i < token.size();) {
    const uint32_t code_point = next_code_point(token, i);
    is_space.push_back(code_point == space || white_space_set().contains(code_point));
  }
  const auto count_while = [](auto begin, auto end) {
    return static_cast<uint32_t>(std::find(begin, end, false) - begin);
  };
  uint32_t leading = count_while(is_space.begin(), is_space.end());
  const uint32_t trailing = count_while(is_space.rbegin(), is_space.rend());
  // The space that was put in front of a text is none of it.
  if (leading == 1 && adds_prefix_space_ && is_first) leading = 0;
  return {leading, trailing};
}

}  // namespace oriel::tokenizer
