#include "tokenizer/byte_alphabet.hpp"

#include <algorithm>

namespace oriel::tokenizer {
namespace {

constexpr size_t alphabet_end = 0x100 + 68;

constexpr std::array<int, alphabet_end> make_bytes() {
  std::array<int, alphabet_end> result{};
  for (int& byte : result) byte = -1;
  for (size_t byte = 0; byte < 256; ++byte) result[byte_alphabet[byte]] = static_cast<int>(byte);
  return result;
}
constexpr std::array<int, alphabet_end> byte_of = make_bytes();

}  // namespace

std::optional<std::string> bytes_of_alphabet(std::string_view token) {
  std::string result;
  for (size_t i = 0; i < token.size();) {
    const uint32_t code_point = next_code_point(token, i);
    if (code_point >= alphabet_end || byte_of[code_point] < 0) return std::nullopt;
    result += static_cast<char>(byte_of[code_point]);
  }
  return result;
}

}  // namespace oriel::tokenizer
