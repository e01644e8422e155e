// Methods of texts. What is cut out of a text keeps its origin.
#include <algorithm>
#include <array>

#include "jinja/functions.hpp"

namespace oriel::jinja {
namespace {

constexpr std::array<std::string_view, 13> methods = {"strip",      "lstrip",   "rstrip", "split", "rsplit",
                                                      "startswith", "endswith", "upper",  "lower", "capitalize",
                                                      "title",      "replace",  "find"};
constexpr std::array<std::string_view, 14> other_methods = {
    "format",  "join",    "splitlines", "count",      "index",        "isdigit",      "isalpha",
    "isspace", "isupper", "partition",  "rpartition", "removeprefix", "removesuffix", "encode"};

constexpr size_t cost_of_a_piece = 128;  // about what a short text costs as a value of its own

std::vector<Value> split_at_whitespace(Run& run, const Text& text, int64_t most) {
  run.take_bytes(text.cost());
  const std::string_view bytes = text.bytes();
  std::vector<Value> pieces;
  size_t at = leading_whitespace(bytes);
  while (at < bytes.size()) {
    run.take_bytes(cost_of_a_piece);
    size_t end = at;
    if (most >= 0 && static_cast<int64_t>(pieces.size()) == most)
      end = bytes.size();
    else
      while (end < bytes.size() && leading_whitespace(bytes.substr(end, character_size(bytes, end))) == 0)
        end += character_size(bytes, end);
    pieces.emplace_back(text.slice(at, end));
    at = end + leading_whitespace(bytes.substr(end));
  }
  return pieces;
}

std::vector<Value> split(Run& run, const Text& text, const std::string& separator, int64_t most) {
  if (separator.empty()) run.fail(ErrorCode::malformed_model, "split: expected a separator, got an empty str");
  run.take_bytes(text.cost());
  std::vector<Value> pieces;
  size_t at = 0;
  while (most < 0 || static_cast<int64_t>(pieces.size()) < most) {
    const size_t found = find_text(run, text.bytes(), separator, at);
    if (found == std::string::npos) break;
    run.take_bytes(cost_of_a_piece);
    pieces.emplace_back(text.slice(at, found));
    at = found + separator.size();
  }
  pieces.emplace_back(text.slice(at, text.size()));
  return pieces;
}

/// From the right: only used to take a few pieces off the end.
std::vector<Value> split_from_right(Run& run, const Text& text, const std::string& separator, int64_t most) {
  if (separator.empty()) run.fail(ErrorCode::malformed_model, "rsplit: expected a separator, got an empty str");
  run.take_bytes(text.cost());
  std::vector<Value> pieces;
  size_t end = text.size();
  while (most < 0 || static_cast<int64_t>(pieces.size()) < most) {
    run.take_bytes(end * (1 + separator.size() / 32) + cost_of_a_piece);
    const size_t found =
        end < separator.size() ? std::string::npos : text.bytes().rfind(separator, end - separator.size());
    if (found == std::string::npos) break;
    pieces.emplace_back(text.slice(found + separator.size(), end));
    end = found;
  }
  pieces.emplace_back(text.slice(0, end));
  std::ranges::reverse(pieces);
  return pieces;
}

Value split_by(Run& run, std::string_view name, const Text& self, const Arguments& arguments) {
  const Value* separator = arguments.find(0, "sep");
  const Value* count = arguments.find(1, "maxsplit");
  const int64_t most = count != nullptr ? expect_integer(run, *count, name) : -1;
  const bool at_whitespace = separator == nullptr || separator->is<None>();
  if (at_whitespace && name == "rsplit" && most >= 0)
    run.fail(ErrorCode::unsupported_model, "rsplit at whitespace is not supported");
  if (at_whitespace) return make_list(run, split_at_whitespace(run, self, most));
  const std::string& at = expect_text(run, *separator, name).bytes();
  return make_list(run, name == "split" ? split(run, self, at, most) : split_from_right(run, self, at, most));
}

/// str.startswith and endswith, with one text or a tuple of them.
bool starts_or_ends(Run& run, std::string_view name, const Text& self, const Arguments& arguments) {
  const Value* wanted = arguments.find(0, "prefix");
  if (wanted == nullptr || arguments.values.size() > 1)
    run.fail(ErrorCode::unsupported_model, "{}: expected one argument, got {}", name, arguments.values.size());
  const std::vector<Value> all =
      wanted->list() != nullptr && wanted->list()->tuple ? wanted->list()->items : std::vector{*wanted};
  run.take_steps(all.size());
  return std::ranges::any_of(all, [&](const Value& value) {
    const std::string& affix = expect_text(run, value, name).bytes();
    run.take_bytes(affix.size());
    return name == "startswith" ? self.bytes().starts_with(affix) : self.bytes().ends_with(affix);
  });
}

Value strip_by(Run& run, std::string_view name, const Text& self, const Arguments& arguments) {
  const Value* characters = arguments.find(0, "chars");
  const bool given = characters != nullptr && !characters->is<None>();
  return Value(strip(run, self, given ? &expect_text(run, *characters, name).bytes() : nullptr, name != "rstrip",
                     name != "lstrip"));
}

Value find_by(Run& run, const Text& self, const Arguments& arguments) {
  if (arguments.values.size() != 1)
    run.fail(ErrorCode::unsupported_model, "find: expected one argument, got {}", arguments.values.size());
  const size_t at = find_text(run, self.bytes(), expect_text(run, arguments.values[0], "find").bytes(), 0);
  if (at == std::string::npos) return Value(int64_t{-1});
  return Value(static_cast<int64_t>(count_characters(std::string_view(self.bytes()).substr(0, at))));
}

}  // namespace

bool is_text_method(std::string_view name) {
  return std::ranges::find(methods, name) != methods.end() ||
         std::ranges::find(other_methods, name) != other_methods.end();
}

Value call_text_method(Run& run, std::string_view name, const Text& self, const Arguments& arguments) {
  if (name.ends_with("strip")) return strip_by(run, name, self, arguments);
  if (name == "split" || name == "rsplit") return split_by(run, name, self, arguments);
  if (name == "startswith" || name == "endswith") return Value(starts_or_ends(run, name, self, arguments));
  if (name == "find") return find_by(run, self, arguments);
  if (name == "replace") {
    if (arguments.values.size() < 2)
      run.fail(ErrorCode::malformed_model, "replace: expected two strs, got {}", arguments.values.size());
    const Value* count = arguments.find(2, "count");
    return Value(replace(run, self, expect_text(run, arguments.values[0], name),
                         expect_text(run, arguments.values[1], name),
                         count != nullptr ? expect_integer(run, *count, name) : -1));
  }
  if (name == "upper") return Value(with_case(run, self, Case::upper));
  if (name == "lower") return Value(with_case(run, self, Case::lower));
  if (name == "capitalize") return Value(with_case(run, self, Case::capitalized));
  if (name == "title") return Value(with_case(run, self, Case::title));
  run.fail(ErrorCode::unsupported_model, "method {} of a str is not supported", name);
}

Text strip(Run& run, const Text& text, const std::string* characters, bool left, bool right) {
  const std::string_view bytes = text.bytes();
  run.take_bytes(text.cost());
  if (characters == nullptr) {
    const size_t begin = left ? leading_whitespace(bytes) : 0;
    return text.slice(begin, std::max(begin, bytes.size() - (right ? trailing_whitespace(bytes) : 0)));
  }
  run.take_bytes(text.size() * (1 + characters->size() / 32));
  const auto strips = [&](size_t begin, size_t size) {
    return characters->find(bytes.substr(begin, size)) != std::string::npos;
  };
  size_t begin = 0;
  while (left && begin < bytes.size() && strips(begin, character_size(bytes, begin)))
    begin += character_size(bytes, begin);
  size_t end = bytes.size();
  while (right && end > begin) {
    size_t start = end - 1;
    while ((static_cast<unsigned char>(bytes[start]) & 0xC0) == 0x80) --start;
    if (!strips(start, end - start)) break;
    end = start;
  }
  return text.slice(begin, end);
}

Text replace(Run& run, const Text& text, const Text& old, const Text& replacement, int64_t most) {
  Text result;
  size_t at = 0;
  if (old.empty()) run.fail(ErrorCode::unsupported_model, "replace of an empty str is not supported");
  for (int64_t count = 0; most < 0 || count < most; ++count) {
    const size_t found = find_text(run, text.bytes(), old.bytes(), at);
    if (found == std::string::npos) break;
    run.take_bytes(replacement.cost() + cost_of_a_piece);
    result.append(text.slice(at, found));
    result.append(replacement);
    at = found + old.size();
  }
  run.take_bytes(text.cost());
  result.append(text.slice(at, text.size()));
  return result;
}

// A changed letter is one byte as before, so that origins stay in place.
Text with_case(Run& run, const Text& text, Case wanted) {
  run.take_bytes(text.cost());
  if (!std::ranges::all_of(text.bytes(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    run.fail(ErrorCode::unsupported_model, "upper and lower case of letters beyond ASCII are not supported");
  Text result;
  bool starts = true;
  for (const Text::Run& run_of_text : text.runs()) {
    std::string changed(run_of_text.bytes);
    for (char& c : changed) {
      const bool lower = c >= 'a' && c <= 'z', upper = c >= 'A' && c <= 'Z';
      const bool to_upper = wanted == Case::upper || (wanted != Case::lower && starts);
      if (lower && to_upper) c = static_cast<char>(c - 'a' + 'A');
      if (upper && !to_upper) c = static_cast<char>(c - 'A' + 'a');
      starts = wanted == Case::title && !lower && !upper;
    }
    result.append(Text(std::move(changed), run_of_text.foreign));
  }
  return result;
}

Text join(Run& run, const std::vector<Value>& items, const Text& between) {
  Text result;
  run.take_steps(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    run.take_bytes(between.cost());
    if (i > 0) result.append(between);
    result.append(to_text(run, items[i]));
  }
  return result;
}

}  // namespace oriel::jinja
