#pragma once
// One run of a template: what it may still spend, and where it is, for messages.
#include <fmt/format.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.hpp"

namespace oriel::jinja {

/// Makes foreign text fit for a message: one line, not too long, no control characters.
[[nodiscard]] std::string one_line(std::string_view text, size_t limit = 300);

/// A template comes from a file that nobody has looked at: it must end, and build no more than memory holds. Everything
/// that costs time or memory is paid for here, before it is done.
class Run {
 public:
  static constexpr size_t most_steps = 4'000'000;
  static constexpr size_t most_bytes = 256 << 20;  // built or looked through, all together
  static constexpr int deepest = 200;              // expressions, statements and macros inside each other

  explicit Run(std::string name) : name_(std::move(name)) {}

  int line = 1;  ///< of the template, at which it is

  void take_steps(size_t count = 1);
  void take_bytes(size_t count);

  template <typename... Args>
  [[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) const {
    throw_error(code, "{}: line {}: {}", name_, line, one_line(fmt::format(format, std::forward<Args>(args)...)));
  }

  /// Counts one level of nesting for as long as it lives.
  class Level {
   public:
    explicit Level(Run& run);
    ~Level() { --run_.depth_; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

   private:
    Run& run_;
  };

 private:
  std::string name_;
  size_t steps_ = 0;
  size_t bytes_ = 0;
  int depth_ = 0;
};

}  // namespace oriel::jinja
