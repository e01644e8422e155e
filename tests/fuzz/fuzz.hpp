#pragma once
// What the fuzz targets share. A target is one LLVMFuzzerTestOneInput, linked with libFuzzer by Clang
// (ORIEL_BUILD_FUZZERS) and with replay.cpp in every other build. Both hand over the input in an allocation of exactly
// its size, so that AddressSanitizer sees a read one byte too far; parts of an input need an allocation of their own.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

#include "oriel/error.hpp"

extern "C" {
// Declared here, so that each target is held to the signatures that libFuzzer expects.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
}

namespace oriel::fuzz {

using Bytes = std::span<const uint8_t>;

/// Ends the process as a crash does: libFuzzer keeps the input, a replay fails.
[[noreturn]] inline void report(std::string_view finding) {
  std::fprintf(stderr, "FINDING: %.*s\n", static_cast<int>(finding.size()), finding.data());
  std::fflush(stderr);
  std::abort();
}

/// States what holds for every input.
inline void require(bool holds, std::string_view promise) {
  if (!holds) report(promise);
}

/// An Error is a right answer to bad input, unless its code says that it is oriel's own defect or its message is not
/// the one readable line that oriel/error.hpp promises.
inline void check_error(const Error& error) {
  const std::string_view message = error.what();
  if (error.code() == ErrorCode::internal) report(std::string("code internal: ") + error.what());
  const bool is_line = std::ranges::all_of(message, [](char c) { return static_cast<unsigned char>(c) >= 0x20; });
  if (!is_line || message.empty()) report(std::string("a message is not one readable line: ") + error.what());
}

/// Runs `function`; false if it threw an Error. Any other exception ends the process.
template <typename Function>
bool succeeds(Function&& function) {
  try {
    function();
    return true;
  } catch (const Error& error) {
    check_error(error);
    return false;
  }
}

/// Takes numbers off the front of an input; zeros once it is used up.
class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}

  [[nodiscard]] uint8_t u8() {
    if (bytes_.empty()) return 0;
    const uint8_t byte = bytes_.front();
    bytes_ = bytes_.subspan(1);
    return byte;
  }
  [[nodiscard]] uint32_t u16() {
    const uint32_t low = u8();
    return low | static_cast<uint32_t>(u8()) << 8;
  }
  /// A number of [low, high], from two bytes.
  [[nodiscard]] int64_t in(int64_t low, int64_t high) { return low + u16() % (high - low + 1); }
  [[nodiscard]] Bytes rest() const { return bytes_; }

 private:
  Bytes bytes_;
};

inline std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

}  // namespace oriel::fuzz
