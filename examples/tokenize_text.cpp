// tokenize_text: text to the ids of a checkpoint's tokenizer and back, one JSON value a line.
#include <cstdint>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "command_line.hpp"

namespace {

struct Arguments {
  std::string model;
  ComputeArguments compute;
  bool no_special_tokens = false;
  bool plain = false;
  bool decode = false;
};

/// One JSON value of a line: a string, or an array of integers.
class LineParser {
 public:
  explicit LineParser(const std::string& line) : line_(line) {}

  std::string parse_string() {
    skip_blanks();
    expect('"', "a string");
    std::string text;
    while (take() != '"') {
      const char c = line_[position_ - 1];
      if (static_cast<unsigned char>(c) < 0x20) fail("an escape, found a control character");
      if (c == '\\') {
        parse_escape(text);
      } else {
        text += c;
      }
    }
    expect_end();
    return text;
  }

  std::vector<int64_t> parse_integers() {
    std::vector<int64_t> ids;
    skip_blanks();
    expect('[', "an array of integers");
    skip_blanks();
    if (peek() != ']') {
      do {
        ids.push_back(parse_integer());
        skip_blanks();
      } while (take() == ',');
      --position_;
    }
    expect(']', "a comma or the array's end");
    expect_end();
    return ids;
  }

 private:
  [[noreturn]] void fail(const std::string& expected) const {
    throw std::invalid_argument("column " + std::to_string(position_ + 1) + ": expected " + expected);
  }
  [[nodiscard]] char peek() const { return position_ < line_.size() ? line_[position_] : '\0'; }
  char take() {
    if (position_ == line_.size()) fail("more, found the line's end");
    return line_[position_++];
  }
  void expect(char wanted, const std::string& what) {
    if (peek() != wanted || position_ == line_.size()) fail(what);
    ++position_;
  }
  void skip_blanks() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\r') ++position_;
  }
  void expect_end() {
    skip_blanks();
    if (position_ != line_.size()) fail("the line's end");
  }

  int64_t parse_integer() {
    skip_blanks();
    const bool negative = peek() == '-';
    if (negative) ++position_;
    if (peek() < '0' || peek() > '9') fail("an integer");
    int64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      if (value > (INT64_MAX - 9) / 10) fail("an integer of 64 bits");
      value = value * 10 + (line_[position_++] - '0');
    }
    return negative ? -value : value;
  }

  uint32_t parse_four_digits() {
    uint32_t value = 0;
    for (int i = 0; i < 4; ++i) {
      const char c = take();
      const std::string digits = "0123456789abcdef";
      const size_t digit = digits.find(static_cast<char>(c >= 'A' && c <= 'F' ? c + 32 : c));
      if (digit == std::string::npos) fail("four hexadecimal digits");
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    return value;
  }
  void parse_escape(std::string& text) {
    const std::string letters = "\"\\/bfnrt";
    const std::string meanings = "\"\\/\b\f\n\r\t";
    const char c = take();
    if (c == 'u') {
      uint32_t code_point = parse_four_digits();
      if (code_point >= 0xd800 && code_point < 0xdc00) {
        expect('\\', "the second half of a surrogate pair");
        expect('u', "the second half of a surrogate pair");
        const uint32_t low = parse_four_digits();
        if (low < 0xdc00 || low > 0xdfff) fail("the second half of a surrogate pair");
        code_point = 0x10000 + ((code_point - 0xd800) << 10) + (low - 0xdc00);
      } else if (code_point >= 0xdc00 && code_point <= 0xdfff) {
        fail("the first half of a surrogate pair");
      }
      append_utf8(text, code_point);
      return;
    }
    const size_t letter = letters.find(c);
    if (letter == std::string::npos) fail("an escape of JSON");
    text += meanings[letter];
  }
  static void append_utf8(std::string& text, uint32_t c) {
    const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
    if (c < 0x80) return put(c);
    if (c < 0x800) return put(0xc0 | c >> 6), put(0x80 | (c & 0x3f));
    if (c < 0x10000) {
      put(0xe0 | c >> 12);
    } else {
      put(0xf0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3f));
    }
    put(0x80 | (c >> 6 & 0x3f));
    put(0x80 | (c & 0x3f));
  }

  const std::string& line_;
  size_t position_ = 0;
};

std::string to_json(const std::vector<int64_t>& ids) {
  std::string text = "[";
  for (const int64_t id : ids) text += (text.size() > 1 ? ", " : "") + std::to_string(id);
  return text + "]";
}

std::string to_json(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      quoted += escape;
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

/// transformers' input_ids, with a bos in front also of a text that begins with one.
std::vector<int64_t> input_ids(const oriel::Tokenizer& tokenizer, const std::string& text, const Arguments& arguments) {
  return tokenizer.encode(
      text, {.add_bos = !arguments.no_special_tokens, .special_tokens = !arguments.plain, .double_bos = true});
}

void tokenize(const Arguments& arguments) {
  const oriel::Tokenizer tokenizer = oriel::Tokenizer::load(arguments.model);
  std::string line;
  for (size_t number = 1; std::getline(std::cin, line); ++number) {
    try {
      LineParser parser(line);
      const std::string result =
          arguments.decode
              ? to_json(tokenizer.decode(parser.parse_integers(), {.skip_special_tokens = arguments.no_special_tokens}))
              : to_json(input_ids(tokenizer, parser.parse_string(), arguments));
      std::cout << result << '\n' << std::flush;
    } catch (const std::exception& error) {
      throw std::runtime_error("line " + std::to_string(number) + ": " + error.what());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Reads JSON strings from stdin, one a line, and prints the ids of each as an array, as transformers' tokenizer "
      "makes them.",
      "tokenize_text"};
  Arguments arguments;
  app.add_option("--model", arguments.model, "directory with a tokenizer.json")->required()->type_name("DIR");
  // Scripts may give all programs the same options.
  arguments.compute.add_to(app);
  for (const char* name : {"--device", "--dtype", "--threads"}) {
    CLI::Option* option = app.get_option(name);
    option->description(option->get_description() + "; no model runs here, so it changes nothing");
  }
  app.add_flag("--no-special-tokens", arguments.no_special_tokens,
               "add no tokens around the text; with --decode, leave special tokens out");
  app.add_flag("--plain", arguments.plain, "recognise no special tokens in the text: it is data");
  app.add_flag("--decode", arguments.decode, "read arrays of ids and print JSON strings");
  return run_program(app, argc, argv, [&] {
    (void)oriel::Device::parse(arguments.compute.device);
    arguments.compute.apply();
    tokenize(arguments);
  });
}
