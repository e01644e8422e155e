#include "core/hash.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <new>

namespace oriel {

Hasher::Hasher() : state_(XXH3_createState()) {
  if (state_ == nullptr) throw std::bad_alloc();
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_));
}

Hasher::~Hasher() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

Hasher& Hasher::update(std::span<const std::byte> bytes) {
  // XXH3 refuses a null pointer, which an empty span may hold.
  if (!bytes.empty()) XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), bytes.data(), bytes.size());
  return *this;
}

Hasher& Hasher::update(std::string_view text) { return update(std::as_bytes(std::span(text.data(), text.size()))); }

Hasher& Hasher::update(int64_t value) {
  std::array<std::byte, 8> bytes{};
  auto rest = static_cast<uint64_t>(value);
  for (std::byte& byte : bytes) {
    byte = static_cast<std::byte>(rest & 0xff);
    rest >>= 8;
  }
  return update(std::span<const std::byte>(bytes));
}

ContentHash Hasher::digest() const {
  const XXH128_hash_t hash = XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_));
  return {hash.high64, hash.low64};
}

}  // namespace oriel
