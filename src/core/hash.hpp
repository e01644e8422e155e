#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <oriel/types.hpp>

namespace oriel {

/// 128-bit XXH3 of bytes that arrive in pieces. Not cryptographic.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  Hasher& update(std::span<const std::byte> bytes);
  Hasher& update(std::string_view text);
  Hasher& update(int64_t value);  ///< eight bytes, little endian
  [[nodiscard]] ContentHash digest() const;

 private:
  void* state_;
};

}  // namespace oriel
