#pragma once
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/json.hpp"
#include "tokenizer/aligned_text.hpp"

namespace oriel::tokenizer {

/// Of a sequence in tokenizer.json; real ones have four at most.
inline constexpr size_t most_steps = 64;

/// A "pattern" of tokenizer.json: {"String": ...} or {"Regex": ...}.
class TextPattern {
 public:
  [[nodiscard]] static TextPattern read(const Json& json);
  void find_all(std::string_view text, std::vector<Pattern::Match>& matches) const;

 private:
  std::variant<std::string, Pattern> pattern_;
};

/// tokenizer.json's "normalizer": NFC, Replace, Prepend and sequences of them.
class Normalizer {
 public:
  /// null and an absent key change nothing. Throws unsupported_model naming any other kind, limit_exceeded for too many
  /// steps and for a step that puts in more than 4,096 bytes.
  [[nodiscard]] static Normalizer read(const Json& json);

  /// Whether `text` comes out as it is.
  [[nodiscard]] bool keeps(std::string_view text) const;
  void apply(AlignedText& text) const;

 private:
  struct Compose {};
  struct Replace {
    TextPattern pattern;
    std::string content;
  };
  struct Prepend {
    std::string content;
  };
  void add(const Json& json);

  std::vector<std::variant<Compose, Replace, Prepend>> steps_;
};

}  // namespace oriel::tokenizer
