#include "tokenizer/decoder.hpp"

#include <charconv>
#include <optional>
#include <utility>

#include "core/error.hpp"
#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/unicode.hpp"

namespace oriel::tokenizer {
namespace {

// What replacements may put into one text: so much, and so many times the size of its tokens.
constexpr size_t free_growth = 1 << 20;
constexpr size_t most_growth = 16;

constexpr std::string_view replacement_character = "\xef\xbf\xbd";

/// Moves the characters that `bytes` begins with to `text`, and U+FFFD for each run of bytes that can't be one. What
/// later bytes may complete stays, unless this is the end.
void take_characters(std::string& bytes, bool at_end, std::string& text) {
  size_t done = 0;
  while (done < bytes.size()) {
    const std::string_view rest = std::string_view(bytes).substr(done);
    const size_t valid = find_invalid_utf8(rest).value_or(rest.size());
    text += rest.substr(0, valid);
    done += valid;
    if (done == bytes.size()) break;
    // The longest beginning of a character is one replacement, as Unicode recommends and Rust does.
    const std::string_view broken = std::string_view(bytes).substr(done, 4);
    size_t length = 1;
    bool may_grow = false;
    for (size_t n = 1; n <= broken.size() && n < 4; ++n) {
      bool is_beginning = false;
      // A beginning is what some continuation bytes complete.
      for (const char filler : {'\x80', '\x90', '\xa0', '\xbf'}) {
        std::string completed(broken.substr(0, n));
        const size_t wanted = utf8_length(completed[0]);
        if (wanted <= n) break;
        completed.append(1, filler).append(wanted - n - 1, '\x80');
        is_beginning = is_beginning || !find_invalid_utf8(completed);
      }
      if (!is_beginning) break;
      length = n;
      may_grow = n == broken.size();
    }
    if (may_grow && !at_end) break;
    text += replacement_character;
    done += length;
  }
  bytes.erase(0, done);
}

/// The byte of <0x00> to <0xFF>; tokenizers takes digits of either case.
std::optional<char> byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || !token.ends_with('>')) return std::nullopt;
  unsigned value = 0;
  const char* begin = token.data() + 3;
  const auto [end, error] = std::from_chars(begin, begin + 2, value, 16);
  if (error != std::errc() || end != begin + 2) return std::nullopt;
  return static_cast<char>(value);
}

/// `token` without up to `start` and `stop` copies of `content` at its ends.
std::string_view strip(std::string_view token, const Decoder::Strip& step) {
  for (size_t i = 0; i < step.start && token.starts_with(step.content); ++i) token.remove_prefix(step.content.size());
  for (size_t i = 0; i < step.stop && token.ends_with(step.content); ++i) token.remove_suffix(step.content.size());
  return token;
}

std::string read_character(const Json& json) {
  const std::string character = json.string();
  if (character.empty() || utf8_length(character[0]) != character.size())
    throw_error(ErrorCode::malformed_model, "{}: expected one character, got {}", json.where(), quote_json(character));
  return character;
}

}  // namespace

Decoder Decoder::read(const Json& json) {
  Decoder result;
  result.add(json);
  if (!json.has_value()) result.steps_.emplace_back(Join{});
  bool is_text = false;
  for (const Step& step : result.steps_) {
    if (is_text && !std::holds_alternative<Strip>(step) && !std::holds_alternative<Fuse>(step))
      throw_error(ErrorCode::unsupported_model, "{}: expected nothing but Strip behind Fuse or ByteLevel, got more",
                  json.where());
    is_text = is_text || std::holds_alternative<Fuse>(step) || std::holds_alternative<ByteLevel>(step);
  }
  return result;
}

void Decoder::add(const Json& json) {
  constexpr int64_t most_stripped = 1000;
  if (!json.has_value()) return;
  if (steps_.size() >= most_steps)
    throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} steps, got more", json.where(), most_steps);
  const std::string kind = json["type"].string();
  if (kind == "Sequence") {
    for (const Json& step : json["decoders"].elements()) add(step);
  } else if (kind == "ByteLevel") {
    steps_.emplace_back(ByteLevel{});
  } else if (kind == "Replace") {
    steps_.emplace_back(Replace{TextPattern::read(json["pattern"]), json["content"].string()});
  } else if (kind == "ByteFallback") {
    steps_.emplace_back(ByteFallback{});
  } else if (kind == "Fuse") {
    steps_.emplace_back(Fuse{});
  } else if (kind == "Strip") {
    steps_.emplace_back(Strip{read_character(json["content"]),
                              static_cast<size_t>(json["start"].integer_in(0, most_stripped)),
                              static_cast<size_t>(json["stop"].integer_in(0, most_stripped))});
  } else if (kind == "Metaspace") {
    steps_.emplace_back(
        Metaspace{read_character(json["replacement"]), json["prepend_scheme"].string_or("always") != "never"});
  } else {
    throw_error(ErrorCode::unsupported_model,
                "{}: expected ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace or Sequence, got {}",
                json.where(), quote_json(kind));
  }
}

