#pragma once
// Tokens that are recognised in text before anything else happens to it.
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "tokenizer/aligned_text.hpp"
#include "tokenizer/flat_map.hpp"
#include "tokenizer/normalizer.hpp"
#include "tokenizer/vocabulary.hpp"

namespace oriel::tokenizer {

struct AddedToken {
  std::string content;
  uint32_t id = 0;
  bool special = false;
  bool single_word = false;  ///< not beside a letter or digit
  bool lstrip = false;       ///< takes the white space before it
  bool rstrip = false;       ///< and behind it
  bool normalized = false;   ///< looked for in normalized text
  std::string decoded = {};  ///< what decoders get: the content, normalized if it is looked for so

  /// An element of "added_tokens", or a value of "added_tokens_decoder"; its id is not read. Throws what read_content
  /// throws.
  [[nodiscard]] static AddedToken read(const Json& json);
  /// The text of a token; limit_exceeded for more than 4,096 bytes.
  [[nodiscard]] static std::string read_content(const Json& json);
};

/// Leftmost-longest search for many strings at once.
class TokenFinder {
 public:
  void add(std::string_view content, uint32_t index);
  struct Match {
    size_t begin;
    size_t end;
    uint32_t index;
  };
  /// The first match at or behind `from` whose longest form `accepts` (index, begin, end) takes; `accepts` may be asked
  /// for shorter forms at the same place.
  template <typename Accepts>
  [[nodiscard]] bool find(std::string_view text, size_t from, const Accepts& accepts, Match& match) const;

 private:
  struct Node {
    uint32_t index = no_index;
  };
  static constexpr uint32_t no_index = ~uint32_t{0};

  std::vector<Node> nodes_ = std::vector<Node>(1);
  FlatMap children_;  // node * 256 + byte to node
  std::vector<bool> is_first_ = std::vector<bool>(256);
};

/// A part of a text: an added token, or text for the model.
struct TokenPart {
  size_t begin;
  size_t end;
  const AddedToken* token;  ///< nullptr for text
};

class AddedTokens {
 public:
  /// Adds in the order of `tokenizers`: the id is the vocabulary's, or the next one. Replaces an equal content.
  void add(AddedToken token, const Vocabulary& vocabulary);
  /// To be called once all are there. Throws limit_exceeded for a content of more than 4,096 bytes once normalized.
  void build(const Normalizer& normalizer);

  /// `plain` are the stretches, in bytes of `text` and sorted, in which no special token is recognised.
  void split_raw(std::string_view text, std::span<const Span> plain, std::vector<TokenPart>& parts) const;
  /// The same for normalized text; `plain` are still bytes of the original.
  void split_normalized(const Piece& piece, std::span<const Span> plain, std::vector<TokenPart>& parts) const;

  [[nodiscard]] bool has_normalized() const { return has_normalized_; }
  [[nodiscard]] const AddedToken* find(std::string_view content) const;
  [[nodiscard]] const AddedToken* find(uint32_t id) const;
  [[nodiscard]] const std::vector<AddedToken>& tokens() const { return tokens_; }
  [[nodiscard]] uint32_t end() const { return end_; }

 private:
  template <typename IsPlain>
  void split(const TokenFinder& finder, std::string_view text, const IsPlain& is_plain,
             std::vector<TokenPart>& parts) const;

  std::vector<AddedToken> tokens_;
  StringTable by_content_;
  FlatMap by_id_;
  TokenFinder raw_;
  TokenFinder normalized_;
  bool has_normalized_ = false;
  uint32_t end_ = 0;  // one more than the highest id
};

}  // namespace oriel::tokenizer
