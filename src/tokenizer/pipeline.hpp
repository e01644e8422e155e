#pragma once
// tokenizer.json as a whole: added tokens, normalizer, pre-tokenizer, BPE; and back.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/json.hpp"
#include "tokenizer/added_tokens.hpp"
#include "tokenizer/bpe.hpp"
#include "tokenizer/decoder.hpp"
#include "tokenizer/normalizer.hpp"
#include "tokenizer/post_processor.hpp"
#include "tokenizer/pre_tokenizer.hpp"

namespace oriel::tokenizer {

/// Immutable once it is finished; safe from many threads then.
class Pipeline {
 public:
  /// Throws malformed_model, or unsupported_model naming the component that is not run.
  [[nodiscard]] static Pipeline read(const Json& json) { return read(json, json); }
  /// The same, but `parts` ("normalizer", "pre_tokenizer", "decoder", options of "model") stand for the file's own, and
  /// its added tokens may be left to others.
  [[nodiscard]] static Pipeline read(const Json& json, const Json& parts, bool with_added_tokens = true);
  /// One more added token, as if the file had it last.
  void add_token(AddedToken token) { added_.add(std::move(token), bpe_.vocabulary()); }
  void finish();

  /// The longest text that encode takes, in bytes.
  static constexpr size_t longest_text = (size_t{1} << 31) - 1;

  struct Output {
    std::vector<int64_t>& ids;
    std::vector<Span>* spans = nullptr;  ///< of each id, if wanted
  };
  /// Appends the ids of `text`, which is UTF-8, without those of the post-processor. In `plain` stretches (sorted) no
  /// special token is recognised. `at_start` if no other text stands before it.
  void encode(std::string_view text, std::span<const Span> plain, bool at_start, Output output) const;

  /// The token as the file writes it; nothing for ids without one.
  [[nodiscard]] std::optional<std::string_view> token(int64_t id) const;
  /// What the decoder gets for an id. `tokenizers` knows a special token by its content alone, so that one which is
  /// normalized to another text is not left out.
  [[nodiscard]] std::optional<std::string_view> decoded_token(int64_t id, bool skip_special) const;
  [[nodiscard]] std::optional<uint32_t> id(std::string_view token) const;
  [[nodiscard]] bool is_special(int64_t id) const;
  [[nodiscard]] int64_t vocabulary_size() const { return std::max(bpe_.vocabulary().end(), added_.end()); }
  [[nodiscard]] const AddedTokens& added_tokens() const { return added_; }
  [[nodiscard]] const PostProcessor& post_processor() const { return post_processor_; }
  [[nodiscard]] const Decoder& decoder() const { return decoder_; }
  [[nodiscard]] std::optional<uint32_t> unknown() const { return bpe_.unknown(); }

 private:
  class Run;

  Bpe bpe_;
  AddedTokens added_;
  Normalizer normalizer_;
  PreTokenizer pre_tokenizer_;
  PostProcessor post_processor_;
  Decoder decoder_;
};

}  // namespace oriel::tokenizer
