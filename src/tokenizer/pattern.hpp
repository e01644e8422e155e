#pragma once
// Regular expressions of tokenizer.json: Oniguruma's syntax and Unicode 16's characters, run by PCRE2.
//
// A pattern sees a character only through the sets and letters that it names, so characters that no set tells apart are
// one class. There are a few dozen classes: text becomes one byte a character, its class, and PCRE2 runs a pattern over
// such bytes with plain 256-bit sets. Neither PCRE2's Unicode tables nor its UTF-8 take part.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/unicode.hpp"

namespace oriel::tokenizer {

/// A pattern as written, taken apart: PCRE2's syntax with the sets left out.
struct ParsedPattern {
  struct Piece {
    std::string syntax;  ///< copied as it is; empty for a set
    int set = -1;        ///< index into sets
  };
  std::vector<Piece> pieces;
  std::vector<CodePointSet> sets;
  /// Something may read on and on and take no step that PCRE2 counts: a repeat without end that is possessive, or
  /// inside of an atomic group or of a look around.
  bool reads_uncounted = false;
  /// How many characters it reads at most if each of its parts is tried once and runs without end count as one
  /// character: a bound of what one step of PCRE2 takes.
  size_t reads = 0;
};
/// Throws unsupported_model, beginning with `where`, for what is not understood.
[[nodiscard]] ParsedPattern parse_pattern(std::string_view regex, std::string_view where);

/// While it lives, all searches of its thread share one budget of steps, that of a text of `size` bytes: for texts that
/// are searched in pieces. Without one each search has its own.
class SharedPatternBudget {
 public:
  explicit SharedPatternBudget(size_t size);
  ~SharedPatternBudget();
  SharedPatternBudget(const SharedPatternBudget&) = delete;
  SharedPatternBudget& operator=(const SharedPatternBudget&) = delete;

 private:
  uint64_t steps_;
  uint64_t* around_;
};

/// A compiled pattern. Immutable; safe from many threads.
class Pattern {
 public:
  Pattern(std::string_view regex, std::string_view where);

  struct Match {
    size_t begin;
    size_t end;
  };
  /// All matches from left to right, in bytes of `text`. Throws limit_exceeded if the pattern backtracks without end,
  /// in one place or in all of them together.
  void find_all(std::string_view text, std::vector<Match>& matches) const;

 private:
  struct Code;
  class Search;
  [[nodiscard]] uint8_t class_of(uint32_t code_point) const {
    return blocks_[static_cast<size_t>(block_of_[code_point >> 8]) * 256 + (code_point & 255)];
  }
  /// Characters of one class, up to the next run.
  struct Run {
    uint32_t begin;
    uint8_t class_number;
  };
  void number_classes(const std::vector<CodePointSet>& sets, std::vector<std::string>& set_syntax);
  void tabulate(const std::vector<Run>& runs);
  void to_classes(std::string_view text, std::vector<uint8_t>& classes) const;

  std::string where_;
  std::vector<uint16_t> block_of_;  // of each 256 code points
  std::vector<uint8_t> blocks_;     // classes of each distinct block
  bool reads_uncounted_ = false;    // ParsedPattern's
  uint64_t step_cost_ = 1;          // of the budget
  std::shared_ptr<const Code> code_;
  std::shared_ptr<const Code> anchored_;  // the same, for a match that starts where the search starts
};

}  // namespace oriel::tokenizer
