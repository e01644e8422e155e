#include "text/template_arguments.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "core/error.hpp"
#include "jinja/json_value.hpp"

namespace oriel::text {
namespace {

// The first four are parameters of transformers' render_jinja_template, the others its tokenizers' names of special
// tokens: set or not, they say where the template's own text begins and ends, which is not for others to change.
constexpr std::array<std::string_view, 11> reserved = {"messages",  "tools",     "documents", "add_generation_prompt",
                                                       "bos_token", "cls_token", "eos_token", "mask_token",
                                                       "pad_token", "sep_token", "unk_token"};

std::string place_of(std::string_view name) {
  return fmt::format("template_arguments[{}]", quote_json(jinja::one_line(name, 80)));
}

/// One JSON value. Inside an object, since Json reads nothing else, and with a look at what else came with it.
Json parse_value(std::string_view name, const std::string& text) {
  try {
    const Json json = Json::parse(fmt::format("{{\"\":{}\n}}", text), place_of(name), Json::DuplicateKeys::refuse);
    if (json.members().size() == 1) return json[""];
  } catch (const Error& error) {
    if (error.code() != ErrorCode::malformed_model) throw;
  }
  throw_error(ErrorCode::invalid_argument, "{}: expected JSON, got {}", place_of(name), jinja::one_line(text, 80));
}

}  // namespace

bool is_reserved_variable(std::string_view name) { return std::ranges::find(reserved, name) != reserved.end(); }

void check_argument_name(std::string_view name, bool is_set, bool is_read) {
  if (is_set)
    throw_error(ErrorCode::invalid_argument,
                "{}: expected none of the variables that a prompt sets itself: {}, or another special token",
                place_of(name), fmt::join(reserved, ", "));
  if (!is_read)
    throw_error(ErrorCode::invalid_argument, "{}: the chat template reads no variable of this name", place_of(name));
}

jinja::Value argument_value(jinja::Run& run, std::string_view name, const TemplateValue& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    if (!is_utf8(*text)) throw_error(ErrorCode::invalid_argument, "{}: expected UTF-8", place_of(name));
    return jinja::make_text(run, *text, /*foreign=*/true);
  }
  if (const auto* json = std::get_if<JsonText>(&value)) return jinja::value_of(run, parse_value(name, json->text));
  if (const auto* flag = std::get_if<bool>(&value)) return jinja::Value(*flag);
  if (const auto* integer = std::get_if<int64_t>(&value)) return jinja::Value(*integer);
  return jinja::Value(std::get<double>(value));
}

}  // namespace oriel::text
