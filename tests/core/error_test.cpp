#include "core/error.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <set>

#include "core/expect_error.hpp"
#include "core/memory_errors.hpp"

namespace oriel {
namespace {

constexpr int64_t largest = std::numeric_limits<int64_t>::max();

TEST(Error, CarriesCodeAndFormattedMessage) {
  expect_error(ErrorCode::malformed_model, "config.json: expected 3, got 4",
               [] { throw_error(ErrorCode::malformed_model, "{}: expected {}, got {}", "config.json", 3, 4); });
}

TEST(Error, IsOneLineWhateverAFileCallsItsTensors) {
  expect_error(ErrorCode::malformed_model, "w?eight?[31m?: missing",
               [] { throw_error(ErrorCode::malformed_model, "{}: missing", "w\neight\x1b[31m\x7f"); });
}

TEST(Error, EveryCodeHasItsOwnName) {
  std::set<std::string_view> names;
  for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
    names.insert(to_string(static_cast<ErrorCode>(code)));
  }
  EXPECT_EQ(names, (std::set<std::string_view>{"invalid_argument", "file_error", "malformed_image", "unsupported_image",
                                               "malformed_model", "unsupported_model", "limit_exceeded", "unavailable",
                                               "cancelled", "out_of_memory", "internal"}));
}

TEST(CheckedArithmetic, GivesProductsAndSumsThatFit) {
  EXPECT_EQ(checked_multiply(largest / 2, 2, "size"), largest - 1);
  EXPECT_EQ(checked_multiply(0, largest, "size"), 0);
  EXPECT_EQ(checked_add(largest - 1, 1, "size"), largest);
}

TEST(CheckedArithmetic, RefusesOverflow) {
  expect_error(ErrorCode::limit_exceeded, "pixels: 4611686018427387904 * 2 does not fit",
               [] { (void)checked_multiply(largest / 2 + 1, 2, "pixels"); });
  expect_error(ErrorCode::limit_exceeded, "pixels: 9223372036854775807 + 1 does not fit",
               [] { (void)checked_add(largest, 1, "pixels"); });
}

TEST(CheckedArithmetic, RefusesNegativeOperandsWithTheCallersCode) {
  expect_error(ErrorCode::malformed_model, "w: -1 * 0 does not fit",
               [] { (void)checked_multiply(-1, 0, "w", ErrorCode::malformed_model); });
  expect_error(ErrorCode::malformed_model, "w: 5 * -1 does not fit",
               [] { (void)checked_multiply(5, -1, "w", ErrorCode::malformed_model); });
  expect_error(ErrorCode::malformed_model, "w: -1 + 2 does not fit",
               [] { (void)checked_add(-1, 2, "w", ErrorCode::malformed_model); });
  expect_error(ErrorCode::malformed_model, "w: 2 + -1 does not fit",
               [] { (void)checked_add(2, -1, "w", ErrorCode::malformed_model); });
}

TEST(Error, MemoryThatRunsOutIsOneToo) {
  EXPECT_EQ(with_memory_errors("text", "it was read", [] { return 3; }), 3);
  const std::string message = "text: memory ran out while it was read";
  expect_error(ErrorCode::out_of_memory, message,
               [] { with_memory_errors("text", "it was read", [] { throw std::bad_alloc(); }); });
  expect_error(ErrorCode::out_of_memory, message, [] {
    with_memory_errors("text", "it was read", [] { std::string().reserve(std::string().max_size() + 1); });
  });
  EXPECT_THROW(with_memory_errors("text", "it was read", [] { throw std::range_error("other"); }), std::range_error);
}

}  // namespace
}  // namespace oriel