DecoderStream::DecoderStream(const Decoder& decoder)
    : decoder_(&decoder), states_(decoder.steps().size()), budget_(free_growth) {
  bool is_text = false;
  for (const Decoder::Step& step : decoder.steps()) {
    is_text_.push_back(is_text);
    is_text =
        is_text || std::holds_alternative<Decoder::Fuse>(step) || std::holds_alternative<Decoder::ByteLevel>(step);
  }
}

std::string DecoderStream::push(std::string_view token) {
  std::string text;
  budget_ += most_growth * token.size();
  run(0, token, text);
  return text;
}

std::string DecoderStream::finish() {
  std::string text;
  finish(0, text);
  states_.assign(states_.size(), {});
  budget_ = free_growth;
  return text;
}

void DecoderStream::run(size_t step, std::string_view token, std::string& text) {
  if (step == states_.size()) {
    text += token;
    return;
  }
  State& state = states_[step];
  const Decoder::Step& kind = decoder_->steps()[step];
  const bool is_first = !std::exchange(state.began, true);
  if (std::holds_alternative<Decoder::ByteLevel>(kind)) {
    run_byte_level(step, token, text);
  } else if (std::holds_alternative<Decoder::ByteFallback>(kind)) {
    run_byte_fallback(step, token, text);
  } else if (std::holds_alternative<Decoder::Fuse>(kind)) {
    run(step + 1, token, text);
  } else if (std::holds_alternative<Decoder::Join>(kind)) {
    run(step + 1, is_first ? std::string(token) : " " + std::string(token), text);
  } else if (const auto* replace = std::get_if<Decoder::Replace>(&kind)) {
    std::vector<Pattern::Match> matches;
    replace->pattern.find_all(token, matches);
    run_replaced(step, token, matches, replace->content, text);
  } else if (const auto* metaspace = std::get_if<Decoder::Metaspace>(&kind)) {
    std::vector<Pattern::Match> matches;
    find_literal(token, metaspace->replacement, matches);
    run_replaced(step, token, matches, is_first && metaspace->drops_first ? "" : " ", text);
  } else if (is_text_[step]) {
    run_strip_text(step, token, text);
  } else {
    run(step + 1, strip(token, std::get<Decoder::Strip>(kind)), text);
  }
}

void DecoderStream::finish(size_t step, std::string& text) {
  if (step == states_.size()) return;
  State& state = states_[step];
  const Decoder::Step& kind = decoder_->steps()[step];
  std::string rest;
  if (std::holds_alternative<Decoder::ByteLevel>(kind)) {
    take_characters(state.held, /*at_end=*/true, rest);
  } else if (std::holds_alternative<Decoder::ByteFallback>(kind) && !state.held.empty()) {
    run_byte_fallback(step, "", text);
  } else if (const auto* strip_step = std::get_if<Decoder::Strip>(&kind); strip_step != nullptr && is_text_[step]) {
    rest = strip(state.held, {strip_step->content, 0, strip_step->stop});
  }
  if (!rest.empty()) run(step + 1, rest, text);
  finish(step + 1, text);
}

void DecoderStream::run_replaced(size_t step, std::string_view token, const std::vector<Pattern::Match>& matches,
                                 std::string_view content, std::string& text) {
  const size_t added = matches.size() * content.size();
  if (added > budget_)
    throw_error(ErrorCode::limit_exceeded,
                "tokenizer: expected replacements that put at most 16 times the size of its tokens and 1 MiB into a "
                "decoded text, got more");
  budget_ -= added;
  AlignedText replaced(token, added);
  replaced.replace(matches, content);
  run(step + 1, replaced.text(), text);
}

void DecoderStream::run_byte_level(size_t step, std::string_view token, std::string& text) {
  State& state = states_[step];
  state.held += bytes_of_alphabet(token).value_or(std::string(token));
  std::string characters;
  take_characters(state.held, /*at_end=*/false, characters);
  if (!characters.empty()) run(step + 1, characters, text);
}

/// A run of byte tokens is text if all of it is UTF-8, else a replacement character for each.
void DecoderStream::run_byte_fallback(size_t step, std::string_view token, std::string& text) {
  State& state = states_[step];
  if (const auto byte = byte_of_token(token)) {
    state.held += *byte;
    return;
  }
  const std::string bytes = std::exchange(state.held, {});
  if (!find_invalid_utf8(bytes)) {
    if (!bytes.empty()) run(step + 1, bytes, text);
  } else {
    for (size_t i = 0; i < bytes.size(); ++i) run(step + 1, replacement_character, text);
  }
  if (!token.empty()) run(step + 1, token, text);
}

/// Strip over one text that comes in pieces: the end may always be cut off, so as much of it as could be is held.
void DecoderStream::run_strip_text(size_t step, std::string_view token, std::string& text) {
  const auto& kind = std::get<Decoder::Strip>(decoder_->steps()[step]);
  State& state = states_[step];
  state.held += token;
  while (!state.start_done && state.stripped < kind.start && !state.held.empty()) {
    if (!state.held.starts_with(kind.content)) break;
    state.held.erase(0, kind.content.size());
    ++state.stripped;
  }
  if (!state.held.empty() || state.stripped == kind.start) state.start_done = true;
  std::string_view certain = strip(state.held, {kind.content, 0, kind.stop});
  const std::string given(certain);
  state.held.erase(0, given.size());
  if (!given.empty()) run(step + 1, given, text);
}

}  // namespace oriel::tokenizer
