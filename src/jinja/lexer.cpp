#include "jinja/lexer.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "jinja/text.hpp"

namespace oriel::jinja {
namespace {

/// Lines end in \n alone, and the last line's end does not count.
std::string normalized(std::string_view source) {
  std::string text;
  text.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    text += source[i] == '\r' ? '\n' : source[i];
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool starts_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool continues_name(char c) { return starts_name(c) || is_digit(c); }

void append_utf8(std::string& out, uint32_t c) {
  const auto add = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) return add(c);
  if (c < 0x800) {
    add(0xC0 | c >> 6);
  } else if (c < 0x10000) {
    add(0xE0 | c >> 12);
    add(0x80 | (c >> 6 & 0x3F));
  } else {
    add(0xF0 | c >> 18);
    add(0x80 | (c >> 12 & 0x3F));
    add(0x80 | (c >> 6 & 0x3F));
  }
  add(0x80 | (c & 0x3F));
}

class Lexer {
 public:
  Lexer(std::string_view source, Run& run) : source_(normalized(source)), run_(run) {}

  std::vector<Token> tokenize() {
    while (at_ < source_.size()) {
      const size_t tag = find_tag();
      if (tag == source_.size()) {
        add_data(at_, tag);
        move_to(tag);
        break;
      }
      lex_tag(tag);
    }
    add(Token::Kind::end);
    return std::move(tokens_);
  }

 private:
  [[nodiscard]] bool starts_with(std::string_view what, size_t at) const {
    return std::string_view(source_).substr(at).starts_with(what);
  }

  void move_to(size_t at) {
    run_.line += static_cast<int>(
        std::count(source_.begin() + static_cast<ptrdiff_t>(at_), source_.begin() + static_cast<ptrdiff_t>(at), '\n'));
    at_ = at;
  }

  void skip_whitespace() { move_to(at_ + leading_whitespace(std::string_view(source_).substr(at_))); }

  Token& add(Token::Kind kind, std::string text = {}) {
    tokens_.push_back({.kind = kind, .text = std::move(text), .line = run_.line});
    return tokens_.back();
  }

  void add_data(size_t begin, size_t end) {
    if (begin < end) add(Token::Kind::data, source_.substr(begin, end - begin));
  }

  /// Where the next {{, {% or {# is, or the end.
  [[nodiscard]] size_t find_tag() const {
    for (size_t at = source_.find('{', at_); at != std::string::npos; at = source_.find('{', at + 1))
      if (at + 1 < source_.size() && std::string_view("{%#").find(source_[at + 1]) != std::string_view::npos) return at;
    return source_.size();
  }

  /// Adds the text in front of a tag, without the whitespace that the tag takes away: all of it for '-', and the
  /// indentation of a tag that is no print (lstrip_blocks) unless it says '+'.
  void add_data_before(size_t tag, char sign, bool print) {
    size_t end = tag;
    const std::string_view data = std::string_view(source_).substr(at_, tag - at_);
    if (sign == '-') {
      end -= trailing_whitespace(data);
    } else if (sign != '+' && !print) {
      const size_t newline = data.rfind('\n');
      const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
      const bool at_line_start = start > 0 || at_ == 0 || source_[at_ - 1] == '\n';
      if (at_line_start && leading_whitespace(data.substr(start)) == data.size() - start) end = at_ + start;
    }
    add_data(at_, end);
    move_to(tag);
  }

  [[nodiscard]] char sign_at(size_t at) const {
    return at < source_.size() && (source_[at] == '-' || source_[at] == '+') ? source_[at] : '\0';
  }

  void lex_tag(size_t tag) {
    const char kind = source_[tag + 1];
    const char sign = sign_at(tag + 2);
    const size_t inside = tag + 2 + (sign != '\0');
    add_data_before(tag, sign, kind == '{');
    if (kind == '#') return skip_comment(inside);
    if (kind == '%' && lex_raw(inside)) return;
    const bool print = kind == '{';
    add(print ? Token::Kind::print_begin : Token::Kind::statement_begin);
    move_to(inside);
    lex_inside(print);
  }

