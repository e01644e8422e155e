#include "tokenizer/pre_tokenizer.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"

namespace oriel::tokenizer {
namespace {

// What ByteLevel cuts by when it is told to: GPT-2's pattern.
constexpr std::string_view byte_level_regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// What Rust calls numeric, which has Unicode 17's characters already.
constexpr std::string_view digit_regex = R"([\p{N}\x{11de0}-\x{11de9}\x{16ff4}-\x{16ff6}])";

/// A stretch that a pattern matched, or what lies between two.
struct Stretch {
  size_t begin;
  size_t end;
  bool is_match;
};

std::vector<Stretch> stretches_of(size_t size, const std::vector<Pattern::Match>& matches, bool inverted) {
  std::vector<Stretch> result;
  size_t done = 0;
  for (const Pattern::Match& match : matches) {
    if (match.begin > done) result.push_back({done, match.begin, inverted});
    result.push_back({match.begin, match.end, !inverted});
    done = match.end;
  }
  if (done < size) result.push_back({done, size, inverted});
  return result;
}

/// Joins each stretch for which `joins(previous, current)` holds with the one before it.
template <typename Joins>
std::vector<Stretch> join(const std::vector<Stretch>& stretches, const Joins& joins) {
  std::vector<Stretch> result;
  bool previous = false;
  for (const Stretch& stretch : stretches) {
    if (!result.empty() && joins(previous, stretch.is_match)) {
      result.back().begin = std::min(result.back().begin, stretch.begin);
      result.back().end = std::max(result.back().end, stretch.end);
    } else {
      result.push_back(stretch);
    }
    previous = stretch.is_match;
  }
  return result;
}

}  // namespace

PreTokenizer PreTokenizer::read(const Json& json) {
  PreTokenizer result;
  result.add(json);
  return result;
}

void PreTokenizer::add(const Json& json) {
  if (!json.has_value()) return;
  if (steps_.size() >= most_steps)
    throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} steps, got more", json.where(), most_steps);
  const std::string kind = json["type"].string();
  if (is_byte_level_)
    throw_error(ErrorCode::unsupported_model, "{}: expected nothing behind ByteLevel, got {}", json.where(),
                quote_json(kind));
  if (kind == "Sequence") {
    for (const Json& step : json["pretokenizers"].elements()) add(step);
  } else if (kind == "Split") {
    add_split(TextPattern::read(json["pattern"]), read_behavior(json["behavior"]), json["invert"].boolean_or(false));
  } else if (kind == "Digits") {
    const bool individual = json["individual_digits"].boolean_or(false);
    const Json pattern = Json::parse(R"({"Regex": )" + quote_json(digit_regex) + "}", json.where());
    add_split(TextPattern::read(pattern), individual ? Behavior::isolated : Behavior::contiguous, false);
  } else if (kind == "ByteLevel") {
    add_byte_level(json);
  } else if (kind == "Metaspace") {
    add_metaspace(json);
  } else {
    throw_error(ErrorCode::unsupported_model, "{}: expected Split, ByteLevel, Metaspace, Digits or Sequence, got {}",
                json.where(), quote_json(kind));
  }
}

PreTokenizer::Behavior PreTokenizer::read_behavior(const Json& json) {
  const std::string name = json.string();
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  throw_error(ErrorCode::malformed_model,
              "{}: expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous, got {}", json.where(),
              quote_json(name));
}

void PreTokenizer::add_split(TextPattern pattern, Behavior behavior, bool inverted) {
  steps_.emplace_back(Split{std::move(pattern), behavior, inverted});
}

void PreTokenizer::add_byte_level(const Json& json) {
  if (json["add_prefix_space"].boolean_or(true)) steps_.emplace_back(PrefixSpace{});
  if (json["use_regex"].boolean_or(true)) {
    const Json pattern = Json::parse(R"({"Regex": )" + quote_json(byte_level_regex) + "}", json.where());
    add_split(TextPattern::read(pattern), Behavior::isolated, false);
  }
  is_byte_level_ = true;
}

