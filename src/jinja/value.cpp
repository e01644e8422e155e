#include "jinja/value.hpp"

#include <algorithm>
#include <cmath>
#include <unordered_set>

namespace oriel::jinja {
namespace {

constexpr int deepest_value = 50;

int depth_of(const Value& value) {
  if (const List* list = value.list()) return list->depth;
  if (const Dict* dict = value.dict()) return dict->depth;
  return 0;
}

int depth_around(Run& run, const Value& item, int depth) {
  if (item.is<NamespacePointer>() || item.is<LoopPointer>() || item.is<FunctionPointer>())
    run.fail(ErrorCode::unsupported_model, "a {} inside another value is not supported", type_name(item));
  if (depth_of(item) >= deepest_value)
    run.fail(ErrorCode::limit_exceeded, "expected at most {} lists and dicts inside each other", deepest_value);
  return std::max(depth, depth_of(item) + 1);
}

bool equal_lists(Run& run, const List& a, const List& b) {
  if (a.items.size() != b.items.size() || a.tuple != b.tuple) return false;
  for (size_t i = 0; i < a.items.size(); ++i)
    if (!equal(run, a.items[i], b.items[i])) return false;
  return true;
}

bool equal_dicts(Run& run, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  return std::ranges::all_of(a.entries, [&](const auto& entry) {
    const Value* other = find(run, b, entry.first);
    return other != nullptr && equal(run, entry.second, *other);
  });
}

/// Python's repr of a float.
std::string number_text(double number) {
  if (!std::isfinite(number)) return std::isnan(number) ? "nan" : number < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", number);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

/// Python's repr of a text: single quotes unless it holds only single ones.
std::string quoted(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (c == quote || c == '\\')
      (out += '\\') += c;
    else if (c == '\n' || c == '\r' || c == '\t')
      out += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
    else if (code < 0x20 || code == 0x7F)
      out += fmt::format("\\x{:02x}", code);
    else
      out += c;
  }
  return out + quote;
}

/// Python's json.dumps of a text with ensure_ascii=False.
std::string json_quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    constexpr std::string_view named = "\b\f\n\r\t\"\\";
    if (const size_t at = named.find(c); at != std::string_view::npos)
      (out += '\\') += "bfnrt\"\\"[at];
    else if (code < 0x20)
      out += fmt::format("\\u{:04x}", code);
    else
      out += c;
  }
  return out + '"';
}

/// Writes a value as Python's repr or as JSON. All of the result is foreign if any part of it is: escapes leave no
/// bytes to map.
class Writer {
 public:
  Writer(Run& run, bool json, int64_t indent) : run_(run), json_(json), indent_(indent) {}

  void write(const Value& value) {
    run_.take_steps();
    if (const Text* text = value.text()) {
      foreign_ = foreign_ || text->any_foreign();
      add(json_ ? json_quoted(text->bytes()) : quoted(text->bytes()));
    } else if (const List* list = value.list()) {
      const char* brackets = list->tuple && !json_ ? "()" : "[]";
      write_items(brackets, list->items.size(), [&](size_t i) { write(list->items[i]); });
    } else if (const Dict* dict = value.dict()) {
      foreign_ = foreign_ || (dict->foreign_keys && !dict->entries.empty());
      write_items("{}", dict->entries.size(), [&](size_t i) {
        add(json_ ? json_quoted(dict->entries[i].first) : quoted(dict->entries[i].first));
        add(": ");
        write(dict->entries[i].second);
      });
    } else {
      write_simple(value);
    }
  }

  Text take() { return Text(std::move(out_), foreign_); }

 private:
  void add(std::string_view piece) {
    run_.take_bytes(piece.size());
    out_ += piece;
  }

  void break_line() {
    add("\n");
    for (int64_t i = 0; i < indent_ * level_; ++i) add(" ");
  }

  template <typename WriteItem>
  void write_items(const char* brackets, size_t count, WriteItem&& write_item) {
    add({brackets, 1});
    ++level_;
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) add(indent_ < 0 ? ", " : ",");
      if (indent_ >= 0) break_line();
      write_item(i);
    }
    --level_;
    if (indent_ >= 0 && count > 0) break_line();
    if (brackets[0] == '(' && count == 1) add(",");
    add({brackets + 1, 1});
  }

  void write_simple(const Value& value) {
    if (value.is<bool>())
      add(value.as<bool>() ? (json_ ? "true" : "True") : (json_ ? "false" : "False"));
    else if (value.is<int64_t>())
      add(fmt::format("{}", value.as<int64_t>()));
    else if (value.is<double>())
      add(number_text(value.as<double>()));
    else if (value.is<None>())
      add(json_ ? "null" : "None");
    else
      run_.fail(ErrorCode::malformed_model, "a {} can't be written as text", type_name(value));
  }

  Run& run_;
  bool json_;
  int64_t indent_;
  int level_ = 0;
  bool foreign_ = false;
  std::string out_;
};

}  // namespace

Value make_list(Run& run, std::vector<Value> items, bool tuple) {
  run.take_bytes((items.size() + 1) * sizeof(Value));
  int depth = 1;
  for (const Value& item : items) depth = depth_around(run, item, depth);
  return Value(std::make_shared<const List>(List{std::move(items), tuple, depth}));
}