  /// What follows a tag's end at `end`: whitespace that '-' takes, or one line's end (trim_blocks) unless '+'.
  void move_behind(size_t end, char sign, bool trims_line) {
    move_to(end);
    if (sign == '-') return skip_whitespace();
    if (trims_line && sign != '+' && at_ < source_.size() && source_[at_] == '\n') move_to(at_ + 1);
  }

  void skip_comment(size_t inside) {
    const size_t end = source_.find("#}", inside);
    if (end == std::string::npos) run_.fail(ErrorCode::malformed_model, "expected the end of a comment, found none");
    move_behind(end + 2, end > inside ? sign_at(end - 1) : '\0', /*trims_line=*/true);
  }

  /// Whether a statement of the one word `word` goes on at `at`; then `at` is behind it and `sign` is its last sign.
  bool takes_word(std::string_view word, size_t& at, char& sign) const {
    const auto skip = [&](size_t from) { return from + leading_whitespace(std::string_view(source_).substr(from)); };
    size_t here = skip(at);
    if (!starts_with(word, here)) return false;
    here = skip(here + word.size());
    sign = sign_at(here);
    here += sign != '\0';
    if (!starts_with("%}", here)) return false;
    at = here + 2;
    return true;
  }

  bool lex_raw(size_t inside) {
    char sign = '\0';
    if (!takes_word("raw", inside, sign) || sign == '+') return false;
    move_behind(inside, sign, /*trims_line=*/false);
    for (size_t tag = source_.find("{%", at_); tag != std::string::npos; tag = source_.find("{%", tag + 1)) {
      const char before = sign_at(tag + 2);
      size_t end = tag + 2 + (before != '\0');
      if (!takes_word("endraw", end, sign)) continue;
      add_data_before(tag, before, /*print=*/false);
      move_behind(end, sign, /*trims_line=*/true);
      return true;
    }
    run_.fail(ErrorCode::malformed_model, "expected endraw, found the end of the template");
  }

  bool lex_end(bool print) {
    const char sign = sign_at(at_);
    if (print && sign == '+') return false;
    const size_t brackets = at_ + (sign != '\0');
    if (!starts_with(print ? "}}" : "%}", brackets)) return false;
    add(print ? Token::Kind::print_end : Token::Kind::statement_end);
    move_behind(brackets + 2, sign, /*trims_line=*/!print);
    return true;
  }

  void lex_inside(bool print) {
    open_.clear();
    for (skip_whitespace(); at_ < source_.size(); skip_whitespace()) {
      if (open_.empty() && lex_end(print)) return;
      const char c = source_[at_];
      if (starts_name(c))
        lex_name();
      else if (is_digit(c))
        lex_number();
      else if (c == '\'' || c == '"')
        lex_text();
      else
        lex_sign();
    }
    run_.fail(ErrorCode::malformed_model, "expected {}, found the end of the template", print ? "}}" : "%}");
  }

  void lex_name() {
    size_t end = at_;
    while (end < source_.size() && continues_name(source_[end])) ++end;
    add(Token::Kind::name, source_.substr(at_, end - at_));
    move_to(end);
  }

  void lex_number() {
    size_t end = at_;
    const auto digits = [&] {
      while (end < source_.size() && is_digit(source_[end])) ++end;
    };
    digits();
    const bool whole = end + 1 >= source_.size() || source_[end] != '.' || !is_digit(source_[end + 1]);
    if (!whole) {
      ++end;
      digits();
    }
    if (end < source_.size() && continues_name(source_[end]))
      run_.fail(ErrorCode::unsupported_model, "expected a decimal number, found \"{}\"",
                source_.substr(at_, end - at_ + 1));
    Token& token = add(whole ? Token::Kind::integer : Token::Kind::number);
    const char* first = source_.data() + at_;
    const auto result = whole ? std::from_chars(first, source_.data() + end, token.integer)
                              : std::from_chars(first, source_.data() + end, token.number);
    if (result.ec != std::errc())
      run_.fail(ErrorCode::unsupported_model, "expected a number of 64 bits, found \"{}\"",
                source_.substr(at_, end - at_));
    move_to(end);
  }

