#include "fuzz/json_mutator.hpp"

#include <array>
#include <cstring>
#include <random>
#include <vector>

namespace oriel::fuzz {
namespace {

constexpr std::array<std::string_view, 40> values{"0",       "1",          "2",           "3",
                                                  "-1",      "4",          "7",           "13",
                                                  "14",      "16",         "28",          "56",
                                                  "64",      "255",        "256",         "1000",
                                                  "4096",    "65535",      "65536",       "65537",
                                                  "1048576", "1e6",        "1e-300",      "1e300",
                                                  "0.5",     "2147483647", "2147483648",  "4611686018427387904",
                                                  "16.0",    "null",       "true",        "false",
                                                  "\"\"",    "[]",         "{}",          "[1, 1]",
                                                  "[3, 5]",  "\"gelu\"",   "\"default\"", "9223372036854775807"};

struct Token {
  size_t begin;
  size_t end;
};

/// Numbers, strings and words of the text: keys too, so that a key can be lost.
std::vector<Token> tokens_of(std::string_view text) {
  std::vector<Token> tokens;
  const auto is_word = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '+' || c == '.' || c == 'E';
  };
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (text[at] == '"') {
      const size_t end = text.find('"', at + 1);
      if (end == std::string_view::npos) break;
      at = end + 1;
    } else {
      while (at < text.size() && is_word(text[at])) ++at;
    }
    if (at == begin)
      ++at;
    else
      tokens.push_back({begin, at});
  }
  return tokens;
}

bool is_key(std::string_view text, const Token& token) {
  return text[token.begin] == '"' && text.substr(token.end).starts_with(":");
}

}  // namespace

size_t mutate_json(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  std::minstd_rand random(seed + 1);
  std::string text(as_text({data, size}));
  const std::vector<Token> tokens = tokens_of(text);
  if (tokens.empty()) return LLVMFuzzerMutate(data, size, max_size);
  const Token token = tokens[random() % tokens.size()];
  std::string replacement;
  if (is_key(text, token)) {
    replacement = random() % 4 == 0 ? "\"x\"" : text.substr(token.begin, token.end - token.begin);
    // A key keeps its name, mostly; the value behind it goes.
    if (replacement != "\"x\"" && text.compare(token.end, 2, ":{") != 0 && text.compare(token.end, 3, ": {") != 0) {
      const size_t value = token.end + 1;
      const size_t end = std::min(text.find_first_of(",}", value), text.size());
      text.replace(value, end - value, values[random() % values.size()]);
    }
  } else if (random() % 3 == 0) {
    const Token other = tokens[random() % tokens.size()];
    replacement = text.substr(other.begin, other.end - other.begin);
  } else {
    replacement = values[random() % values.size()];
  }
  text.replace(token.begin, token.end - token.begin, replacement);
  const size_t length = std::min(text.size(), max_size);
  std::memcpy(data, text.data(), length);
  return length;
}

}  // namespace oriel::fuzz
