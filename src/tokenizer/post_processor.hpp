#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/json.hpp"

namespace oriel::tokenizer {

/// tokenizer.json's "post_processor": TemplateProcessing, ByteLevel and sequences of them.
class PostProcessor {
 public:
  /// null and an absent key do nothing. Throws unsupported_model naming any other kind, and for a template that repeats
  /// or leaves out the text; malformed_model for a template with a token that it does not define;
  /// limit_exceeded for more than 1,000 ids around a text.
  [[nodiscard]] static PostProcessor read(const Json& json);

  /// What goes in front of a text's ids and behind them.
  [[nodiscard]] const std::vector<int64_t>& prefix() const { return prefix_; }
  [[nodiscard]] const std::vector<int64_t>& suffix() const { return suffix_; }
  /// Whether a token's offsets leave out the white space at its ends.
  [[nodiscard]] bool trims_offsets() const { return trims_offsets_; }
  /// How many characters of white space that is, before and behind; `token` is in ByteLevel's alphabet.
  struct Blanks {
    uint32_t leading;
    uint32_t trailing;
  };
  [[nodiscard]] Blanks blanks(std::string_view token, bool is_first) const;

 private:
  void add(const Json& json);
  void add_template(const Json& json);

  std::vector<int64_t> prefix_;
  std::vector<int64_t> suffix_;
  bool trims_offsets_ = false;
  bool adds_prefix_space_ = false;
};

}  // namespace oriel::tokenizer
