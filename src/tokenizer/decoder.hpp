#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/json.hpp"
#include "tokenizer/normalizer.hpp"

namespace oriel::tokenizer {

/// tokenizer.json's "decoder": ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace and sequences of them.
/// Without one, tokens are joined with spaces. Immutable; safe from many threads.
class Decoder {
 public:
  /// Throws unsupported_model naming any other kind, and for a step behind Fuse or ByteLevel other than Strip.
  [[nodiscard]] static Decoder read(const Json& json);

  struct ByteLevel {};
  struct Replace {
    TextPattern pattern;
    std::string content;
  };
  struct ByteFallback {};
  struct Fuse {};
  struct Strip {
    std::string content;
    size_t start;
    size_t stop;
  };
  struct Metaspace {
    std::string replacement;
    bool drops_first;
  };
  struct Join {};  // with spaces
  using Step = std::variant<ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, Join>;
  [[nodiscard]] const std::vector<Step>& steps() const { return steps_; }

 private:
  void add(const Json& json);
  std::vector<Step> steps_;
};

/// Decodes tokens one by one. The texts of all calls, joined, are the whole text; each call gives out what no later
/// token can change.
class DecoderStream {
 public:
  /// `decoder` must outlive it. push and finish throw limit_exceeded where replacements have put into the text many
  /// times more than came.
  explicit DecoderStream(const Decoder& decoder);
  [[nodiscard]] std::string push(std::string_view token);
  /// What is left; the stream is as new afterwards.
  [[nodiscard]] std::string finish();

 private:
  struct State {
    std::string held;     // bytes that may still become a character, or text that may still be stripped
    std::string tokens;   // ByteFallback: the tokens' bytes
    size_t stripped = 0;  // Strip: how many at the start
    bool began = false;   // a token or text has been seen
    bool start_done = false;
  };
  void run(size_t step, std::string_view token, std::string& text);
  void run_replaced(size_t step, std::string_view token, const std::vector<Pattern::Match>& matches,
                    std::string_view content, std::string& text);
  void finish(size_t step, std::string& text);
  void run_byte_level(size_t step, std::string_view token, std::string& text);
  void run_byte_fallback(size_t step, std::string_view token, std::string& text);
  void run_strip_text(size_t step, std::string_view token, std::string& text);

  const Decoder* decoder_;
  std::vector<State> states_;
  size_t budget_;              // bytes that replacements may still put into this text
  std::vector<bool> is_text_;  // what reaches a step is pieces of one text, not tokens
};

}  // namespace oriel::tokenizer
