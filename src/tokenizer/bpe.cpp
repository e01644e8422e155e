#include "tokenizer/bpe.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <queue>
#include <utility>

#include "core/error.hpp"
#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/unicode.hpp"

namespace oriel::tokenizer {
namespace {

// Below this many symbols looking at all pairs again is quicker than keeping a heap.
constexpr size_t short_word = 48;
constexpr size_t longest_cached_word = 256;
constexpr size_t most_cached_words = 1 << 16;
constexpr uint32_t none = ~uint32_t{0};

std::pair<std::string_view, std::string_view> tokens_of_merge(const Json& merge) {
  if (merge.is_string()) {  // the older form: two tokens with a space between
    const std::string_view both = merge.text();
    const size_t space = both.find(' ');
    if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos)
      throw_error(ErrorCode::malformed_model, "{}: expected two tokens with one space between, got {}", merge.where(),
                  quote_json(both.substr(0, 100)));
    return {both.substr(0, space), both.substr(space + 1)};
  }
  const std::vector<Json> both = merge.elements();
  if (both.size() != 2)
    throw_error(ErrorCode::malformed_model, "{}: expected two tokens, got {}", merge.where(), both.size());
  return {both[0].text(), both[1].text()};
}

}  // namespace

struct Bpe::Symbol {
  uint32_t id;
  uint32_t end;  // in bytes of the word
};

Bpe Bpe::read(const Json& json, const Json& options, bool byte_level) {
  // Files from before the key was written hold BPE if there are merges.
  const std::string kind = json["type"].is_absent() && json["merges"].has_value() ? "BPE" : json["type"].string();
  if (kind != "BPE")
    throw_error(ErrorCode::unsupported_model, "{}: expected BPE, got {}", json["type"].where(), quote_json(kind));
  Bpe bpe;
  bpe.byte_level_ = byte_level;
  bpe.vocabulary_ = Vocabulary::read(json["vocab"]);
  bpe.read_options(options);
  bpe.read_merges(json["merges"]);
  bpe.prepare_symbols();
  bpe.prepare_cuts();
  return bpe;
}

void Bpe::read_options(const Json& json) {
  const Json dropout = json["dropout"];
  if (dropout.has_value() && dropout.number() != 0)
    throw_error(ErrorCode::unsupported_model, "{}: expected null, got {}", dropout.where(), dropout.dump());
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (json[key].has_value() && !json[key].string().empty())
      throw_error(ErrorCode::unsupported_model, "{}: expected null, got {}", json[key].where(), json[key].dump());
  byte_fallback_ = json["byte_fallback"].boolean_or(false);
  fuse_unknown_ = json["fuse_unk"].boolean_or(false);
  ignore_merges_ = json["ignore_merges"].boolean_or(false);
  if (json["unk_token"].has_value()) {
    // Missing from the vocabulary it is an error in `tokenizers` too, but only when it is needed.
    const std::string token = json["unk_token"].string();
    unknown_ = vocabulary_.id(token);
    if (!unknown_)
      throw_error(ErrorCode::malformed_model, "{}: expected a token of the vocabulary, got {}",
                  json["unk_token"].where(), quote_json(token));
  }
}

uint32_t Bpe::token_id(std::string_view token, const Json& json) const {
  const auto id = vocabulary_.id(token);
  if (!id)
    throw_error(ErrorCode::malformed_model, "{}: expected tokens of the vocabulary, got {}", json.where(),
                quote_json(token.substr(0, 100)));
  return *id;
}

void Bpe::read_merges(const Json& json) {
  const auto is_byte = [](std::string_view token) { return token.size() == 6 && token.starts_with("<0x"); };
  const std::vector<Json> merges = json.elements();
  merges_.reserve(merges.size());
  std::string merged;
  uint32_t expected = 0;  // most files have merges in the order of their tokens' ids
  for (uint64_t rank = 0; rank < merges.size(); ++rank) {
    const Json& merge = merges[rank];
    const auto [left, right] = tokens_of_merge(merge);
    const uint64_t left_id = token_id(left, merge);
    const uint64_t right_id = token_id(right, merge);
    merged.assign(left).append(right);
    const uint32_t id = vocabulary_.token(expected) == merged ? expected : token_id(merged, merge);
    expected = id + 1;
    merges_.insert_or_assign(left_id << 32 | right_id, rank << 32 | id);
    // A merge of a byte's token goes across neighbours that it does not show.
    merges_bytes_ = merges_bytes_ || is_byte(left) || is_byte(right);
  }
}

