#pragma once
// ByteLevel's alphabet: a printable character for each byte, as GPT-2 chose them.
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tokenizer/unicode.hpp"

namespace oriel::tokenizer {

/// The character that stands for each byte: itself if it is printable in Latin-1, else one from U+0100 on.
[[nodiscard]] constexpr std::array<uint32_t, 256> make_byte_alphabet() {
  std::array<uint32_t, 256> result{};
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    result[byte] = printable ? byte : next++;
  }
  return result;
}
inline constexpr std::array<uint32_t, 256> byte_alphabet = make_byte_alphabet();

/// The bytes that `token` stands for; nothing if a character is not of the alphabet.
[[nodiscard]] std::optional<std::string> bytes_of_alphabet(std::string_view token);

}  // namespace oriel::tokenizer
