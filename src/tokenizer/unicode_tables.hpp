#pragma once
// The Unicode data behind unicode.hpp and nfc.hpp. scripts/make_unicode_tables.py writes the tables and says which
// versions they are of.
#include <cstdint>
#include <span>

namespace oriel::tokenizer {

/// The general categories in the order of the runs' numbers.
inline constexpr const char* category_names[] = {"Cn", "Cc", "Cf", "Co", "Cs", "Ll", "Lm", "Lo", "Lt", "Lu",
                                                 "Mc", "Me", "Mn", "Nd", "Nl", "No", "Pc", "Pd", "Pe", "Pf",
                                                 "Pi", "Po", "Ps", "Sc", "Sk", "Sm", "So", "Zl", "Zp", "Zs"};

/// First code point * 32 + category, up to the next run's first. Unicode 16.
extern const std::span<const uint32_t> category_runs;

/// The canonical combining class from `first` up to the next run's first. Unicode 9.
struct CombiningRun {
  uint32_t first;
  uint8_t combining_class;
};
extern const std::span<const CombiningRun> combining_runs;

/// A canonical decomposition, sorted by code point, Hangul left out. `second` is 0 if it is one character. Unicode 9.
struct Decomposition {
  uint32_t code_point;
  uint32_t first;
  uint32_t second;
  bool composes;  ///< NFC puts the two together again
};
extern const std::span<const Decomposition> decompositions;

}  // namespace oriel::tokenizer
