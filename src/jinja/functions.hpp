#pragma once
// What a template may call: operators, filters, tests, global functions and methods.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "jinja/value.hpp"

namespace oriel::jinja {

/// What a function was called with.
struct Arguments {
  std::vector<Value> values = {};
  std::vector<std::pair<std::string, Value>> keywords = {};

  /// The argument at `index` or of that name, or nullptr.
  [[nodiscard]] const Value* find(size_t index, std::string_view name) const;
};

/// value.name and value[key]; Undefined if there is no such thing.
[[nodiscard]] Value attribute_of(Run& run, const Value& value, std::string_view name);
[[nodiscard]] Value item_of(Run& run, const Value& value, const Value& key);
/// value[begin:end:step], null for what is left out.
[[nodiscard]] Value slice_of(Run& run, const Value& value, const Value* begin, const Value* end, const Value* step);

/// +, -, *, /, // and %.
[[nodiscard]] Value calculate(Run& run, std::string_view sign, const Value& a, const Value& b);
/// ==, !=, <, <=, >, >=, in, not in.
[[nodiscard]] bool compare(Run& run, std::string_view sign, const Value& a, const Value& b);

[[nodiscard]] bool is_global(std::string_view name);
[[nodiscard]] Value call_global(Run& run, std::string_view name, const Arguments& arguments);
[[nodiscard]] Value call_method(Run& run, const Function& method, const Arguments& arguments);
[[nodiscard]] Value apply_filter(Run& run, std::string_view name, const Value& value, const Arguments& arguments);
[[nodiscard]] bool apply_test(Run& run, std::string_view name, const Value& value, const std::vector<Value>& arguments);

/// Whether a text has a method of that name.
[[nodiscard]] bool is_text_method(std::string_view name);
[[nodiscard]] Value call_text_method(Run& run, std::string_view name, const Text& self, const Arguments& arguments);

/// Refuses Undefined, with its name.
void expect_defined(Run& run, const Value& value);
/// The argument as what it has to be.
[[nodiscard]] const Text& expect_text(Run& run, const Value& value, std::string_view what);
[[nodiscard]] int64_t expect_integer(Run& run, const Value& value, std::string_view what);

/// Without whitespace, or the characters of `characters`, at the ends asked for.
[[nodiscard]] Text strip(Run& run, const Text& text, const std::string* characters, bool left, bool right);
[[nodiscard]] Text replace(Run& run, const Text& text, const Text& old, const Text& replacement, int64_t most);
enum class Case { upper, lower, capitalized, title };
/// Throws unsupported_model for letters beyond ASCII.
[[nodiscard]] Text with_case(Run& run, const Text& text, Case wanted);
[[nodiscard]] Text join(Run& run, const std::vector<Value>& items, const Text& between);

}  // namespace oriel::jinja
