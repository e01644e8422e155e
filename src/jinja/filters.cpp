// Filters and tests.
#include <algorithm>
#include <array>
#include <charconv>

#include "jinja/functions.hpp"

namespace oriel::jinja {
namespace {

using FilterFunction = Value (*)(Run&, const Value&, const Arguments&);

struct Filter {
  std::string_view name;
  FilterFunction apply;
};

/// The text of an argument, or `fallback`.
Text text_argument(Run& run, const Arguments& arguments, size_t index, std::string_view name,
                   std::string_view fallback) {
  const Value* value = arguments.find(index, name);
  return value != nullptr ? to_text(run, *value) : Text(std::string(fallback));
}

Value trim(Run& run, const Value& value, const Arguments& arguments) {
  const Text text = to_text(run, value);
  const Value* characters = arguments.find(0, "chars");
  const bool given = characters != nullptr && !characters->is<None>();
  return Value(strip(run, text, given ? &expect_text(run, *characters, "trim").bytes() : nullptr, true, true));
}

Value length(Run& run, const Value& value, const Arguments&) {
  if (value.is_undefined()) return Value(int64_t{0});
  if (const List* list = value.list()) return Value(static_cast<int64_t>(list->items.size()));
  if (const Dict* dict = value.dict()) return Value(static_cast<int64_t>(dict->entries.size()));
  const Text& text = expect_text(run, value, "length");
  run.take_bytes(text.size());
  return Value(static_cast<int64_t>(count_characters(text.bytes())));
}

Value tojson(Run& run, const Value& value, const Arguments& arguments) {
  constexpr int64_t widest = 32;
  expect_defined(run, value);
  for (const auto& [name, argument] : arguments.keywords)
    if (name != "indent" && !(name == "ensure_ascii" && !truthy(argument)))
      run.fail(ErrorCode::unsupported_model, "tojson with {} is not supported", name);
  const Value* indent = arguments.find(1, "indent");
  if (indent == nullptr || indent->is<None>()) return Value(to_json(run, value, -1));
  const int64_t width = expect_integer(run, *indent, "tojson");
  if (width < 0 || width > widest)
    run.fail(ErrorCode::unsupported_model, "tojson: expected an indent of 0 to {}, got {}", widest, width);
  return Value(to_json(run, value, width));
}

/// Items, or their `attribute`, which may be a path such as "function.name".
std::vector<Value> items_or_attributes(Run& run, const Value& value, const Value* attribute) {
  const ListPointer items = items_of(run, value);
  run.take_steps(items->items.size());
  if (attribute == nullptr || attribute->is<None>()) return items->items;
  std::vector<Value> found;
  const std::string path = to_text(run, *attribute).bytes();
  if (path.find('.') != std::string::npos)
    run.fail(ErrorCode::unsupported_model, "attributes of attributes are not supported, got {}", path);
  for (const Value& item : items->items) found.push_back(item_of(run, item, *attribute));
  return found;
}

Value join_filter(Run& run, const Value& value, const Arguments& arguments) {
  const Text between = text_argument(run, arguments, 0, "d", "");
  return Value(join(run, items_or_attributes(run, value, arguments.find(1, "attribute")), between));
}

template <Case wanted>
Value change_case(Run& run, const Value& value, const Arguments&) {
  return Value(with_case(run, to_text(run, value), wanted));
}

Value replace_filter(Run& run, const Value& value, const Arguments& arguments) {
  const Value* count = arguments.find(2, "count");
  const bool all = count == nullptr || count->is<None>();
  return Value(replace(run, to_text(run, value), text_argument(run, arguments, 0, "old", ""),
                       text_argument(run, arguments, 1, "new", ""), all ? -1 : expect_integer(run, *count, "replace")));
}

Value fall_back(Run&, const Value& value, const Arguments& arguments) {
  const Value* fallback = arguments.find(0, "default_value");
  const Value* boolean = arguments.find(1, "boolean");
  const bool missing = value.is_undefined() || (boolean != nullptr && truthy(*boolean) && !truthy(value));
  if (!missing) return value;
  return fallback != nullptr ? *fallback : Value(Text());
}

template <bool last>
Value end_item(Run& run, const Value& value, const Arguments&) {
  const ListPointer items = items_of(run, value);
  if (items->items.empty()) return Value(Undefined{last ? "the last item of nothing" : "the first item of nothing"});
  return last ? items->items.back() : items->items.front();
}

Value as_list(Run& run, const Value& value, const Arguments&) { return make_list(run, items_of(run, value)->items); }

Value as_text(Run& run, const Value& value, const Arguments&) { return Value(to_text(run, value)); }

Value as_integer(Run& run, const Value& value, const Arguments& arguments) {
  const Value* fallback = arguments.find(0, "default");
  if (value.is_integer()) return Value(value.integer());
  if (value.is<double>()) {
    if (!(value.number() > -9e18 && value.number() < 9e18))
      run.fail(ErrorCode::limit_exceeded, "expected numbers of 64 bits");
    return Value(static_cast<int64_t>(value.number()));
  }
  int64_t number = 0;
  if (const Text* text = value.text()) {
    const std::string digits = strip(run, *text, nullptr, true, true).bytes();
    const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (status == std::errc() && end == digits.data() + digits.size()) return Value(number);
    if (digits.find_first_not_of("0123456789+-_. \teE") == std::string::npos && !digits.empty())
      run.fail(ErrorCode::unsupported_model, "int: expected plain digits, got \"{}\"", digits);
  }
  return fallback != nullptr ? *fallback : Value(int64_t{0});
}

Value pairs(Run& run, const Value& value, const Arguments& arguments) {
  if (value.is_undefined()) return make_list(run, {});
  if (value.dict() == nullptr) run.fail(ErrorCode::malformed_model, "items: expected a dict, got {}", type_name(value));
  return call_method(
      run, Function{.kind = Function::Kind::method, .name = "items", .self = std::make_shared<const Value>(value)},
      arguments);
}

Value reversed(Run& run, const Value& value, const Arguments&) {
  if (value.text() != nullptr) {
    const Value step(int64_t{-1});
    return slice_of(run, value, nullptr, nullptr, &step);
  }
  std::vector<Value> items = items_of(run, value)->items;
  std::ranges::reverse(items);
  return make_list(run, std::move(items));
}

/// select, reject, selectattr and rejectattr: those items that pass a test, or do not.
template <bool wanted, bool by_attribute>
Value choose(Run& run, const Value& value, const Arguments& arguments) {
  size_t used = 0;
  if (by_attribute && arguments.values.empty())
    run.fail(ErrorCode::malformed_model, "selectattr: expected an attribute, got none");
  const std::vector<Value> tested = items_or_attributes(run, value, by_attribute ? &arguments.values[used++] : nullptr);
  const bool has_test = used < arguments.values.size();
  const std::string test = has_test ? expect_text(run, arguments.values[used++], "select").bytes() : std::string();
  const std::vector<Value> rest(arguments.values.begin() + static_cast<ptrdiff_t>(used), arguments.values.end());
  const ListPointer items = items_of(run, value);
  std::vector<Value> chosen;
  for (size_t i = 0; i < tested.size(); ++i)
    if ((has_test ? apply_test(run, test, tested[i], rest) : truthy(tested[i])) == wanted)
      chosen.push_back(items->items[i]);
  return make_list(run, std::move(chosen));
}

Value map_filter(Run& run, const Value& value, const Arguments& arguments) {
  if (const Value* attribute = arguments.find(arguments.values.size(), "attribute")) {
    std::vector<Value> found = items_or_attributes(run, value, attribute);
    const Value* fallback = arguments.find(arguments.values.size(), "default");
    for (Value& item : found)
      if (fallback != nullptr && item.is_undefined()) item = *fallback;
    return make_list(run, std::move(found));
  }
  if (arguments.values.empty()) run.fail(ErrorCode::malformed_model, "map: expected a filter, got none");
  const std::string name = expect_text(run, arguments.values[0], "map").bytes();
  if (name == "map") run.fail(ErrorCode::unsupported_model, "map of map is not supported");
  const Arguments rest{.values = {arguments.values.begin() + 1, arguments.values.end()},
                       .keywords = arguments.keywords};
  std::vector<Value> changed;
  for (const Value& item : items_of(run, value)->items) {
    run.take_steps();
    changed.push_back(apply_filter(run, name, item, rest));
  }
  return make_list(run, std::move(changed));
}

constexpr std::array<Filter, 25> filters = {{
    {"capitalize", change_case<Case::capitalized>},
    {"count", length},
    {"d", fall_back},
    {"default", fall_back},
    {"first", end_item<false>},
    {"int", as_integer},
    {"items", pairs},
    {"join", join_filter},
    {"last", end_item<true>},
    {"length", length},
    {"list", as_list},
    {"lower", change_case<Case::lower>},
    {"map", map_filter},
    {"reject", choose<false, false>},
    {"rejectattr", choose<false, true>},
    {"replace", replace_filter},
    {"reverse", reversed},
    {"safe", as_text},
    {"select", choose<true, false>},
    {"selectattr", choose<true, true>},
    {"string", as_text},
    {"title", change_case<Case::title>},
    {"tojson", tojson},
    {"trim", trim},
    {"upper", change_case<Case::upper>},
}};

bool is_kind(Run& run, std::string_view name, const Value& value) {
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is<None>();
  if (name == "string") return value.text() != nullptr;
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "sequence") return value.text() != nullptr || value.list() != nullptr || value.dict() != nullptr;
  if (name == "iterable")
    return value.text() != nullptr || value.list() != nullptr || value.dict() != nullptr || value.is_undefined();
  if (name == "boolean") return value.is<bool>();
  if (name == "true") return value.is<bool>() && value.as<bool>();
  if (name == "false") return value.is<bool>() && !value.as<bool>();
  if (name == "integer") return value.is<int64_t>();
  if (name == "float") return value.is<double>();
  if (name == "number") return value.is_number();
  if (name == "callable") return value.is<FunctionPointer>();
  if (name == "odd") return expect_integer(run, value, "odd") % 2 != 0;
  if (name == "even") return expect_integer(run, value, "even") % 2 == 0;
  run.fail(ErrorCode::unsupported_model, "test {} is not supported", name);
}

}  // namespace

