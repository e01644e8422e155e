#pragma once
// Byte pair encoding: a word begins as single characters (or bytes); while any two neighbours are a pair of the list of
// merges, the pair that stands first in that list becomes one token, the leftmost of equals first.
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.hpp"
#include "tokenizer/flat_map.hpp"
#include "tokenizer/vocabulary.hpp"

namespace oriel::tokenizer {

/// A token of a word, up to the word's byte `end`.
struct WordToken {
  uint32_t id;
  uint32_t end;
};

/// tokenizer.json's "model". Immutable; safe from many threads.
class Bpe {
 public:
  /// Throws unsupported_model for other models and for options that oriel does not run, malformed_model for merges and
  /// tokens that do not fit the vocabulary.
  /// `json` has kind, vocabulary and merges.
  [[nodiscard]] static Bpe read(const Json& json, const Json& options, bool byte_level);

  /// Tokens that a plain text must not become (is_special[id]), besides the unknown token.
  void set_special(std::vector<bool> is_special) { is_special_ = std::move(is_special); }

  /// Words seen before, of one text.
  class Cache;
  /// Appends the tokens of `word`, which is not empty. A `plain` word becomes no special token.
  void encode(std::string_view word, bool plain, Cache& cache, std::vector<WordToken>& tokens) const;

  [[nodiscard]] const Vocabulary& vocabulary() const { return vocabulary_; }
  [[nodiscard]] std::optional<uint32_t> unknown() const { return unknown_; }

 private:
  struct Symbol;

  void read_options(const Json& json);
  void read_merges(const Json& json);
  void prepare_symbols();
  void prepare_cuts();
  [[nodiscard]] uint32_t token_id(std::string_view token, const Json& json) const;
  [[nodiscard]] bool can_cut(uint32_t left, uint32_t right) const;
  [[nodiscard]] bool is_allowed(uint32_t id, bool plain) const {
    return !plain || id >= is_special_.size() || !is_special_[id];
  }
  void encode_part(std::string_view part, bool plain, Cache& cache, std::vector<WordToken>& tokens) const;
  void split_bytes(std::string_view word, bool plain, std::vector<Symbol>& symbols) const;
  void split_characters(std::string_view word, bool plain, std::vector<Symbol>& symbols) const;
  void merge_short(std::vector<Symbol>& symbols, bool plain) const;
  void merge_long(std::vector<Symbol>& symbols, bool plain) const;
  /// Rank << 32 | new id, or all ones.
  [[nodiscard]] uint64_t merge_of(uint32_t left, uint32_t right, bool plain) const {
    const uint64_t* found = merges_.find(uint64_t{left} << 32 | right);
    return found != nullptr && is_allowed(static_cast<uint32_t>(*found), plain) ? *found : no_merge;
  }
  static constexpr uint64_t no_merge = ~uint64_t{0};

  Vocabulary vocabulary_;
  FlatMap merges_;  // pair of ids to rank << 32 | new id
  bool byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  std::optional<uint32_t> unknown_;
  std::vector<bool> is_special_;
  std::array<std::optional<uint32_t>, 256> byte_ids_{};      // of ByteLevel's alphabet
  std::array<std::optional<uint32_t>, 256> fallback_ids_{};  // of <0x00> to <0xFF>
  bool has_all_fallbacks_ = false;
  bool merges_bytes_ = false;  // some merge has such a token in it
  FlatMap character_ids_;      // code point to id
  StringTable whole_words_;    // byte level with ignore_merges: bytes to id
  bool cuts_words_ = false;
  FlatMap inner_pairs_;                  // neighbours inside some merged token
  std::vector<bool> ascii_inner_pairs_;  // the same for two ASCII characters
};

class Bpe::Cache {
 public:
  Cache() = default;

 private:
  friend class Bpe;
  struct Words {
    StringTable table;  // word to its place in `lists`
    std::vector<WordToken> tokens;
    struct List {
      uint32_t begin;
      uint32_t count;
    };
    std::vector<List> lists;
  };
  std::array<Words, 2> words_;  // of plain text, and of other text
  std::vector<WordToken> part_;
};

}  // namespace oriel::tokenizer
