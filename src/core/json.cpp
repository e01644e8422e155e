#include "core/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <system_error>
#include <variant>

#include "core/error.hpp"

namespace oriel {

// An own document tree instead of nlohmann's: its ordered object finds a key by walking all of them, and builds that
// way too, which makes a vocabulary of 150,000 tokens quadratic; and it silently keeps the last of two equal keys.

struct Json::Value {
  using Array = std::vector<Value>;
  std::variant<std::monostate, bool, int64_t, double, std::string, Array, std::unique_ptr<Object>> data;
};

struct Json::Object {
  using Member = std::pair<std::string, Value>;
  static constexpr size_t linear_search_limit = 8;

  std::vector<Member> members;   // in file order, keys unique
  std::vector<uint32_t> by_key;  // positions sorted by key; empty where the object is small

  [[nodiscard]] const Member* find(std::string_view key) const {
    if (by_key.empty()) {
      const auto found = std::ranges::find(members, key, &Member::first);
      return found == members.end() ? nullptr : &*found;
    }
    const auto key_at = [this](uint32_t position) -> std::string_view { return members[position].first; };
    const auto found = std::ranges::lower_bound(by_key, key, {}, key_at);
    return found == by_key.end() || key_at(*found) != key ? nullptr : &members[*found];
  }
};

struct Json::Document {
  std::string name;
  Value root;
};

/// Where a value stands. Its path is spelled in messages only, since vocabularies have 300,000 values.
struct Json::Place {
  std::shared_ptr<const Document> document;
  std::shared_ptr<const Place> parent;                     // nullptr at the root
  std::variant<std::monostate, std::string, size_t> step;  // from there: a key or an index

  [[nodiscard]] std::string path() const;
};

namespace {

constexpr size_t max_depth = 100;
constexpr size_t max_values = 8'000'000;
constexpr size_t max_quoted = 80;   // bytes of a found value in a message
constexpr size_t max_reason = 200;  // bytes of the parser's explanation, which quotes the text too
constexpr size_t max_path = 200;    // bytes of a key path

/// Cuts long text for a message, not inside a UTF-8 sequence, and hides control characters and broken UTF-8.
std::string shortened(std::string text, size_t limit = max_quoted) {
  if (text.size() > limit) {
    size_t end = limit;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
    text.resize(end);
    text += "...";
  }
  const bool utf8 = is_utf8(text);
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !utf8)) c = '?';
  }
  return text;
}

std::string child_path(const std::string& parent, std::string_view key) {
  return parent.empty() ? std::string(key) : fmt::format("{}.{}", parent, key);
}

std::string child_path(const std::string& parent, size_t index) { return fmt::format("{}[{}]", parent, index); }

/// A key's first eight bytes as a number, in the order of the keys wherever two of them differ.
uint64_t first_bytes(std::string_view key) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < 8; ++i) bytes = bytes << 8 | (i < key.size() ? static_cast<unsigned char>(key[i]) : 0U);
  return bytes;
}

}  // namespace

// Parsing: nlohmann's event parser, which is iterative, feeds this builder.

class Json::Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  Builder(std::string_view text, const std::string& name, DuplicateKeys duplicates)
      : text_(text), name_(name), duplicates_(duplicates) {}

  [[nodiscard]] Value take_root() { return std::move(root_); }

  bool null() override { return add({}); }
  bool boolean(bool value) override { return add({value}); }
  bool number_integer(number_integer_t value) override { return add({value}); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return add({static_cast<double>(value)});
    return add({static_cast<int64_t>(value)});
  }
  bool number_float(number_float_t value, const string_t& /*lexeme*/) override { return add({value}); }
  bool string(string_t& value) override { return add({std::move(value)}); }
  bool binary(binary_t& /*value*/) override { return false; }  // JSON text holds none

  bool start_object(std::size_t /*elements*/) override { return open({std::make_unique<Object>()}); }
  bool key(string_t& value) override {
    std::get<std::unique_ptr<Object>>(open_.back().data)->members.emplace_back(std::move(value), Value{});
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t /*elements*/) override { return open({Value::Array()}); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string& last_token,
                   const nlohmann::detail::exception& error) override;

 private:
  bool add(Value value) {
    count_value();
    place(std::move(value));
    return true;
  }
  bool open(Value container) {
    count_value();
    if (open_.size() == max_depth) {
      throw_error(ErrorCode::malformed_model, "{}: expected at most {} levels of nesting, got more", name_, max_depth);
    }
    open_.push_back(std::move(container));
    return true;
  }
  bool close() {
    Value closing = std::move(open_.back());
    open_.pop_back();
    if (auto* object = std::get_if<std::unique_ptr<Object>>(&closing.data)) finish(**object);
    place(std::move(closing));
    return true;
  }
  void place(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (auto* array = std::get_if<Value::Array>(&open_.back().data)) {
      array->push_back(std::move(value));
    } else {
      std::get<std::unique_ptr<Object>>(open_.back().data)->members.back().second = std::move(value);
    }
  }
  void count_value() {
    if (++value_count_ > max_values) {
      throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} JSON values, got more", name_, max_values);
    }
  }
  /// A member's position, and its key's first bytes beside it: most keys are told apart without looking at them.
  struct Ordered {
    uint64_t first_bytes;
    uint32_t position;
  };
  void finish(Object& object) const;
  void merge_equal_keys(Object& object, std::vector<Ordered>& order) const;
  [[nodiscard]] std::string place_of(std::size_t position) const;

  std::string_view text_;
  const std::string& name_;
  DuplicateKeys duplicates_;
  std::vector<Value> open_;  // containers that are not closed yet
  Value root_;
  size_t value_count_ = 0;
};

