#pragma once
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/json.hpp"
#include "tokenizer/aligned_text.hpp"
#include "tokenizer/normalizer.hpp"

namespace oriel::tokenizer {

/// tokenizer.json's "pre_tokenizer": cuts text into the words that BPE works on. Split, ByteLevel, Metaspace, Digits
/// and sequences of them.
class PreTokenizer {
 public:
  /// null and an absent key cut nothing. Throws unsupported_model naming any other kind.
  [[nodiscard]] static PreTokenizer read(const Json& json);

  /// Words are bytes, each of which the vocabulary writes as a character of ByteLevel's alphabet.
  [[nodiscard]] bool is_byte_level() const { return is_byte_level_; }
  /// Calls `take` with each word, none of them empty. A word is valid during the call.
  void cut(const Piece& piece, bool tracked, const std::function<void(const Piece&)>& take) const;

 private:
  enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
  struct Split {
    TextPattern pattern;
    Behavior behavior;
    bool inverted;
  };
  /// Puts a space in front of pieces that begin with none.
  struct PrefixSpace {};
  struct Metaspace {
    std::string replacement;
    enum class Prepend { always, first, never } prepend;
  };
  using Take = std::function<void(const Piece&)>;

  [[nodiscard]] static Behavior read_behavior(const Json& json);
  void add(const Json& json);
  void add_split(TextPattern pattern, Behavior behavior, bool inverted);
  void add_byte_level(const Json& json);
  void add_metaspace(const Json& json);
  void run(size_t step, const Piece& piece, bool tracked, const Take& take) const;
  void split(size_t step, const Piece& piece, bool tracked, const Take& take) const;
  void prepend_metaspace(size_t step, const Piece& piece, bool tracked, const Take& take) const;

  std::vector<std::variant<Split, PrefixSpace, Metaspace>> steps_;
  bool is_byte_level_ = false;
};

}  // namespace oriel::tokenizer
