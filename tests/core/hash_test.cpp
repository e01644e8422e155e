#include "core/hash.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace oriel {
namespace {

std::string hash_of(std::string_view text) { return Hasher().update(text).digest().to_string(); }

TEST(Hasher, EqualsThePublishedXxh3) {
  // XXH3_128bits of no bytes with seed 0, as in xxHash's own sanity checks; the second from its one-shot function.
  EXPECT_EQ(Hasher().digest().to_string(), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(hash_of("oriel"), "373f499c35f0154033a7da232004ba0d");
}

TEST(Hasher, PiecesMakeNoDifference) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(i * 31 % 251);
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{239}, size_t{240}, size_t{241}, size_t{4999}, text.size()}) {
    const std::string_view whole = text;
    EXPECT_EQ(Hasher().update(whole.substr(0, cut)).update(whole.substr(cut)).digest(),
              Hasher().update(whole).digest());
  }
}

TEST(Hasher, IntegersAreEightLittleEndianBytes) {
  constexpr std::array<char, 8> bytes{'\x08', '\x07', '\x06', '\x05', '\x04', '\x03', '\x02', '\x01'};
  EXPECT_EQ(Hasher().update(int64_t{0x0102030405060708}).digest(),
            Hasher().update(std::string_view(bytes.data(), bytes.size())).digest());
  EXPECT_NE(Hasher().update(int64_t{1}).digest(), Hasher().update(int64_t{-1}).digest());
}

TEST(Hasher, DigestCanBeTakenAlongTheWay) {
  Hasher hasher;
  hasher.update("first");
  const ContentHash first = hasher.digest();
  EXPECT_EQ(first, hasher.digest());
  EXPECT_NE(hasher.update("second").digest(), first);
}

}  // namespace
}  // namespace oriel
