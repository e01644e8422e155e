#include "tokenizer/added_tokens.hpp"

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "tokenizer/unicode.hpp"

namespace oriel::tokenizer {
namespace {

// Searching is as slow as a token is long; real ones have some thirty bytes.
constexpr size_t longest_token = 4096;

/// The character that ends before `position`.
uint32_t character_before(std::string_view text, size_t position) {
  do {
    --position;
  } while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xc0) == 0x80);
  return next_code_point(text, position);
}

uint32_t character_at(std::string_view text, size_t position) { return next_code_point(text, position); }

/// Rust's \w.
bool is_word(uint32_t code_point) {
  return code_point == 0x200c || code_point == 0x200d || word_set().contains(code_point);
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  return (begin == 0 || !is_word(character_before(text, begin))) &&
         (end == text.size() || !is_word(character_at(text, end)));
}

/// `begin` without the white space before it, as far as `done`.
size_t strip_left(std::string_view text, size_t begin, size_t done) {
  while (begin > done) {
    const uint32_t before = character_before(text, begin);
    if (!white_space_set().contains(before)) break;
    std::string bytes;
    append_utf8(bytes, before);
    begin -= bytes.size();
  }
  return begin;
}

size_t strip_right(std::string_view text, size_t end) {
  while (end < text.size() && white_space_set().contains(character_at(text, end))) end += utf8_length(text[end]);
  return end;
}

enum class Plain { no, partly, yes };

/// Whether bytes [begin, end) lie in one of the stretches.
Plain plainness(std::span<const Span> plain, size_t begin, size_t end) {
  auto stretch = std::ranges::upper_bound(plain, begin, {}, &Span::end);
  if (stretch == plain.end() || stretch->begin >= end) return Plain::no;
  return stretch->begin <= begin && end <= stretch->end ? Plain::yes : Plain::partly;
}

}  // namespace

std::string AddedToken::read_content(const Json& json) {
  std::string content = json.string();
  if (content.size() > longest_token)
    throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} bytes, got {}", json.where(), longest_token,
                content.size());
  return content;
}

AddedToken AddedToken::read(const Json& json) {
  AddedToken token;
  token.content = read_content(json["content"]);
  token.special = json["special"].boolean_or(false);
  token.single_word = json["single_word"].boolean_or(false);
  token.lstrip = json["lstrip"].boolean_or(false);
  token.rstrip = json["rstrip"].boolean_or(false);
  token.normalized = json["normalized"].boolean_or(!token.special);
  return token;
}

void TokenFinder::add(std::string_view content, uint32_t index) {
  uint64_t node = 0;
  for (const char c : content) {
    const uint64_t key = node << 8 | static_cast<unsigned char>(c);
    const uint64_t* child = children_.find(key);
    if (child == nullptr) {
      const uint64_t added = nodes_.size();
      nodes_.push_back({});
      children_.insert_or_assign(key, added);
      node = added;
    } else {
      node = *child;
    }
  }
  if (nodes_[node].index == no_index) nodes_[node].index = index;  // the first of equals counts
  if (!content.empty()) is_first_[static_cast<unsigned char>(content[0])] = true;
}

template <typename Accepts>
bool TokenFinder::find(std::string_view text, size_t from, const Accepts& accepts, Match& match) const {
  std::vector<Match> forms;
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!is_first_[static_cast<unsigned char>(text[begin])]) continue;
    forms.clear();
    uint64_t node = 0;
    for (size_t end = begin; end < text.size(); ++end) {
      const uint64_t* child = children_.find(node << 8 | static_cast<unsigned char>(text[end]));
      if (child == nullptr) break;
      node = *child;
      if (nodes_[node].index != no_index) forms.push_back({begin, end + 1, nodes_[node].index});
    }
    for (; !forms.empty(); forms.pop_back()) {
      if (!accepts(forms.back())) continue;
      match = forms.back();
      return true;
    }
  }
  return false;
}

