// Global functions and the methods of dicts and loops.
#include "jinja/functions.hpp"

#include <algorithm>
#include <array>
#include <ctime>

#include "core/json.hpp"

namespace oriel::jinja {
namespace {

constexpr std::array<std::string_view, 5> globals = {"range", "namespace", "dict", "raise_exception", "strftime_now"};

Value make_range(Run& run, const Arguments& arguments) {
  if (arguments.values.empty() || arguments.values.size() > 3 || !arguments.keywords.empty())
    run.fail(ErrorCode::malformed_model, "range: expected 1 to 3 numbers, got {}", arguments.values.size());
  std::vector<int64_t> numbers;
  for (const Value& value : arguments.values) numbers.push_back(expect_integer(run, value, "range"));
  const int64_t begin = numbers.size() > 1 ? numbers[0] : 0;
  const int64_t end = numbers.size() > 1 ? numbers[1] : numbers[0];
  const int64_t step = numbers.size() > 2 ? numbers[2] : 1;
  if (step == 0) run.fail(ErrorCode::malformed_model, "range: expected a step other than 0");
  std::vector<Value> items;
  // Counted as it grows, so that an enormous range ends at the limit and not at the end of memory.
  for (int64_t at = begin; step > 0 ? at < end : at > end;) {
    run.take_bytes(sizeof(Value));
    items.emplace_back(at);
    if (__builtin_add_overflow(at, step, &at)) break;
  }
  return make_list(run, std::move(items));
}

Value make_namespace(const Arguments& arguments, Run& run) {
  auto space = std::make_shared<Namespace>();
  for (const auto& [name, value] : arguments.keywords) {
    if (value.is<NamespacePointer>() || value.is<LoopPointer>() || value.is<FunctionPointer>())
      run.fail(ErrorCode::unsupported_model, "a {} inside another value is not supported", type_name(value));
    space->values[name] = value;
  }
  return Value(NamespacePointer(std::move(space)));
}

/// The local time, as Python's datetime.now().strftime writes it in the C locale.
Value strftime_now(Run& run, const Text& format) {
  constexpr size_t longest_format = 200;
  if (format.size() > longest_format)
    run.fail(ErrorCode::limit_exceeded, "strftime_now: expected a format of at most {} bytes, got {}", longest_format,
             format.size());
  if (format.empty()) return Value(Text());
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  localtime_r(&now, &local);
  std::array<char, 8192> buffer = {};
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.bytes().c_str(), &local);
  std::string text(buffer.data(), size);
  if (!is_utf8(text)) run.fail(ErrorCode::unsupported_model, "strftime_now: expected a date in UTF-8");
  return make_text(run, std::move(text), format.any_foreign());
}

}  // namespace

const Value* Arguments::find(size_t index, std::string_view name) const {
  if (index < values.size()) return &values[index];
  const auto found = std::ranges::find(keywords, name, &std::pair<std::string, Value>::first);
  return found == keywords.end() ? nullptr : &found->second;
}

bool is_global(std::string_view name) { return std::ranges::find(globals, name) != globals.end(); }

Value call_global(Run& run, std::string_view name, const Arguments& arguments) {
  if (name == "range") return make_range(run, arguments);
  if (name == "namespace") return make_namespace(arguments, run);
  if (name == "dict") return make_dict(run, arguments.keywords);
  const Value* argument = arguments.find(0, name == "strftime_now" ? "format" : "message");
  if (argument == nullptr) run.fail(ErrorCode::malformed_model, "{}: expected an argument, got none", name);
  if (name == "strftime_now") return strftime_now(run, expect_text(run, *argument, name));
  run.fail(ErrorCode::invalid_argument, "the template refuses the messages: {}", to_text(run, *argument).bytes());
}

Value call_method(Run& run, const Function& method, const Arguments& arguments) {
  const Value& self = *method.self;
  if (const Text* text = self.text()) return call_text_method(run, method.name, *text, arguments);
  if (method.name == "cycle") {
    if (arguments.values.empty()) run.fail(ErrorCode::malformed_model, "cycle: expected arguments, got none");
    return arguments.values[self.as<LoopPointer>()->index % arguments.values.size()];
  }
  const Dict& dict = *self.dict();
  if (method.name == "get") {
    const Value* key = arguments.find(0, "key");
    if (key == nullptr) run.fail(ErrorCode::malformed_model, "get: expected a key, got none");
    const Value* found = key->text() != nullptr ? find(run, dict, key->text()->bytes()) : nullptr;
    const Value* fallback = arguments.find(1, "default");
    return found != nullptr ? *found : fallback != nullptr ? *fallback : Value(None{});
  }
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    if (method.name == "keys")
      items.push_back(make_text(run, key, dict.foreign_keys));
    else if (method.name == "values")
      items.push_back(value);
    else
      items.push_back(make_list(run, {make_text(run, key, dict.foreign_keys), value}, /*tuple=*/true));
  }
  return make_list(run, std::move(items));
}

}  // namespace oriel::jinja