  /// The code of \x.., \u.... and the like, or of up to three octal digits.
  uint32_t lex_code(size_t& at, size_t digits, int base) {
    uint32_t code = 0;
    const size_t last = std::min(source_.size(), at + digits);
    const char* begin = source_.data() + at;
    const auto [end, status] = std::from_chars(begin, source_.data() + last, code, base);
    const auto count = static_cast<size_t>(end - begin);
    if (status != std::errc() || (base == 16 && count != digits) || code > 0x10FFFF ||
        (code >= 0xD800 && code < 0xE000))
      run_.fail(ErrorCode::malformed_model, "expected the code of a character after \\ in a text");
    at += count;
    return code;
  }

  void lex_escape(size_t& at, std::string& out) {
    constexpr std::string_view names = "\n\\'\"abfnrtv";
    constexpr std::array<std::string_view, 11> values = {"", "\\", "'", "\"", "\a", "\b", "\f", "\n", "\r", "\t", "\v"};
    const char c = source_[at];
    if (const size_t known = names.find(c); known != std::string_view::npos) {
      out += values[known];
      ++at;
    } else if (c >= '0' && c <= '7') {
      append_utf8(out, lex_code(at, 3, 8));
    } else if (c == 'x' || c == 'u' || c == 'U') {
      append_utf8(out, lex_code(++at, c == 'x' ? 2 : c == 'u' ? 4 : 8, 16));
    } else if (c == 'N') {
      run_.fail(ErrorCode::unsupported_model, "characters by name (\\N) are not supported");
    } else {
      out += '\\';  // Python keeps a backslash that means nothing
    }
  }

  void lex_text() {
    const char quote = source_[at_];
    std::string text;
    size_t at = at_ + 1;
    while (at < source_.size() && source_[at] != quote) {
      if (source_[at] != '\\') {
        text += source_[at++];
      } else if (++at < source_.size()) {
        lex_escape(at, text);
      }
    }
    if (at >= source_.size()) run_.fail(ErrorCode::malformed_model, "expected the end of a text, found none");
    add(Token::Kind::text, std::move(text));
    move_to(at + 1);
  }

  void lex_sign() {
    constexpr std::array<std::string_view, 24> signs = {"==", "!=", "<=", ">=", "//", "**", "+", "-",
                                                        "*",  "/",  "%",  "~",  "<",  ">",  "=", "(",
                                                        ")",  "[",  "]",  "{",  "}",  ",",  ".", ":"};
    std::string_view found = starts_with("|", at_) ? "|" : "";
    for (const std::string_view sign : signs)
      if (found.empty() && starts_with(sign, at_)) found = sign;
    if (found.empty())
      run_.fail(ErrorCode::malformed_model, "unexpected \"{}\"", source_.substr(at_, character_size(source_, at_)));
    constexpr std::string_view opening = "([{", closing = ")]}";
    if (const size_t kind = opening.find(found); kind != std::string_view::npos) open_ += closing[kind];
    if (closing.find(found) != std::string_view::npos) {
      if (open_.empty() || open_.back() != found[0]) run_.fail(ErrorCode::malformed_model, "unexpected \"{}\"", found);
      open_.pop_back();
    }
    add(Token::Kind::sign, std::string(found));
    move_to(at_ + found.size());
  }

  std::string source_;
  Run& run_;
  size_t at_ = 0;
  std::string open_;  // brackets that are open, by what closes them: the tag's end is no end inside of them
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, Run& run) { return Lexer(source, run).tokenize(); }

}  // namespace oriel::jinja