Value make_dict(Run& run, std::vector<std::pair<std::string, Value>> entries, bool foreign_keys) {
  run.take_bytes((entries.size() + 1) * sizeof(entries[0]));
  int depth = 1;
  for (const auto& [key, value] : entries) depth = depth_around(run, value, depth);
  std::map<std::string_view, size_t> places;
  Dict dict{.entries = {}, .depth = depth, .foreign_keys = foreign_keys};
  dict.entries.reserve(entries.size());  // keys stay where they are: `places` looks at them
  for (auto& [key, value] : entries) {
    const auto [place, is_new] = places.try_emplace(key, dict.entries.size());
    if (!is_new) {
      dict.entries[place->second].second = std::move(value);
      continue;
    }
    places.erase(place);
    dict.entries.emplace_back(std::move(key), std::move(value));
    places.emplace(dict.entries.back().first, dict.entries.size() - 1);
  }
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

Value make_text(Run& run, std::string bytes, bool foreign) {
  run.take_bytes(bytes.size());
  return Value(Text(std::move(bytes), foreign));
}

std::string_view type_name(const Value& value) {
  constexpr std::string_view names[] = {"undefined", "None", "bool",      "int",  "float",   "str",
                                        "list",      "dict", "namespace", "loop", "function"};
  static_assert(std::size(names) == std::variant_size_v<Value::Data>);
  return names[value.data().index()];
}

bool truthy(const Value& value) {
  if (value.is_number()) return value.number() != 0;
  if (const Text* text = value.text()) return !text->empty();
  if (const List* list = value.list()) return !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->entries.empty();
  return !value.is_undefined() && !value.is<None>();
}

bool equal(Run& run, const Value& a, const Value& b) {
  run.take_steps();
  if (a.is_integer() && b.is_integer()) return a.integer() == b.integer();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.data().index() != b.data().index()) return false;
  if (const Text* text = a.text()) {
    if (text->size() == b.text()->size()) run.take_bytes(text->size());
    return text->bytes() == b.text()->bytes();
  }
  if (const List* list = a.list()) return equal_lists(run, *list, *b.list());
  if (const Dict* dict = a.dict()) return equal_dicts(run, *dict, *b.dict());
  if (a.is<NamespacePointer>()) return a.as<NamespacePointer>() == b.as<NamespacePointer>();
  if (a.is<FunctionPointer>()) return a.as<FunctionPointer>() == b.as<FunctionPointer>();
  if (a.is<LoopPointer>()) return a.as<LoopPointer>() == b.as<LoopPointer>();
  return true;  // both None, or both undefined
}

const Value* find(Run& run, const Dict& dict, std::string_view key) {
  run.take_steps(1 + dict.entries.size() / 16);
  for (const auto& [name, value] : dict.entries) {
    if (name.size() != key.size()) continue;
    run.take_bytes(key.size());
    if (name == key) return &value;
  }
  return nullptr;
}

bool contains(Run& run, const Value& haystack, const Value& needle) {
  if (const Text* text = haystack.text()) {
    if (needle.text() == nullptr)
      run.fail(ErrorCode::malformed_model, "'in <str>' expects a str on its left, got {}", type_name(needle));
    return find_text(run, text->bytes(), needle.text()->bytes(), 0) != std::string::npos;
  }
  if (const List* list = haystack.list())
    return std::ranges::any_of(list->items, [&](const Value& item) { return equal(run, item, needle); });
  if (const Dict* dict = haystack.dict())
    return needle.text() != nullptr && find(run, *dict, needle.text()->bytes()) != nullptr;
  if (haystack.is_undefined()) return false;
  run.fail(ErrorCode::malformed_model, "'in' expects a str, list or dict on its right, got {}", type_name(haystack));
}

size_t find_text(Run& run, std::string_view text, std::string_view needle, size_t from) {
  run.take_bytes((text.size() - from) * (1 + needle.size() / 32));
  return text.find(needle, from);
}

Text to_text(Run& run, const Value& value) {
  if (value.is_undefined()) return {};
  if (const Text* text = value.text()) {
    run.take_bytes(text->cost());
    return *text;
  }
  Writer writer(run, /*json=*/false, -1);
  writer.write(value);
  return writer.take();
}

Text to_json(Run& run, const Value& value, int64_t indent) {
  Writer writer(run, /*json=*/true, indent);
  writer.write(value);
  return writer.take();
}

ListPointer items_of(Run& run, const Value& value) {
  if (value.is<ListPointer>()) return value.as<ListPointer>();
  std::vector<Value> items;
  if (const Dict* dict = value.dict()) {
    for (const auto& [key, item] : dict->entries) items.push_back(make_text(run, key, dict->foreign_keys));
  } else if (const Text* text = value.text()) {
    run.take_bytes(text->size() * 128);  // about what a character costs as a value of its own
    for (size_t at = 0; at < text->size();) {
      const size_t end = at + character_size(text->bytes(), at);
      items.emplace_back(text->slice(at, end));
      at = end;
    }
  } else if (!value.is_undefined()) {
    run.fail(ErrorCode::malformed_model, "expected a list, dict or str to go through, got {}", type_name(value));
  }
  return make_list(run, std::move(items)).as<ListPointer>();
}

}  // namespace oriel::jinja
