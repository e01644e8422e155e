#pragma once
#include <string_view>

#include "oriel/log.hpp"

namespace oriel {

/// Hands a line to `callback`, or to the default if that is empty: warnings to stderr.
void log(const LogCallback& callback, LogLevel level, std::string_view message);

}  // namespace oriel
