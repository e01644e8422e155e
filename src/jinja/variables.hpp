#pragma once
#include <set>
#include <string>
#include <vector>

#include "jinja/syntax.hpp"

namespace oriel::jinja {

/// Names of all variables that a template reads somewhere, those that it sets itself among them.
[[nodiscard]] std::set<std::string, std::less<>> variables_read(const std::vector<Statement>& body);

}  // namespace oriel::jinja
