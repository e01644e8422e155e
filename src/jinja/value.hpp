#pragma once
// The values of a template: Python's, as far as chat templates go.
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "jinja/run.hpp"
#include "jinja/text.hpp"

namespace oriel::jinja {

class Value;
struct Statement;

struct Undefined {
  std::string what;  ///< what was asked for, for messages
};
struct None {};
/// Lists never change, as in the sandbox in which transformers runs templates; so they hold no cycles.
struct List {
  std::vector<Value> items;
  bool tuple = false;
  int depth = 1;  ///< of lists and dicts inside each other
};
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;  ///< in order, keys unique
  int depth = 1;
  bool foreign_keys = false;  ///< all keys are
};
/// What `namespace()` makes: the one thing that changes. No value may hold it but a variable.
struct Namespace {
  std::map<std::string, Value, std::less<>> values;
};
/// The variable `loop`.
struct Loop {
  std::shared_ptr<const List> items;
  size_t index = 0;
};
/// A macro, a function of the language, or a method of `self`.
struct Function {
  enum class Kind { macro, global, method } kind = Kind::global;
  std::string name;
  const Statement* macro = nullptr;
  std::shared_ptr<const Value> self = {};
};

using TextPointer = std::shared_ptr<const Text>;
using ListPointer = std::shared_ptr<const List>;
using DictPointer = std::shared_ptr<const Dict>;
using NamespacePointer = std::shared_ptr<Namespace>;
using LoopPointer = std::shared_ptr<const Loop>;
using FunctionPointer = std::shared_ptr<const Function>;

/// A cheap value: copies share what they point to.
class Value {
 public:
  using Data = std::variant<Undefined, None, bool, int64_t, double, TextPointer, ListPointer, DictPointer,
                            NamespacePointer, LoopPointer, FunctionPointer>;
  Value() = default;
  Value(Data data) : data_(std::move(data)) {}  // NOLINT: any alternative is a value
  explicit Value(Text text) : data_(std::make_shared<const Text>(std::move(text))) {}

  [[nodiscard]] const Data& data() const { return data_; }
  template <typename T>
  [[nodiscard]] bool is() const {
    return std::holds_alternative<T>(data_);
  }
  template <typename T>
  [[nodiscard]] const T& as() const {
    return std::get<T>(data_);
  }
  /// The text, list or dict, or nullptr for other kinds.
  [[nodiscard]] const Text* text() const { return is<TextPointer>() ? as<TextPointer>().get() : nullptr; }
  [[nodiscard]] const List* list() const { return is<ListPointer>() ? as<ListPointer>().get() : nullptr; }
  [[nodiscard]] const Dict* dict() const { return is<DictPointer>() ? as<DictPointer>().get() : nullptr; }
  [[nodiscard]] bool is_undefined() const { return is<Undefined>(); }
  /// The number, of a bool too as in Python, if this is an integer.
  [[nodiscard]] bool is_integer() const { return is<int64_t>() || is<bool>(); }
  [[nodiscard]] int64_t integer() const { return is<bool>() ? int64_t{as<bool>()} : as<int64_t>(); }
  [[nodiscard]] bool is_number() const { return is_integer() || is<double>(); }
  [[nodiscard]] double number() const { return is<double>() ? as<double>() : static_cast<double>(integer()); }

 private:
  Data data_ = Undefined{};
};

/// Paid for, and checked: not too deep, and nothing inside that changes.
[[nodiscard]] Value make_list(Run& run, std::vector<Value> items, bool tuple = false);
/// The last of equal keys wins, at the place of the first.
[[nodiscard]] Value make_dict(Run& run, std::vector<std::pair<std::string, Value>> entries, bool foreign_keys = false);
[[nodiscard]] Value make_text(Run& run, std::string bytes, bool foreign = false);

[[nodiscard]] std::string_view type_name(const Value& value);
[[nodiscard]] bool truthy(const Value& value);
[[nodiscard]] bool equal(Run& run, const Value& a, const Value& b);
/// Entry of a dict, or nullptr.
[[nodiscard]] const Value* find(Run& run, const Dict& dict, std::string_view key);
/// `needle in haystack`.
[[nodiscard]] bool contains(Run& run, const Value& haystack, const Value& needle);
/// Byte of `text` from `from` on at which `needle` is, or npos. Paid for as a search that finds nearly all of a long
/// needle again and again.
[[nodiscard]] size_t find_text(Run& run, std::string_view text, std::string_view needle, size_t from);
/// Python's str().
[[nodiscard]] Text to_text(Run& run, const Value& value);
/// json.dumps(value, ensure_ascii=False, indent=indent); indent below 0 is one line.
[[nodiscard]] Text to_json(Run& run, const Value& value, int64_t indent);
/// What a loop goes over: items, keys, or characters. Nothing for Undefined.
[[nodiscard]] ListPointer items_of(Run& run, const Value& value);

}  // namespace oriel::jinja