void PreTokenizer::add_metaspace(const Json& json) {
  const std::string replacement = json["replacement"].string();
  if (replacement.empty() || utf8_length(replacement[0]) != replacement.size())
    throw_error(ErrorCode::malformed_model, "{}: expected one character, got {}", json["replacement"].where(),
                quote_json(replacement));
  const std::string scheme = json["prepend_scheme"].string_or("always");
  Metaspace::Prepend prepend = Metaspace::Prepend::always;
  if (scheme == "first") {
    prepend = Metaspace::Prepend::first;
  } else if (scheme == "never") {
    prepend = Metaspace::Prepend::never;
  } else if (scheme != "always") {
    throw_error(ErrorCode::malformed_model, "{}: expected always, first or never, got {}",
                json["prepend_scheme"].where(), quote_json(scheme));
  }
  steps_.emplace_back(Metaspace{replacement, prepend});
  if (!json["split"].boolean_or(true)) return;
  const Json pattern = Json::parse(R"({"String": )" + quote_json(replacement) + "}", json.where());
  add_split(TextPattern::read(pattern), Behavior::merged_with_next, false);
}

void PreTokenizer::cut(const Piece& piece, bool tracked, const Take& take) const { run(0, piece, tracked, take); }

void PreTokenizer::run(size_t step, const Piece& piece, bool tracked, const Take& take) const {
  if (piece.text.empty()) return;
  if (step == steps_.size()) return take(piece);
  if (std::holds_alternative<Split>(steps_[step])) return split(step, piece, tracked, take);
  if (std::holds_alternative<Metaspace>(steps_[step])) return prepend_metaspace(step, piece, tracked, take);
  if (piece.text.starts_with(' ')) return run(step + 1, piece, tracked, take);
  AlignedText text(piece, tracked);
  text.prepend(" ");
  run(step + 1, text.piece(), tracked, take);
}

void PreTokenizer::split(size_t step, const Piece& piece, bool tracked, const Take& take) const {
  const Split& split = std::get<Split>(steps_[step]);
  const auto pass_on = [&](size_t begin, size_t end) { run(step + 1, piece.part(begin, end), tracked, take); };
  std::vector<Pattern::Match> matches;
  split.pattern.find_all(piece.text, matches);
  if (split.behavior == Behavior::isolated) {
    size_t done = 0;
    for (const Pattern::Match& match : matches) {
      pass_on(done, match.begin);
      pass_on(match.begin, match.end);
      done = match.end;
    }
    return pass_on(done, piece.text.size());
  }
  std::vector<Stretch> stretches = stretches_of(piece.text.size(), matches, split.inverted);
  switch (split.behavior) {
    case Behavior::removed:
      std::erase_if(stretches, [](const Stretch& stretch) { return stretch.is_match; });
      break;
    case Behavior::contiguous:
      stretches = join(stretches, [](bool previous, bool current) { return previous == current; });
      break;
    case Behavior::merged_with_previous:
      stretches = join(stretches, [](bool previous, bool current) { return current && !previous; });
      break;
    case Behavior::merged_with_next:
      std::ranges::reverse(stretches);
      stretches = join(stretches, [](bool previous, bool current) { return current && !previous; });
      std::ranges::reverse(stretches);
      break;
    case Behavior::isolated:
      break;
  }
  for (const Stretch& stretch : stretches) pass_on(stretch.begin, stretch.end);
}

void PreTokenizer::prepend_metaspace(size_t step, const Piece& piece, bool tracked, const Take& take) const {
  const Metaspace& metaspace = std::get<Metaspace>(steps_[step]);
  AlignedText text(piece, tracked);
  std::vector<Pattern::Match> spaces;
  find_literal(piece.text, " ", spaces);
  text.replace(spaces, metaspace.replacement);
  const bool wanted = metaspace.prepend == Metaspace::Prepend::always ||
                      (metaspace.prepend == Metaspace::Prepend::first && piece.at_start);
  if (wanted && !text.text().starts_with(metaspace.replacement)) text.prepend(metaspace.replacement);
  run(step + 1, text.piece(), tracked, take);
}

}  // namespace oriel::tokenizer