void Bpe::prepare_symbols() {
  has_all_fallbacks_ = true;
  for (size_t byte = 0; byte < 256; ++byte) {
    std::string letter;
    append_utf8(letter, byte_alphabet[byte]);
    byte_ids_[byte] = vocabulary_.id(letter);
    fallback_ids_[byte] = vocabulary_.id(fmt::format("<0x{:02X}>", byte));
    has_all_fallbacks_ = has_all_fallbacks_ && fallback_ids_[byte];
  }
  const bool has_whole_words = byte_level_ && ignore_merges_;
  if (has_whole_words) whole_words_.reserve(vocabulary_.size());
  for (uint32_t id = 0; id < vocabulary_.end(); ++id) {
    const auto token = vocabulary_.token(id);
    if (!token || token->empty()) continue;
    if (utf8_length(token->front()) == token->size()) {
      size_t position = 0;
      character_ids_.insert_or_assign(next_code_point(*token, position), id);
    }
    if (!has_whole_words) continue;
    if (const auto bytes = bytes_of_alphabet(*token)) whole_words_.insert_or_assign(*bytes, id);
  }
}

/// Text without pre-tokenizer is one word of any length. Where two neighbours occur inside no merged token, no merge
/// goes across them, so the word can be cut there: its parts are short, and often seen before.
void Bpe::prepare_cuts() {
  // Unknown characters in a row are one token, which cutting would change.
  cuts_words_ = !byte_level_ && !ignore_merges_ && byte_fallback_ && has_all_fallbacks_ && !merges_bytes_;
  if (!cuts_words_) return;
  ascii_inner_pairs_.assign(size_t{128} * 128, false);
  for (uint32_t id = 0; id < vocabulary_.end(); ++id) {
    const auto token = vocabulary_.token(id);
    if (!token) continue;
    uint32_t previous = none;
    for (size_t i = 0; i < token->size();) {
      const uint32_t next = next_code_point(*token, i);
      if (previous < 128 && next < 128) {
        ascii_inner_pairs_[previous * 128 + next] = true;
      } else if (previous != none) {
        inner_pairs_.insert_or_assign(uint64_t{previous} << 32 | next, 1);
      }
      previous = next;
    }
  }
}

bool Bpe::can_cut(uint32_t left, uint32_t right) const {
  if (left < 128 && right < 128) return !ascii_inner_pairs_[left * 128 + right];
  return inner_pairs_.find(uint64_t{left} << 32 | right) == nullptr;
}

void Bpe::encode(std::string_view word, bool plain, Cache& cache, std::vector<WordToken>& tokens) const {
  if (!cuts_words_) return encode_part(word, plain, cache, tokens);
  const auto encode_range = [&](size_t begin, size_t end) {
    const size_t first = tokens.size();
    encode_part(word.substr(begin, end - begin), plain, cache, tokens);
    for (size_t i = first; i < tokens.size(); ++i) tokens[i].end += static_cast<uint32_t>(begin);
  };
  size_t begin = 0;
  uint32_t previous = none;
  for (size_t i = 0; i < word.size();) {
    const size_t here = i;
    const uint32_t next = next_code_point(word, i);
    if (previous != none && can_cut(previous, next)) {
      encode_range(begin, here);
      begin = here;
    }
    previous = next;
  }
  encode_range(begin, word.size());
}

void Bpe::encode_part(std::string_view part, bool plain, Cache& cache, std::vector<WordToken>& tokens) const {
  if (ignore_merges_) {
    const uint32_t* bytes = byte_level_ ? whole_words_.find(part) : nullptr;
    const auto id = byte_level_ ? (bytes == nullptr ? std::nullopt : std::optional(*bytes)) : vocabulary_.id(part);
    if (id && is_allowed(*id, plain)) return tokens.push_back({*id, static_cast<uint32_t>(part.size())});
  }
  Cache::Words& words = cache.words_[plain ? 0 : 1];
  if (const uint32_t* place = part.size() <= longest_cached_word ? words.table.find(part) : nullptr) {
    const Cache::Words::List list = words.lists[*place];
    tokens.insert(tokens.end(), words.tokens.begin() + list.begin, words.tokens.begin() + list.begin + list.count);
    return;
  }
  thread_local std::vector<Symbol> symbols;
  symbols.clear();
  if (byte_level_) {
    split_bytes(part, plain, symbols);
  } else {
    split_characters(part, plain, symbols);
  }
  if (symbols.size() <= short_word) {
    merge_short(symbols, plain);
  } else {
    merge_long(symbols, plain);
  }
  const bool kept = part.size() <= longest_cached_word && words.lists.size() < most_cached_words;
  if (kept) {
    words.table.insert_or_assign(part, static_cast<uint32_t>(words.lists.size()));
    words.lists.push_back({static_cast<uint32_t>(words.tokens.size()), static_cast<uint32_t>(symbols.size())});
  }
  for (const Symbol& symbol : symbols) {
    tokens.push_back({symbol.id, symbol.end});
    if (kept) words.tokens.push_back({symbol.id, symbol.end});
  }
}

void Bpe::split_bytes(std::string_view word, bool plain, std::vector<Symbol>& symbols) const {
  std::optional<Symbol> pending;  // an unknown token that may still grow
  uint32_t length = 0;            // as in `tokenizers`, what is dropped has no length
  for (const char c : word) {
    const auto& id = byte_ids_[static_cast<unsigned char>(c)];
    if (id && is_allowed(*id, plain)) {
      if (pending) symbols.push_back(*pending);
      pending.reset();
      symbols.push_back({*id, ++length});
    } else if (unknown_) {
      if (pending && !fuse_unknown_) symbols.push_back(*pending);
      pending = Symbol{*unknown_, ++length};
    }
  }
  if (pending) symbols.push_back(*pending);
}

