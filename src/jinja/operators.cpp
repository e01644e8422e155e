// Attributes, items, slices, arithmetic and comparisons.
#include <algorithm>
#include <array>
#include <cmath>

#include "jinja/functions.hpp"

namespace oriel::jinja {
namespace {

constexpr std::array<std::string_view, 4> dict_methods = {"items", "keys", "values", "get"};
// Methods of Python that transformers' sandbox refuses, or that no template should need.
constexpr std::array<std::string_view, 14> other_methods = {"append", "extend", "insert",     "remove", "pop",
                                                            "clear",  "copy",   "update",     "sort",   "reverse",
                                                            "index",  "count",  "setdefault", "popitem"};

template <size_t N>
bool is_among(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

Value method(const Value& self, std::string_view name) {
  return Value(std::make_shared<const Function>(Function{
      .kind = Function::Kind::method, .name = std::string(name), .self = std::make_shared<const Value>(self)}));
}

Value nothing_named(const Value& value, std::string_view name) {
  return Value(Undefined{fmt::format("{} of a {}", one_line(name, 60), type_name(value))});
}

Value loop_attribute(const Value& value, std::string_view name) {
  const Loop& loop = *value.as<LoopPointer>();
  const std::vector<Value>& items = loop.items->items;
  const auto index = static_cast<int64_t>(loop.index);
  const auto length = static_cast<int64_t>(items.size());
  if (name == "index") return Value(index + 1);
  if (name == "index0") return Value(index);
  if (name == "revindex") return Value(length - index);
  if (name == "revindex0") return Value(length - index - 1);
  if (name == "first") return Value(index == 0);
  if (name == "last") return Value(index == length - 1);
  if (name == "length") return Value(length);
  if (name == "previtem" && index > 0) return items[loop.index - 1];
  if (name == "nextitem" && index < length - 1) return items[loop.index + 1];
  if (name == "cycle") return method(value, name);
  return nothing_named(value, name);
}

bool has_method(Run& run, const Value& value, std::string_view name) {
  if (value.dict() != nullptr && is_among(dict_methods, name)) return true;
  if (value.text() != nullptr && is_text_method(name)) return true;
  const bool container = value.dict() != nullptr || value.list() != nullptr;
  if (container && is_among(other_methods, name))
    run.fail(ErrorCode::unsupported_model, "method {} of a {} is not supported", name, type_name(value));
  return false;
}

/// begin, end and step of a slice of `size` things, as Python resolves them; end may be -1 for steps below 0.
struct Slice {
  int64_t begin, end, step;
};
Slice resolve(Run& run, int64_t size, const Value* begin, const Value* end, const Value* step) {
  const int64_t by = step != nullptr ? expect_integer(run, *step, "step of a slice") : 1;
  if (by == 0) run.fail(ErrorCode::malformed_model, "expected a step of a slice other than 0");
  const int64_t lowest = by > 0 ? 0 : -1;
  const int64_t highest = by > 0 ? size : size - 1;
  const auto bound = [&](const Value* value, int64_t fallback) {
    if (value == nullptr) return fallback;
    const int64_t at = expect_integer(run, *value, "bound of a slice");
    return std::clamp(at < 0 ? std::max(at, -size - 1) + size : at, lowest, highest);
  };
  return {bound(begin, by > 0 ? lowest : highest), bound(end, by > 0 ? highest : lowest), by};
}

template <typename Take>
void walk(const Slice& slice, Take&& take) {
  // The last step could pass the end of 64 bits, so that what is left is compared instead.
  for (int64_t at = slice.begin; slice.step > 0 ? at < slice.end : at > slice.end; at += slice.step) {
    take(static_cast<size_t>(at));
    if (slice.step > 0 ? slice.end - at <= slice.step : slice.end - at >= slice.step) break;
  }
}

/// Whole numbers, checked: Python's have no bounds.
Value calculate_integers(Run& run, char sign, bool twice, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  if (sign == '+') overflow = __builtin_add_overflow(a, b, &result);
  if (sign == '-') overflow = __builtin_sub_overflow(a, b, &result);
  if (sign == '*') overflow = __builtin_mul_overflow(a, b, &result);
  if (sign == '/' || sign == '%') {
    if (b == 0) run.fail(ErrorCode::malformed_model, "division by zero");
    if (sign == '/' && !twice) return Value(static_cast<double>(a) / static_cast<double>(b));
    if (b == -1) {  // a % b has no value in C++ where a / b does not fit
      overflow = sign == '/' && __builtin_sub_overflow(int64_t{0}, a, &result);
    } else {
      const int64_t rest = a % b;
      const bool down = rest != 0 && (rest < 0) != (b < 0);  // Python rounds down
      result = sign == '%' ? rest + (down ? b : 0) : a / b - (down ? 1 : 0);
    }
  }
  if (overflow) run.fail(ErrorCode::limit_exceeded, "expected numbers of 64 bits");
  return Value(result);
}

Value calculate_numbers(Run& run, std::string_view sign, double a, double b) {
  if (sign == "+") return Value(a + b);
  if (sign == "-") return Value(a - b);
  if (sign == "*") return Value(a * b);
  if (b == 0) run.fail(ErrorCode::malformed_model, "division by zero");
  if (sign == "/") return Value(a / b);
  if (sign == "//") return Value(std::floor(a / b));
  const double rest = std::fmod(a, b);
  return Value(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

Value repeat(Run& run, const Text& text, int64_t count) {
  const size_t times = count > 0 && !text.empty() ? static_cast<size_t>(count) : 0;
  if (times > Run::most_bytes) run.take_bytes(times);
  run.take_bytes(times * text.cost());
  Text repeated;
  for (size_t i = 0; i < times; ++i) repeated.append(text);
  return Value(std::move(repeated));
}

}  // namespace

void expect_defined(Run& run, const Value& value) {
  if (value.is_undefined()) run.fail(ErrorCode::malformed_model, "{} is undefined", value.as<Undefined>().what);
}

const Text& expect_text(Run& run, const Value& value, std::string_view what) {
  if (value.text() == nullptr)
    run.fail(ErrorCode::malformed_model, "{}: expected a str, got {}", what, type_name(value));
  return *value.text();
}

int64_t expect_integer(Run& run, const Value& value, std::string_view what) {
  if (!value.is_integer()) run.fail(ErrorCode::malformed_model, "{}: expected an int, got {}", what, type_name(value));
  return value.integer();
}

Value attribute_of(Run& run, const Value& value, std::string_view name) {
  expect_defined(run, value);
  if (value.is<LoopPointer>()) return loop_attribute(value, name);
  if (value.is<NamespacePointer>()) {
    const auto& values = value.as<NamespacePointer>()->values;
    const auto found = values.find(name);
    return found == values.end() ? nothing_named(value, name) : found->second;
  }
  if (has_method(run, value, name)) return method(value, name);
  if (const Dict* dict = value.dict())
    if (const Value* found = find(run, *dict, name)) return *found;
  return nothing_named(value, name);
}

Value item_of(Run& run, const Value& value, const Value& key) {
  expect_defined(run, value);
  if (const Text* name = key.text()) {
    if (const Dict* dict = value.dict())
      if (const Value* found = find(run, *dict, name->bytes())) return *found;
    return attribute_of(run, value, name->bytes());
  }
  if (!key.is_integer() || (value.list() == nullptr && value.text() == nullptr))
    return Value(Undefined{fmt::format("an item of a {}", type_name(value))});
  if (const Text* text = value.text()) run.take_bytes(text->size());
  const auto size = static_cast<int64_t>(value.list() != nullptr ? value.list()->items.size()
                                                                 : count_characters(value.text()->bytes()));
  const int64_t index = key.integer() < 0 ? std::max(key.integer(), -size - 1) + size : key.integer();
  if (index < 0 || index >= size)
    return Value(Undefined{fmt::format("item {} of a {} of {}", key.integer(), type_name(value), size)});
  if (const List* list = value.list()) return list->items[static_cast<size_t>(index)];
  const Text& text = *value.text();
  const size_t begin = byte_of_character(text.bytes(), static_cast<size_t>(index));
  return Value(text.slice(begin, begin + character_size(text.bytes(), begin)));
}

Value slice_of(Run& run, const Value& value, const Value* begin, const Value* end, const Value* step) {
  expect_defined(run, value);
  if (const Text* text = value.text()) {
    run.take_bytes(text->cost());
    const std::string& bytes = text->bytes();
    const Slice slice = resolve(run, static_cast<int64_t>(count_characters(bytes)), begin, end, step);
    if (slice.step == 1) {
      const size_t first = byte_of_character(bytes, static_cast<size_t>(slice.begin));
      const size_t last = byte_of_character(bytes, static_cast<size_t>(std::max(slice.begin, slice.end)));
      return Value(text->slice(first, last));
    }
    const ListPointer characters = items_of(run, value);
    Text result;
    walk(slice, [&](size_t i) { result.append(*characters->items[i].text()); });
    return Value(std::move(result));
  }
  if (const List* list = value.list()) {
    std::vector<Value> items;
    walk(resolve(run, static_cast<int64_t>(list->items.size()), begin, end, step),
         [&](size_t i) { items.push_back(list->items[i]); });
    return make_list(run, std::move(items), list->tuple);
  }
  run.fail(ErrorCode::malformed_model, "a {} can't be sliced", type_name(value));
}

Value calculate(Run& run, std::string_view sign, const Value& a, const Value& b) {
  expect_defined(run, a);
  expect_defined(run, b);
  if (a.is_integer() && b.is_integer())
    return calculate_integers(run, sign[0], sign.size() == 2, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return calculate_numbers(run, sign, a.number(), b.number());
  if (sign == "+" && a.text() != nullptr && b.text() != nullptr) {
    Text sum = to_text(run, a);
    sum.append(to_text(run, b));
    return Value(std::move(sum));
  }
  if (sign == "+" && a.list() != nullptr && b.list() != nullptr && a.list()->tuple == b.list()->tuple) {
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return make_list(run, std::move(items), a.list()->tuple);
  }
  if (sign == "*" && a.text() != nullptr && b.is_integer()) return repeat(run, *a.text(), b.integer());
  if (sign == "*" && a.is_integer() && b.text() != nullptr) return repeat(run, *b.text(), a.integer());
  if (sign == "%" && a.text() != nullptr) run.fail(ErrorCode::unsupported_model, "the % of texts is not supported");
  run.fail(ErrorCode::malformed_model, "expected numbers, strs or lists around {}, got {} and {}", sign, type_name(a),
           type_name(b));
}

bool compare(Run& run, std::string_view sign, const Value& a, const Value& b) {
  if (sign == "==") return equal(run, a, b);
  if (sign == "!=") return !equal(run, a, b);
  if (sign == "in") return contains(run, b, a);
  if (sign == "not in") return !contains(run, b, a);
  expect_defined(run, a);
  expect_defined(run, b);
  const auto holds = [&](const auto& left, const auto& right) {
    if (sign == "<") return left < right;
    if (sign == "<=") return left <= right;
    return sign == ">" ? left > right : left >= right;
  };
  if (a.is_integer() && b.is_integer()) return holds(a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return holds(a.number(), b.number());
  if (a.text() != nullptr && b.text() != nullptr) {
    run.take_bytes(std::min(a.text()->size(), b.text()->size()));
    return holds(a.text()->bytes(), b.text()->bytes());
  }
  run.fail(ErrorCode::malformed_model, "expected two numbers or two strs around {}, got {} and {}", sign, type_name(a),
           type_name(b));
}

}  // namespace oriel::jinja