void Json::Builder::finish(Object& object) const {
  auto& members = object.members;
  std::vector<Ordered> order(members.size());
  for (uint32_t i = 0; i < order.size(); ++i) order[i] = {first_bytes(members[i].first), i};
  std::ranges::sort(order, [&](const Ordered& a, const Ordered& b) {
    if (a.first_bytes != b.first_bytes) return a.first_bytes < b.first_bytes;
    const int compared = members[a.position].first.compare(members[b.position].first);
    return compared != 0 ? compared < 0 : a.position < b.position;
  });
  merge_equal_keys(object, order);
  if (members.size() <= Object::linear_search_limit) return;
  object.by_key.reserve(order.size());
  for (const Ordered& entry : order) object.by_key.push_back(entry.position);
}

/// Of equal keys the last value stays, at the place of the first.
void Json::Builder::merge_equal_keys(Object& object, std::vector<Ordered>& order) const {
  auto& members = object.members;
  std::vector<bool> dropped;
  for (size_t i = 1, first = 0; i < order.size(); ++i) {
    auto& [key, value] = members[order[i].position];
    auto& [first_key, first_value] = members[order[first].position];
    if (order[i].first_bytes != order[first].first_bytes || key != first_key) {
      first = i;
      continue;
    }
    if (duplicates_ == DuplicateKeys::refuse) {
      throw_error(ErrorCode::malformed_model, "{}: expected unique keys, got {} twice", name_,
                  shortened(quote_json(key)));
    }
    first_value = std::move(value);
    dropped.resize(members.size());
    dropped[order[i].position] = true;
  }
  if (dropped.empty()) return;
  std::erase_if(order, [&](const Ordered& entry) { return dropped[entry.position]; });
  std::vector<uint32_t> new_position(members.size());
  uint32_t kept = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    new_position[i] = kept;
    if (dropped[i]) continue;
    if (kept != i) members[kept] = std::move(members[i]);
    ++kept;
  }
  members.resize(kept);
  for (Ordered& entry : order) entry.position = new_position[entry.position];
}

bool Json::Builder::parse_error(std::size_t position, const std::string& last_token,
                                const nlohmann::detail::exception& error) {
  // The parser stops at the first character that no JSON value can have there: the N or the I.
  const size_t stop = std::min(position == 0 ? 0 : position - 1, text_.size());
  for (const std::string_view constant : {"NaN", "-Infinity", "Infinity"}) {
    const size_t begin = stop - (constant.front() == '-' && stop > 0 ? 1 : 0);
    if (text_.substr(begin).starts_with(constant)) {
      throw_error(ErrorCode::malformed_model, "{}: {}: expected a finite number, got {}", name_, place_of(begin + 1),
                  constant);
    }
  }
  constexpr int number_overflow = 406;
  if (error.id == number_overflow) {
    throw_error(ErrorCode::malformed_model, "{}: {}: expected a number in the range of a double, got {}", name_,
                place_of(position - std::min(position, last_token.size()) + 1), shortened(last_token));
  }
  // "[json.exception.parse_error.101] parse error at line 1, column 5: <what is wrong>"
  std::string_view reason = error.what();
  if (const size_t column = reason.find(", column "); column != std::string_view::npos) {
    if (const size_t colon = reason.find(": ", column); colon != std::string_view::npos) {
      reason.remove_prefix(colon + 2);
    }
  }
  throw_error(ErrorCode::malformed_model, "{}: {}: expected JSON, got {}", name_, place_of(position),
              shortened(std::string(reason), max_reason));
}

