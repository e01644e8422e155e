#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <oriel/export.hpp>
#include <oriel/mm_embedding.hpp>
#include <oriel/tensor.hpp>
#include <oriel/types.hpp>

namespace oriel {

/// How text becomes ids. The defaults are transformers' `tokenizer(text)`, but for a text that begins with bos.
struct TokenizeOptions {
  /// Embeddings whose alias occurs in the text: each occurrence becomes the embedding's tokens(). At one place the
  /// longest alias wins. An alias that two of them share or that does not occur is an invalid_argument.
  std::vector<MMEmbedding> embeddings = {};
  /// Add what the file's post-processor adds around the text, such as a bos token: transformers' add_special_tokens. To
  /// a text that begins with bos already nothing is added, neither in front nor behind, as in apply_chat_template.
  bool add_bos = true;
  /// Recognise special tokens written in the text. false: they are text like any other (transformers'
  /// split_special_tokens=True), so that a user's text can't inject them: no special id comes out but the unknown
  /// token's.
  bool special_tokens = true;
  /// With add_bos, add it also to a text that begins with bos, which then stands there twice: what transformers'
  /// `tokenizer(text)` does, and its processors' text=.
  bool double_bos = false;
};

struct DecodeOptions {
  bool skip_special_tokens = true;
};

/// A stretch of text in a prompt made of segments.
struct TextSegment {
  std::string text = {};
  bool special_tokens = false;  ///< recognise special tokens written in it: for text of your own, not of a user
};
/// Text, or the rows of a picture in its place. Nothing in a text can name an embedding.
using PromptSegment = std::variant<TextSegment, MMEmbedding>;

/// Ids, and where in the text each comes from.
struct Encoding {
  std::vector<int64_t> ids = {};
  /// Bytes [begin, end) of the text for each id; {p, p} for ids that are not of the text, such as bos. Ids of an
  /// embedding all have their alias's bytes.
  std::vector<std::pair<int64_t, int64_t>> offsets = {};
};

/// Several prompts of one length.
struct BatchEncoding {
  Tensor ids = {};                                                     ///< int64 [batch, longest], on the CPU
  std::vector<int64_t> padding = {};                                   ///< pad tokens on the left of each row
  std::vector<std::vector<std::pair<int64_t, int64_t>>> offsets = {};  ///< of each row, without its padding
};

/// Text to the ids of a checkpoint and back: tokenizer.json's BPE kinds, exactly as transformers does it.
///
/// An immutable value; copies share the vocabulary. Safe from many threads. Text is UTF-8; text that is not is an
/// invalid_argument that names the byte. One that was moved from may only be assigned to or destroyed.
class ORIEL_API Tokenizer {
 public:
  /// Reads tokenizer.json, and tokenizer_config.json, special_tokens_map.json and config.json where they are. The first
  /// says how text is cut, unless the class that the others name (Qwen2Tokenizer, GemmaTokenizer, LlamaTokenizer, ...)
  /// builds that itself in transformers, whatever the file says.
  /// Throws file_error, malformed_model, limit_exceeded, or unsupported_model naming the component that oriel does not
  /// run.
  [[nodiscard]] static Tokenizer load(const std::filesystem::path& directory);

  [[nodiscard]] std::vector<int64_t> encode(std::string_view text, const TokenizeOptions& options = {}) const;
  /// The primary call where text comes from strangers. Neighbouring texts are tokenized as one, so that cutting a text
  /// changes nothing; embeddings and TextSegment::special_tokens are as the segments say, those of `options` must be
  /// left alone.
  [[nodiscard]] std::vector<int64_t> encode(std::span<const PromptSegment> segments,
                                            const TokenizeOptions& options = {}) const;
  [[nodiscard]] Encoding encode_with_offsets(std::string_view text, const TokenizeOptions& options = {}) const;
  /// Padded on the left with the pad token (else eos; unavailable if there is neither and the lengths differ). Each
  /// text may use any of the embeddings; each embedding must be used by some text.
  [[nodiscard]] BatchEncoding encode_batch(std::span<const std::string> texts,
                                           const TokenizeOptions& options = {}) const;

  /// Ids to text. Ids of embeddings and ids that the vocabulary lacks are left out.
  [[nodiscard]] std::string decode(std::span<const int64_t> ids, const DecodeOptions& options = {}) const;

  [[nodiscard]] int64_t vocabulary_size() const noexcept;  ///< one more than the highest id
  [[nodiscard]] std::optional<int64_t> token_id(std::string_view token) const;
  [[nodiscard]] std::optional<std::string> token(int64_t id) const;  ///< as written in the file
  [[nodiscard]] bool is_special(int64_t id) const noexcept;
  [[nodiscard]] std::optional<int64_t> bos_id() const noexcept;
  [[nodiscard]] std::optional<int64_t> eos_id() const noexcept;
  [[nodiscard]] std::optional<int64_t> pad_id() const noexcept;
  [[nodiscard]] std::optional<int64_t> unknown_id() const noexcept;

 private:
  friend class TextStream;
  struct ORIEL_LOCAL Impl;
  explicit Tokenizer(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

/// Decodes ids as they come. What push has returned, joined, and finish at the end equal decode of all ids; text that
/// later ids may change (a character cut in two, a run of byte tokens) is held back. Not safe from many threads.
class ORIEL_API TextStream {
 public:
  explicit TextStream(Tokenizer tokenizer, const DecodeOptions& options = {});
  TextStream(TextStream&&) noexcept;
  TextStream& operator=(TextStream&&) noexcept;
  ~TextStream();
  /// The text that this id makes certain; often empty.
  [[nodiscard]] std::string push(int64_t id);
  /// What is held back; the stream is as new afterwards.
  [[nodiscard]] std::string finish();

 private:
  struct ORIEL_LOCAL Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace oriel
