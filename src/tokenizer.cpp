// The public face of the tokenizer: aliases and segments become stretches of text between embeddings, each stretch goes
// through the pipeline.
#include <algorithm>
#include <oriel/tokenizer.hpp>
#include <set>
#include <string>
#include <utility>

#include "core/error.hpp"
#include "core/json.hpp"
#include "core/memory_errors.hpp"
#include "tokenizer/unicode.hpp"
#include "tokenizer_files.hpp"

namespace oriel {

using tokenizer::Span;

struct Tokenizer::Impl {
  TokenizerFiles files;
};

namespace {

using Offset = std::pair<int64_t, int64_t>;
constexpr uint32_t everywhere = ~uint32_t{0};

/// Text, the stretches of it in which no special token is recognised, and embeddings between its bytes.
struct Prompt {
  struct Placed {
    size_t begin;  // bytes that the alias took
    size_t end;
    const MMEmbedding* embedding;
  };
  std::string_view text = {};
  std::vector<Span> plain = {};
  std::vector<Placed> embeddings = {};
};

void check_text(std::string_view text, const char* what) {
  if (text.size() > tokenizer::Pipeline::longest_text)
    throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} bytes, got {}", what,
                tokenizer::Pipeline::longest_text, text.size());
  if (const auto position = tokenizer::find_invalid_utf8(text))
    throw_error(ErrorCode::invalid_argument, "{}: expected UTF-8, got the byte 0x{:02x} at {}", what,
                static_cast<unsigned char>(text[*position]), *position);
}

/// Embeddings by the length of their alias, the longest first.
std::vector<const MMEmbedding*> by_alias(const std::vector<MMEmbedding>& embeddings) {
  std::vector<const MMEmbedding*> result;
  std::set<std::string_view> seen;
  for (const MMEmbedding& embedding : embeddings) {
    if (!seen.insert(embedding.text_alias()).second)
      throw_error(ErrorCode::invalid_argument, "embeddings: expected aliases that differ, got {} twice",
                  quote_json(embedding.text_alias()));
    result.push_back(&embedding);
  }
  std::ranges::stable_sort(result, std::greater<>{}, [](const MMEmbedding* e) { return e->text_alias().size(); });
  return result;
}

void check_all_used(const std::vector<const MMEmbedding*>& embeddings, const std::set<const MMEmbedding*>& used,
                    const char* where) {
  for (const MMEmbedding* embedding : embeddings)
    if (!used.contains(embedding))
      throw_error(ErrorCode::invalid_argument, "embeddings: expected the alias {} in the {}, found it nowhere",
                  quote_json(embedding->text_alias()), where);
}

Prompt place_aliases(std::string_view text, const std::vector<const MMEmbedding*>& embeddings, bool special_tokens,
                     std::set<const MMEmbedding*>& used) {
  Prompt prompt{.text = text};
  if (!special_tokens) prompt.plain.push_back({0, everywhere});
  for (size_t at = 0; at < text.size() && !embeddings.empty();) {
    const auto found = std::ranges::find_if(
        embeddings, [&](const MMEmbedding* e) { return text.substr(at).starts_with(e->text_alias()); });
    if (found == embeddings.end()) {
      ++at;
      continue;
    }
    const size_t end = at + (*found)->text_alias().size();
    prompt.embeddings.push_back({at, end, *found});
    used.insert(*found);
    at = end;
  }
  return prompt;
}

void encode_text(const TokenizerFiles& files, const Prompt& prompt, size_t begin, size_t end, Encoding& result,
                 bool with_offsets) {
  if (begin == end) return;
  // Stretches as the part sees them.
  std::vector<Span> plain;
  for (const Span& stretch : prompt.plain) {
    if (stretch.end == everywhere) {
      plain.push_back(stretch);
    } else if (stretch.end > begin && stretch.begin < end) {
      plain.push_back({static_cast<uint32_t>(std::max<size_t>(stretch.begin, begin) - begin),
                       static_cast<uint32_t>(std::min<size_t>(stretch.end, end) - begin)});
    }
  }
  std::vector<Span> spans;
  files.pipeline.encode(prompt.text.substr(begin, end - begin), plain,
                        begin == 0 && (prompt.embeddings.empty() || prompt.embeddings[0].begin > 0),
                        {.ids = result.ids, .spans = with_offsets ? &spans : nullptr});
  for (const Span& span : spans)
    result.offsets.emplace_back(static_cast<int64_t>(begin + span.begin), static_cast<int64_t>(begin + span.end));
}