/// "line 3, column 7" of the character that is `position` characters into the text, counting from 1.
std::string Json::Builder::place_of(std::size_t position) const {
  const std::string_view before = text_.substr(0, std::min(position == 0 ? 0 : position - 1, text_.size()));
  const auto line = 1 + std::ranges::count(before, '\n');
  const size_t last_break = before.rfind('\n');
  const size_t column = before.size() + 1 - (last_break == std::string_view::npos ? 0 : last_break + 1);
  return fmt::format("line {}, column {}", line, column);
}

namespace {

std::string read_whole_file(const std::filesystem::path& path, int64_t max_bytes) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw_error(ErrorCode::file_error, "{}: expected a file, found nothing", path.string());
  }
  if (!std::filesystem::is_regular_file(status)) {
    throw_error(ErrorCode::file_error, "{}: expected a file, found a directory or device", path.string());
  }
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const auto size = file ? static_cast<int64_t>(file.tellg()) : -1;
  if (size < 0) throw_error(ErrorCode::file_error, "{}: the file can't be opened", path.string());
  if (size > max_bytes) {
    throw_error(ErrorCode::limit_exceeded, "{}: expected at most {} bytes, got {}", path.string(), max_bytes, size);
  }
  std::string text(static_cast<size_t>(size), '\0');
  file.seekg(0);
  file.read(text.data(), static_cast<std::streamsize>(size));
  if (file.gcount() != size) {
    throw_error(ErrorCode::file_error, "{}: expected {} bytes, could read only {}", path.string(), size, file.gcount());
  }
  return text;
}

}  // namespace

Json Json::read(const std::filesystem::path& path, int64_t max_bytes) {
  return parse(read_whole_file(path, max_bytes), path.string());
}

Json Json::parse(std::string_view text, std::string name, DuplicateKeys duplicates) {
  const auto document = std::make_shared<Document>();
  document->name = std::move(name);
  Builder builder(text, document->name, duplicates);
  nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  document->root = builder.take_root();
  const Value* root = &document->root;
  Json json(std::make_shared<const Place>(Place{document, nullptr, {}}), root);
  if (!json.is_object()) json.refuse("an object");
  return json;
}

Json::Json(std::shared_ptr<const Place> place, const Value* value, Step step)
    : place_(std::move(place)), value_(value), step_(step) {}

bool Json::is_absent() const { return value_ == nullptr; }
bool Json::is_null() const { return value_ != nullptr && std::holds_alternative<std::monostate>(value_->data); }
bool Json::is_object() const {
  return value_ != nullptr && std::holds_alternative<std::unique_ptr<Object>>(value_->data);
}
bool Json::is_array() const { return value_ != nullptr && std::holds_alternative<Value::Array>(value_->data); }
bool Json::is_string() const { return value_ != nullptr && std::holds_alternative<std::string>(value_->data); }
bool Json::is_bool() const { return value_ != nullptr && std::holds_alternative<bool>(value_->data); }
bool Json::is_integer() const { return value_ != nullptr && std::holds_alternative<int64_t>(value_->data); }
bool Json::is_number() const {
  return value_ != nullptr &&
         (std::holds_alternative<int64_t>(value_->data) || std::holds_alternative<double>(value_->data));
}

Json Json::operator[](std::string_view key) const {
  if (has_value() && !is_object()) refuse("an object");
  const auto* member = has_value() ? std::get<std::unique_ptr<Object>>(value_->data)->find(key) : nullptr;
  if (member != nullptr) return {here(), &member->second, std::string_view(member->first)};
  return {std::make_shared<const Place>(Place{place_->document, here(), std::string(key)}), nullptr};
}

std::vector<Json> Json::elements() const {
  if (!is_array()) refuse("an array");
  const auto& array = std::get<Value::Array>(value_->data);
  const auto place = here();
  std::vector<Json> result;
  result.reserve(array.size());
  for (const Value& element : array) result.push_back(Json(place, &element, result.size()));
  return result;
}

std::vector<std::pair<std::string, Json>> Json::members() const {
  if (!is_object()) refuse("an object");
  const auto& members = std::get<std::unique_ptr<Object>>(value_->data)->members;
  const auto place = here();
  std::vector<std::pair<std::string, Json>> result;
  result.reserve(members.size());
  for (const auto& [key, value] : members) result.emplace_back(key, Json(place, &value, std::string_view(key)));
  return result;
}

