#pragma once
#include "core/json.hpp"
#include "jinja/value.hpp"

namespace oriel::jinja {

/// A JSON value as a template sees it; its texts are foreign.
inline Value value_of(Run& run, const Json& json) {
  if (json.is_object()) {
    std::vector<std::pair<std::string, Value>> entries;
    for (const auto& [key, member] : json.members()) entries.emplace_back(key, value_of(run, member));
    return make_dict(run, std::move(entries));
  }
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& element : json.elements()) items.push_back(value_of(run, element));
    return make_list(run, std::move(items));
  }
  if (json.is_string()) return make_text(run, json.string(), /*foreign=*/true);
  if (json.is_bool()) return Value(json.boolean());
  if (!json.is_number()) return Value(None{});
  const bool whole = json.dump().find_first_of(".eE") == std::string::npos;
  return whole ? Value(json.integer()) : Value(json.number());
}

}  // namespace oriel::jinja
