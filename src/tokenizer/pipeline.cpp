#include "tokenizer/pipeline.hpp"

#include <algorithm>

namespace oriel::tokenizer {

Pipeline Pipeline::read(const Json& json, const Json& parts, bool with_added_tokens) {
  const auto part = [&](const char* key) { return parts[key].is_absent() ? json[key] : parts[key]; };
  Pipeline result;
  result.normalizer_ = Normalizer::read(part("normalizer"));
  result.pre_tokenizer_ = PreTokenizer::read(part("pre_tokenizer"));
  result.post_processor_ = PostProcessor::read(json["post_processor"]);
  result.decoder_ = Decoder::read(part("decoder"));
  result.bpe_ = Bpe::read(json["model"], part("model"), result.pre_tokenizer_.is_byte_level());
  if (with_added_tokens && json["added_tokens"].has_value())
    for (const Json& token : json["added_tokens"].elements()) result.add_token(AddedToken::read(token));
  return result;
}

void Pipeline::finish() {
  added_.build(normalizer_);
  std::vector<bool> is_special(static_cast<size_t>(vocabulary_size()));
  for (const AddedToken& token : added_.tokens()) is_special[token.id] = token.special;
  bpe_.set_special(std::move(is_special));
}

/// One text on its way.
class Pipeline::Run {
 public:
  Run(const Pipeline& pipeline, std::string_view text, std::span<const Span> plain, Output output)
      : pipeline_(pipeline),
        text_(text),
        plain_(plain),
        output_(output),
        tracked_(output.spans != nullptr || is_mixed()) {}

  void encode(bool at_start) {
    const Piece text{text_, nullptr, 0, at_start};
    std::vector<TokenPart> parts;
    pipeline_.added_.split_raw(text.text, plain_, parts);
    for (const TokenPart& part : parts) {
      const Piece piece = text.part(part.begin, part.end);
      if (part.token != nullptr) {
        add(*part.token, piece);
      } else if (pipeline_.normalizer_.keeps(piece.text)) {
        encode_normalized(piece);
      } else {
        AlignedText normalized(piece, tracked_);
        pipeline_.normalizer_.apply(normalized);
        encode_normalized(normalized.piece());
      }
    }
  }

 private:
  /// Some of the text is plain and some is not, so that each word has to know where it comes from.
  [[nodiscard]] bool is_mixed() const { return !plain_.empty() && !is_all_plain(); }
  [[nodiscard]] bool is_all_plain() const {
    return plain_.size() == 1 && plain_[0].begin == 0 && plain_[0].end == ~uint32_t{0};
  }
  [[nodiscard]] bool is_plain(const Piece& word) const {
    if (!is_mixed()) return !plain_.empty();
    const Span span = word.span(0, word.text.size());
    const auto stretch = std::ranges::upper_bound(plain_, span.begin, {}, &Span::end);
    return stretch != plain_.end() && stretch->begin < std::max(span.end, span.begin + 1);
  }

  void encode_normalized(const Piece& piece) {
    if (!pipeline_.added_.has_normalized()) return encode_text(piece);
    std::vector<TokenPart> parts;
    pipeline_.added_.split_normalized(piece, plain_, parts);
    for (const TokenPart& part : parts) {
      if (part.token != nullptr) {
        add(*part.token, piece.part(part.begin, part.end));
      } else {
        encode_text(piece.part(part.begin, part.end));
      }
    }
  }
  void encode_text(const Piece& piece) {
    pipeline_.pre_tokenizer_.cut(piece, tracked_, [&](const Piece& word) { encode_word(word); });
  }
  void encode_word(const Piece& word) {
    tokens_.clear();
    pipeline_.bpe_.encode(word.text, is_plain(word), cache_, tokens_);
    uint32_t begin = 0;
    for (const WordToken& token : tokens_) {
      output_.ids.push_back(token.id);
      if (output_.spans != nullptr) add_span(*pipeline_.bpe_.vocabulary().token(token.id), word.span(begin, token.end));
      begin = token.end;
    }
  }
  void add(const AddedToken& token, const Piece& piece) {
    output_.ids.push_back(token.id);
    if (output_.spans != nullptr) add_span(token.content, piece.span(0, piece.text.size()));
  }
  void add_span(std::string_view token, Span span) {
    const PostProcessor& post_processor = pipeline_.post_processor_;
    if (post_processor.trims_offsets()) span = trim(span, post_processor.blanks(token, is_first_ || span.begin == 0));
    output_.spans->push_back(span);
    is_first_ = false;
  }

  [[nodiscard]] Span trim(Span span, PostProcessor::Blanks blanks) const {
    for (uint32_t i = 0; i < blanks.leading && span.begin < span.end; ++i)
      span.begin += static_cast<uint32_t>(utf8_length(text_[span.begin]));
    for (uint32_t i = 0; i < blanks.trailing && span.end > span.begin; ++i) do {
        --span.end;
      } while (span.end > span.begin && (static_cast<unsigned char>(text_[span.end]) & 0xc0) == 0x80);
    return span;
  }

  const Pipeline& pipeline_;
  std::string_view text_;
  std::span<const Span> plain_;
  Output output_;
  bool tracked_;
  bool is_first_ = true;
  Bpe::Cache cache_;
  std::vector<WordToken> tokens_;
};

void Pipeline::encode(std::string_view text, std::span<const Span> plain, bool at_start, Output output) const {
  const SharedPatternBudget budget(text.size());
  Run(*this, text, plain, output).encode(at_start);
}

std::optional<std::string_view> Pipeline::token(int64_t id) const {
  if (id < 0 || id >= id_limit) return std::nullopt;
  if (const AddedToken* added = added_.find(static_cast<uint32_t>(id))) return added->content;
  return bpe_.vocabulary().token(static_cast<uint32_t>(id));
}

std::optional<std::string_view> Pipeline::decoded_token(int64_t id, bool skip_special) const {
  if (id < 0 || id >= id_limit) return std::nullopt;
  const AddedToken* added = added_.find(static_cast<uint32_t>(id));
  if (added == nullptr) return token(id);
  if (skip_special && added->special && added->decoded == added->content) return std::nullopt;
  return added->decoded;
}

std::optional<uint32_t> Pipeline::id(std::string_view token) const {
  if (const AddedToken* added = added_.find(token)) return added->id;
  return bpe_.vocabulary().id(token);
}

bool Pipeline::is_special(int64_t id) const {
  if (id < 0 || id >= id_limit) return false;
  const AddedToken* added = added_.find(static_cast<uint32_t>(id));
  return added != nullptr && added->special;
}

}  // namespace oriel::tokenizer