int64_t Json::integer() const {
  if (value_ != nullptr) {
    if (const auto* whole = std::get_if<int64_t>(&value_->data)) return *whole;
    // Beyond 2^53 a double no longer says which integer was meant.
    constexpr double exact_limit = 9007199254740992.0;
    const auto* real = std::get_if<double>(&value_->data);
    if (real != nullptr && std::abs(*real) <= exact_limit && std::trunc(*real) == *real) {
      return static_cast<int64_t>(*real);
    }
  }
  refuse("an integer");
}

double Json::number() const {
  if (!is_number()) refuse("a number");
  if (const auto* real = std::get_if<double>(&value_->data)) return *real;
  return static_cast<double>(std::get<int64_t>(value_->data));
}

bool Json::boolean() const {
  if (!is_bool()) refuse("true or false");
  return std::get<bool>(value_->data);
}

std::string Json::string() const { return std::string(text()); }

std::string_view Json::text() const {
  if (!is_string()) refuse("a string");
  return std::get<std::string>(value_->data);
}

std::vector<int64_t> Json::integers() const {
  if (!is_array()) refuse("an array of integers");
  std::vector<int64_t> result;
  for (const Json& element : elements()) result.push_back(element.integer());
  return result;
}

std::vector<double> Json::numbers() const {
  if (!is_array()) refuse("an array of numbers");
  std::vector<double> result;
  for (const Json& element : elements()) result.push_back(element.number());
  return result;
}

int64_t Json::integer_or(int64_t fallback) const { return is_absent() ? fallback : integer(); }
double Json::number_or(double fallback) const { return is_absent() ? fallback : number(); }
bool Json::boolean_or(bool fallback) const { return is_absent() ? fallback : boolean(); }
std::string Json::string_or(std::string_view fallback) const { return is_absent() ? std::string(fallback) : string(); }

int64_t Json::integer_in(int64_t low, int64_t high) const {
  const auto expected = [&] { return fmt::format("an integer in [{}, {}]", low, high); };
  if (!is_number()) refuse(expected());
  const int64_t value = integer();
  if (value < low || value > high) refuse(expected());
  return value;
}

int64_t Json::integer_in_or(int64_t low, int64_t high, int64_t fallback) const {
  return is_absent() ? fallback : integer_in(low, high);
}

// A key may be as long as its file.
std::string Json::where() const {
  const std::string& name = place_->document->name;
  std::string path = here()->path();
  return path.empty() ? name : name + ": " + shortened(std::move(path), max_path);
}

std::shared_ptr<const Json::Place> Json::here() const {
  Place place{place_->document, place_, {}};
  if (const auto* key = std::get_if<std::string_view>(&step_)) {
    place.step = std::string(*key);
  } else if (const auto* index = std::get_if<size_t>(&step_)) {
    place.step = *index;
  } else {
    return place_;
  }
  return std::make_shared<const Place>(std::move(place));
}

std::string Json::Place::path() const {
  if (const auto* key = std::get_if<std::string>(&step)) return child_path(parent->path(), *key);
  if (const auto* index = std::get_if<size_t>(&step)) return child_path(parent->path(), *index);
  return {};
}

void Json::refuse(std::string_view expected) const {
  throw_error(ErrorCode::malformed_model, "{}: expected {}, {}", where(), expected,
              is_absent() ? "the key is missing" : "got " + shortened(dump()));
}

// Text of a value.

std::string Json::dump() const {
  struct Writer {
    std::string out;
    void write(const Value& value) { std::visit(*this, value.data); }
    void operator()(std::monostate) { out += "null"; }
    void operator()(bool value) { out += value ? "true" : "false"; }
    void operator()(int64_t value) { out += fmt::format("{}", value); }
    // Whole numbers look the same however the file writes them: 16.0 is 16, and -0.0 is 0.
    void operator()(double value) { out += fmt::format("{}", value + 0.0); }
    void operator()(const std::string& value) { out += quote_json(value); }
    void operator()(const Value::Array& array) {
      out += '[';
      for (const Value& element : array) {
        if (&element != array.data()) out += ',';
        write(element);
      }
      out += ']';
    }
    void operator()(const std::unique_ptr<Object>& object) {
      out += '{';
      for (const auto& [key, value] : object->members) {
        if (&key != &object->members.front().first) out += ',';
        out += quote_json(key) + ':';
        write(value);
      }
      out += '}';
    }
  };
  if (is_absent()) return {};
  Writer writer;
  writer.write(*value_);
  return std::move(writer.out);
}

}  // namespace oriel