void Bpe::split_characters(std::string_view word, bool plain, std::vector<Symbol>& symbols) const {
  uint32_t pending = 0;  // the length of an unknown token that may still grow
  uint32_t length = 0;
  const auto add = [&](uint32_t id, uint32_t bytes) { symbols.push_back({id, length += bytes}); };
  const auto flush = [&] {
    if (pending > 0) add(*unknown_, pending);
    pending = 0;
  };
  for (size_t i = 0; i < word.size();) {
    const size_t begin = i;
    const uint64_t* id = character_ids_.find(next_code_point(word, i));
    const auto bytes = static_cast<uint32_t>(i - begin);
    if (id != nullptr && is_allowed(static_cast<uint32_t>(*id), plain)) {
      flush();
      add(static_cast<uint32_t>(*id), bytes);
      continue;
    }
    const auto fallback = [&](size_t at) { return fallback_ids_[static_cast<unsigned char>(word[at])]; };
    bool has_fallback = byte_fallback_;
    for (size_t at = begin; at < i; ++at)
      has_fallback = has_fallback && fallback(at) && is_allowed(*fallback(at), plain);
    if (has_fallback) {
      // An unknown token that is still growing comes behind the bytes: so does `tokenizers` have it.
      for (size_t at = begin; at < i; ++at) add(*fallback(at), 1);
    } else if (unknown_) {
      if (!fuse_unknown_) flush();
      pending += bytes;
    }
  }
  flush();
}

void Bpe::merge_short(std::vector<Symbol>& symbols, bool plain) const {
  if (symbols.size() < 2) return;
  std::array<uint64_t, short_word> merges;  // of each symbol with the next
  const auto look_up = [&](size_t i) { return merge_of(symbols[i].id, symbols[i + 1].id, plain); };
  size_t pairs = symbols.size() - 1;
  for (size_t i = 0; i < pairs; ++i) merges[i] = look_up(i);
  while (pairs > 0) {
    // Equal pairs have equal ranks, and the first of equals is found.
    const size_t best = static_cast<size_t>(
        std::min_element(merges.begin(), merges.begin() + static_cast<ptrdiff_t>(pairs)) - merges.begin());
    if (merges[best] == no_merge) return;
    symbols[best] = {static_cast<uint32_t>(merges[best]), symbols[best + 1].end};
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    std::copy(merges.begin() + static_cast<ptrdiff_t>(best) + 1, merges.begin() + static_cast<ptrdiff_t>(pairs),
              merges.begin() + static_cast<ptrdiff_t>(best));
    --pairs;
    if (best < pairs) merges[best] = look_up(best);
    if (best > 0) merges[best - 1] = look_up(best - 1);
  }
}

/// The same in n log n steps: symbols are a linked list, and a heap holds pairs, some of them out of date.
void Bpe::merge_long(std::vector<Symbol>& symbols, bool plain) const {
  struct Node {
    Symbol symbol;
    uint32_t previous;
    uint32_t next;
    bool removed;
  };
  struct Candidate {
    uint64_t merge;  // rank << 32 | new id
    uint32_t position;
    bool operator>(const Candidate& other) const {
      return merge != other.merge ? merge > other.merge : position > other.position;
    }
  };
  const auto count = static_cast<uint32_t>(symbols.size());
  std::vector<Node> nodes(count);
  for (uint32_t i = 0; i < count; ++i)
    nodes[i] = {symbols[i], i == 0 ? none : i - 1, i + 1 == count ? none : i + 1, false};
  const auto merge_at = [&](uint32_t i) {
    return nodes[i].next == none ? no_merge : merge_of(nodes[i].symbol.id, nodes[nodes[i].next].symbol.id, plain);
  };
  std::vector<Candidate> found;
  for (uint32_t i = 0; i < count; ++i)
    if (const uint64_t merge = merge_at(i); merge != no_merge) found.push_back({merge, i});
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> heap(std::greater<>{}, std::move(found));
  const auto push = [&](uint32_t i) {
    if (const uint64_t merge = merge_at(i); merge != no_merge) heap.push({merge, i});
  };

  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Node& left = nodes[top.position];
    if (left.removed || merge_at(top.position) != top.merge) continue;
    Node& right = nodes[left.next];
    left.symbol = {static_cast<uint32_t>(top.merge), right.symbol.end};
    left.next = right.next;
    right.removed = true;
    if (right.next != none) nodes[right.next].previous = top.position;
    push(top.position);
    if (left.previous != none) push(left.previous);
  }
  symbols.clear();
  for (uint32_t i = 0; i != none; i = nodes[i].next) symbols.push_back(nodes[i].symbol);
}

}  // namespace oriel::tokenizer