Value apply_filter(Run& run, std::string_view name, const Value& value, const Arguments& arguments) {
  const auto found = std::ranges::find(filters, name, &Filter::name);
  if (found == filters.end()) run.fail(ErrorCode::unsupported_model, "filter {} is not supported", name);
  return found->apply(run, value, arguments);
}

bool apply_test(Run& run, std::string_view name, const Value& value, const std::vector<Value>& arguments) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 17> comparisons = {{{"==", "=="},
                                                                                          {"eq", "=="},
                                                                                          {"equalto", "=="},
                                                                                          {"!=", "!="},
                                                                                          {"ne", "!="},
                                                                                          {"<", "<"},
                                                                                          {"lt", "<"},
                                                                                          {"lessthan", "<"},
                                                                                          {"<=", "<="},
                                                                                          {"le", "<="},
                                                                                          {">", ">"},
                                                                                          {"gt", ">"},
                                                                                          {"greaterthan", ">"},
                                                                                          {">=", ">="},
                                                                                          {"ge", ">="},
                                                                                          {"in", "in"},
                                                                                          {"divisibleby", "%"}}};
  const auto found = std::ranges::find(comparisons, name, &std::pair<std::string_view, std::string_view>::first);
  const size_t wanted = found != comparisons.end() ? 1 : 0;
  if (arguments.size() != wanted)
    run.fail(ErrorCode::malformed_model, "test {}: expected {} arguments, got {}", name, wanted, arguments.size());
  if (wanted == 0) return is_kind(run, name, value);
  if (found->second == "%") return !truthy(calculate(run, "%", value, arguments[0]));
  return compare(run, found->second, value, arguments[0]);
}

}  // namespace oriel::jinja