Encoding encode_prompt(const TokenizerFiles& files, const Prompt& prompt, const TokenizeOptions& options,
                       bool with_offsets) {
  Encoding result;
  size_t done = 0;
  for (const Prompt::Placed& placed : prompt.embeddings) {
    encode_text(files, prompt, done, placed.begin, result, with_offsets);
    const std::vector<int64_t> tokens = placed.embedding->tokens();
    result.ids.insert(result.ids.end(), tokens.begin(), tokens.end());
    if (with_offsets)
      result.offsets.insert(result.offsets.end(), tokens.size(),
                            Offset(static_cast<int64_t>(placed.begin), static_cast<int64_t>(placed.end)));
    done = placed.end;
  }
  encode_text(files, prompt, done, prompt.text.size(), result, with_offsets);
  if (!options.add_bos) return result;
  // As apply_chat_template has it: such a prompt is whole, and nothing goes behind it either.
  const bool is_whole = files.bos && !result.ids.empty() && result.ids.front() == *files.bos;
  if (is_whole && !options.double_bos) return result;

  const std::vector<int64_t>& before = files.pipeline.post_processor().prefix();
  const std::vector<int64_t>& after = files.pipeline.post_processor().suffix();
  result.ids.insert(result.ids.begin(), before.begin(), before.end());
  result.ids.insert(result.ids.end(), after.begin(), after.end());
  if (!with_offsets) return result;
  const auto size = static_cast<int64_t>(prompt.text.size());
  result.offsets.insert(result.offsets.begin(), before.size(), Offset(0, 0));
  result.offsets.insert(result.offsets.end(), after.size(), Offset(size, size));
  return result;
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

Tokenizer Tokenizer::load(const std::filesystem::path& directory) {
  return with_memory_errors(directory.string(), "the tokenizer was read", [&] {
    return Tokenizer(std::make_shared<const Impl>(Impl{.files = read_tokenizer_files(directory)}));
  });
}

std::vector<int64_t> Tokenizer::encode(std::string_view text, const TokenizeOptions& options) const {
  return with_memory_errors("text", "it was encoded", [&] {
    check_text(text, "text");
    const auto embeddings = by_alias(options.embeddings);
    std::set<const MMEmbedding*> used;
    const Prompt prompt = place_aliases(text, embeddings, options.special_tokens, used);
    check_all_used(embeddings, used, "text");
    return encode_prompt(impl_->files, prompt, options, /*with_offsets=*/false).ids;
  });
}

Encoding Tokenizer::encode_with_offsets(std::string_view text, const TokenizeOptions& options) const {
  return with_memory_errors("text", "it was encoded", [&] {
    check_text(text, "text");
    const auto embeddings = by_alias(options.embeddings);
    std::set<const MMEmbedding*> used;
    const Prompt prompt = place_aliases(text, embeddings, options.special_tokens, used);
    check_all_used(embeddings, used, "text");
    return encode_prompt(impl_->files, prompt, options, /*with_offsets=*/true);
  });
}

std::vector<int64_t> Tokenizer::encode(std::span<const PromptSegment> segments, const TokenizeOptions& options) const {
  return with_memory_errors("segments", "they were encoded", [&] {
    if (!options.embeddings.empty())
      throw_error(ErrorCode::invalid_argument, "embeddings: expected none beside segments, got {}",
                  options.embeddings.size());
    if (!options.special_tokens)
      throw_error(ErrorCode::invalid_argument,
                  "special_tokens: expected true beside segments, which say it, got false");
    std::string text;
    Prompt prompt;
    for (const PromptSegment& segment : segments) {
      if (const auto* embedding = std::get_if<MMEmbedding>(&segment)) {
        prompt.embeddings.push_back({text.size(), text.size(), embedding});
        continue;
      }
      const auto& [content, special_tokens] = std::get<TextSegment>(segment);
      check_text(content, "segments");
      const size_t begin = text.size();
      text += content;
      if (special_tokens || content.empty()) continue;
      const Span stretch{static_cast<uint32_t>(begin), static_cast<uint32_t>(text.size())};
      // Neighbouring plain texts are one, so that cutting a text changes nothing.
      if (!prompt.plain.empty() && prompt.plain.back().end == stretch.begin) {
        prompt.plain.back().end = stretch.end;
      } else {
        prompt.plain.push_back(stretch);
      }
    }
    check_text(text, "segments");
    prompt.text = text;
    return encode_prompt(impl_->files, prompt, options, /*with_offsets=*/false).ids;
  });
}

BatchEncoding Tokenizer::encode_batch(std::span<const std::string> texts, const TokenizeOptions& options) const {
  return with_memory_errors("texts", "they were encoded", [&] {
    const auto embeddings = by_alias(options.embeddings);
    std::set<const MMEmbedding*> used;
    std::vector<Encoding> rows;
    size_t longest = 0;
    for (const std::string& text : texts) {
      check_text(text, "texts");
      const Prompt prompt = place_aliases(text, embeddings, options.special_tokens, used);
      rows.push_back(encode_prompt(impl_->files, prompt, options, /*with_offsets=*/true));
      longest = std::max(longest, rows.back().ids.size());
    }
    check_all_used(embeddings, used, "texts");

    const auto pad = pad_id() ? pad_id() : eos_id();
    BatchEncoding result;
    std::vector<int64_t> ids;
    for (Encoding& row : rows) {
      const size_t padding = longest - row.ids.size();
      if (padding > 0 && !pad)
        throw_error(ErrorCode::unavailable,
                    "texts: expected one length, since the tokenizer has neither a pad nor an eos token, got {} and {}",
                    row.ids.size(), longest);
      ids.insert(ids.end(), padding, pad.value_or(0));
      ids.insert(ids.end(), row.ids.begin(), row.ids.end());
      result.padding.push_back(static_cast<int64_t>(padding));
      result.offsets.push_back(std::move(row.offsets));
    }
    result.ids = Tensor::copy_of(ids, {static_cast<int64_t>(rows.size()), static_cast<int64_t>(longest)});
    return result;
  });
}

std::string Tokenizer::decode(std::span<const int64_t> ids, const DecodeOptions& options) const {
  return with_memory_errors("ids", "they were decoded", [&] {
    TextStream stream(*this, options);
    std::string text;
    for (const int64_t id : ids) text += stream.push(id);
    return text + stream.finish();
  });
}

int64_t Tokenizer::vocabulary_size() const noexcept { return impl_->files.pipeline.vocabulary_size(); }

std::optional<int64_t> Tokenizer::token_id(std::string_view token) const { return impl_->files.pipeline.id(token); }

std::optional<std::string> Tokenizer::token(int64_t id) const {
  return with_memory_errors("id", "its token was copied", [&] {
    const auto token = impl_->files.pipeline.token(id);
    return token ? std::optional(std::string(*token)) : std::nullopt;
  });
}

bool Tokenizer::is_special(int64_t id) const noexcept { return impl_->files.pipeline.is_special(id); }
std::optional<int64_t> Tokenizer::bos_id() const noexcept { return impl_->files.bos; }
std::optional<int64_t> Tokenizer::eos_id() const noexcept { return impl_->files.eos; }
std::optional<int64_t> Tokenizer::pad_id() const noexcept { return impl_->files.pad; }
std::optional<int64_t> Tokenizer::unknown_id() const noexcept { return impl_->files.unknown; }

struct TextStream::Impl {
  Tokenizer vocabulary;
  DecodeOptions options;
  tokenizer::DecoderStream stream;
};

TextStream::TextStream(Tokenizer vocabulary, const DecodeOptions& options) {
  with_memory_errors("stream", "it was made", [&] {
    const tokenizer::Decoder& decoder = vocabulary.impl_->files.pipeline.decoder();
    impl_ = std::make_unique<Impl>(Impl{std::move(vocabulary), options, tokenizer::DecoderStream(decoder)});
  });
}
TextStream::TextStream(TextStream&&) noexcept = default;
TextStream& TextStream::operator=(TextStream&&) noexcept = default;
TextStream::~TextStream() = default;

std::string TextStream::push(int64_t id) {
  return with_memory_errors("id", "it was decoded", [&] {
    const tokenizer::Pipeline& pipeline = impl_->vocabulary.impl_->files.pipeline;
    const auto token = pipeline.decoded_token(id, impl_->options.skip_special_tokens);
    return token ? impl_->stream.push(*token) : std::string();
  });
}

std::string TextStream::finish() {
  return with_memory_errors("stream", "it was finished", [&] { return impl_->stream.finish(); });
}

}  // namespace oriel
