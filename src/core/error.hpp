#pragma once
// How the inside of oriel raises errors and does arithmetic on sizes that came from outside.
#include <fmt/format.h>

#include <cstdint>
#include <string_view>
#include <utility>

#include <oriel/error.hpp>

namespace oriel {

/// Throws Error with a message formatted by fmt: "where: expected ..., got ...".
template <typename... Args>
[[noreturn]] void throw_error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// a * b and a + b for sizes; throws `code` with "<what>: a * b does not fit" on overflow or a negative operand.
[[nodiscard]] int64_t checked_multiply(int64_t a, int64_t b, std::string_view what,
                                       ErrorCode code = ErrorCode::limit_exceeded);
[[nodiscard]] int64_t checked_add(int64_t a, int64_t b, std::string_view what,
                                  ErrorCode code = ErrorCode::limit_exceeded);

}  // namespace oriel
