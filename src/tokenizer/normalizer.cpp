#include "tokenizer/normalizer.hpp"

#include <utility>

#include "core/error.hpp"
#include "tokenizer/nfc.hpp"

namespace oriel::tokenizer {
namespace {

// What a step puts into a text at once; real ones put one character.
constexpr size_t longest_content = 4096;

std::string read_content(const Json& json) {
  std::string content = json.string();
  if (content.size() > longest_content)
    throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} bytes, got {}", json.where(), longest_content,
                content.size());
  return content;
}

}  // namespace

TextPattern TextPattern::read(const Json& json) {
  TextPattern result;
  if (json["Regex"].has_value()) {
    result.pattern_ = Pattern(json["Regex"].string(), json["Regex"].where());
    return result;
  }
  std::string literal = json["String"].string();
  if (literal.empty())
    throw_error(ErrorCode::unsupported_model, "{}: expected a string to look for, got none", json["String"].where());
  result.pattern_ = std::move(literal);
  return result;
}

void TextPattern::find_all(std::string_view text, std::vector<Pattern::Match>& matches) const {
  if (const auto* literal = std::get_if<std::string>(&pattern_)) return find_literal(text, *literal, matches);
  std::get<Pattern>(pattern_).find_all(text, matches);
}

Normalizer Normalizer::read(const Json& json) {
  Normalizer result;
  result.add(json);
  return result;
}

void Normalizer::add(const Json& json) {
  if (!json.has_value()) return;
  if (steps_.size() >= most_steps)
    throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} steps, got more", json.where(), most_steps);
  const std::string kind = json["type"].string();
  if (kind == "Sequence") {
    for (const Json& step : json["normalizers"].elements()) add(step);
  } else if (kind == "NFC") {
    steps_.emplace_back(Compose{});
  } else if (kind == "Replace") {
    steps_.emplace_back(Replace{TextPattern::read(json["pattern"]), read_content(json["content"])});
  } else if (kind == "Prepend") {
    steps_.emplace_back(Prepend{read_content(json["prepend"])});
  } else {
    throw_error(ErrorCode::unsupported_model, "{}: expected NFC, Replace, Prepend or Sequence, got {}", json.where(),
                quote_json(kind));
  }
}

bool Normalizer::keeps(std::string_view text) const {
  std::vector<Pattern::Match> matches;
  for (const auto& step : steps_) {
    if (std::holds_alternative<Compose>(step)) {
      if (!is_composed(text)) return false;
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      replace->pattern.find_all(text, matches);
      if (!matches.empty()) return false;
    } else if (!text.empty()) {
      return false;
    }
  }
  return true;
}

void Normalizer::apply(AlignedText& text) const {
  std::vector<Pattern::Match> matches;
  for (const auto& step : steps_) {
    if (std::holds_alternative<Compose>(step)) {
      if (!is_composed(text.text())) text.compose();
    } else if (const auto* replace = std::get_if<Replace>(&step)) {
      replace->pattern.find_all(text.text(), matches);
      text.replace(matches, replace->content);
    } else if (!text.text().empty()) {
      text.prepend(std::get<Prepend>(step).content);
    }
  }
}

}  // namespace oriel::tokenizer
