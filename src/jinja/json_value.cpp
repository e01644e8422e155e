#include "jinja/json_value.hpp"

namespace oriel::jinja {

Value value_of(Run& run, const Json& json) {
  run.take_steps();
  if (json.is_object()) {
    std::vector<std::pair<std::string, Value>> entries;
    for (const auto& [key, member] : json.members()) entries.emplace_back(key, value_of(run, member));
    return make_dict(run, std::move(entries), /*foreign_keys=*/true);
  }
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& element : json.elements()) items.push_back(value_of(run, element));
    return make_list(run, std::move(items));
  }
  if (json.is_string()) return make_text(run, json.string(), /*foreign=*/true);
  if (json.is_bool()) return Value(json.boolean());
  if (json.is_integer()) return Value(json.integer());
  return json.is_number() ? Value(json.number()) : Value(None{});
}

}  // namespace oriel::jinja
