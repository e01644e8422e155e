#pragma once
// A picture file in memory. Every read is checked against its end, and every error names the file.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.hpp"

namespace oriel::image {

using Bytes = std::span<const uint8_t>;

/// Bytes from an untrusted file, with the words that start its error messages. Offsets count from the first byte.
class Encoded {
 public:
  /// `label` is "photo.png: PNG" once the format is known, the file's name before.
  Encoded(Bytes bytes, std::string label) : bytes_(bytes), label_(std::move(label)) {}

  [[nodiscard]] Bytes bytes() const { return bytes_; }
  [[nodiscard]] size_t size() const { return bytes_.size(); }
  [[nodiscard]] const std::string& label() const { return label_; }

  [[nodiscard]] bool has(size_t at, size_t count) const { return at <= size() && count <= size() - at; }
  [[nodiscard]] bool has_text(size_t at, std::string_view text) const {
    if (!has(at, text.size())) return false;
    for (size_t i = 0; i < text.size(); ++i) {
      if (bytes_[at + i] != static_cast<uint8_t>(text[i])) return false;
    }
    return true;
  }

  /// Throws malformed_image unless `count` bytes lie at `at`.
  void require(size_t at, size_t count, std::string_view what) const {
    if (!has(at, count)) {
      malformed("the file ends too early: expected {} in bytes {} to {}, got {} bytes", what, at, at + count, size());
    }
  }
  [[nodiscard]] Bytes slice(size_t at, size_t count, std::string_view what) const {
    require(at, count, what);
    return bytes_.subspan(at, count);
  }

  [[nodiscard]] uint8_t u8(size_t at, std::string_view what) const { return slice(at, 1, what)[0]; }
  [[nodiscard]] uint32_t u16le(size_t at, std::string_view what) const { return little(slice(at, 2, what)); }
  [[nodiscard]] uint32_t u24le(size_t at, std::string_view what) const { return little(slice(at, 3, what)); }
  [[nodiscard]] uint32_t u32le(size_t at, std::string_view what) const { return little(slice(at, 4, what)); }
  [[nodiscard]] uint32_t u16be(size_t at, std::string_view what) const { return big(slice(at, 2, what)); }
  [[nodiscard]] uint32_t u32be(size_t at, std::string_view what) const { return big(slice(at, 4, what)); }

  template <typename... Args>
  [[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) const {
    throw Error(code, label_ + ": " + fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  [[noreturn]] void malformed(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::malformed_image, format, std::forward<Args>(args)...);
  }
  template <typename... Args>
  [[noreturn]] void unsupported(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorCode::unsupported_image, format, std::forward<Args>(args)...);
  }

  /// At most four bytes as one number, the first byte being the lowest or the highest.
  [[nodiscard]] static uint32_t little(Bytes bytes) {
    uint32_t value = 0;
    for (size_t i = bytes.size(); i-- > 0;) value = value << 8 | bytes[i];
    return value;
  }
  [[nodiscard]] static uint32_t big(Bytes bytes) {
    uint32_t value = 0;
    for (const uint8_t byte : bytes) value = value << 8 | byte;
    return value;
  }

 private:
  Bytes bytes_;
  std::string label_;
};

}  // namespace oriel::image