void AddedTokens::add(AddedToken token, const Vocabulary& vocabulary) {
  if (token.content.empty()) return;
  const uint32_t* known = by_content_.find(token.content);
  if (known != nullptr) {
    token.id = tokens_[*known].id;
    tokens_[*known] = std::move(token);
    return;
  }
  const auto next = std::max(static_cast<uint32_t>(vocabulary.size()), end_);
  token.id = vocabulary.id(token.content).value_or(next);
  if (token.id >= id_limit)
    throw_error(ErrorCode::limit_exceeded, "added tokens: expected at most {} ids, got more", id_limit);
  end_ = std::max(end_, token.id + 1);
  by_content_.insert_or_assign(token.content, static_cast<uint32_t>(tokens_.size()));
  by_id_.insert_or_assign(token.id, tokens_.size());
  tokens_.push_back(std::move(token));
}

void AddedTokens::build(const Normalizer& normalizer) {
  // Of tokens that are normalized to the same text the special ones come first, as in `tokenizers`.
  for (const bool special : {true, false}) {
    for (uint32_t index = 0; index < tokens_.size(); ++index) {
      AddedToken& token = tokens_[index];
      if (token.special != special) continue;
      token.decoded = token.content;
      if (!token.normalized) {
        raw_.add(token.content, index);
        continue;
      }
      AlignedText content(token.content, longest_token);
      normalizer.apply(content);
      if (content.text().size() > longest_token)
        throw_error(ErrorCode::limit_exceeded, "added tokens: expected at most {} bytes of normalized text, got {}",
                    longest_token, content.text().size());
      normalized_.add(content.text(), index);
      token.decoded = content.text();
      has_normalized_ = true;
    }
  }
}

template <typename IsPlain>
void AddedTokens::split(const TokenFinder& finder, std::string_view text, const IsPlain& is_plain,
                        std::vector<TokenPart>& parts) const {
  parts.clear();
  // A special token that is not recognised hides what lies inside it, as in `tokenizers`; one that only touches plain
  // text does not exist.
  const auto accepts = [&](const TokenFinder::Match& match) {
    return !tokens_[match.index].special || is_plain(match.begin, match.end) != Plain::partly;
  };
  size_t done = 0;
  size_t blanks_end = 0;  // of the white space behind an earlier match, so that a run of it is walked once
  TokenFinder::Match match{};
  for (size_t from = 0; finder.find(text, from, accepts, match);) {
    from = match.end;
    const AddedToken& token = tokens_[match.index];
    if (token.special && is_plain(match.begin, match.end) == Plain::yes) continue;
    if (token.single_word && !is_single_word(text, match.begin, match.end)) continue;
    const size_t begin = token.lstrip ? std::max(strip_left(text, match.begin, done), done) : match.begin;
    if (token.rstrip && match.end > blanks_end) blanks_end = strip_right(text, match.end);
    const size_t end = token.rstrip ? blanks_end : match.end;
    if (done < begin) parts.push_back({done, begin, nullptr});
    parts.push_back({begin, end, &token});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), nullptr});
}

void AddedTokens::split_raw(std::string_view text, std::span<const Span> plain, std::vector<TokenPart>& parts) const {
  split(
      raw_, text, [&](size_t begin, size_t end) { return plainness(plain, begin, end); }, parts);
}

void AddedTokens::split_normalized(const Piece& piece, std::span<const Span> plain,
                                   std::vector<TokenPart>& parts) const {
  const auto is_plain = [&](size_t begin, size_t end) {
    if (plain.empty()) return Plain::no;
    const Span original = piece.span(begin, end);
    return plainness(plain, original.begin, std::max<size_t>(original.end, original.begin + 1));
  };
  split(normalized_, piece.text, is_plain, parts);
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const uint32_t* index = by_content_.find(content);
  return index == nullptr ? nullptr : &tokens_[*index];
}

const AddedToken* AddedTokens::find(uint32_t id) const {
  const uint64_t* index = by_id_.find(id);
  return index == nullptr ? nullptr : &tokens_[*index];
}

}  // namespace oriel::tokenizer
