#pragma once
#include "core/json.hpp"
#include "jinja/value.hpp"

namespace oriel::jinja {

/// A JSON value as a template sees it, made by the caller: its texts and keys are foreign.
[[nodiscard]] Value value_of(Run& run, const Json& json);

}  // namespace oriel::jinja
