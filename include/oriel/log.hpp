#pragma once
#include <functional>
#include <string_view>

namespace oriel {

enum class LogLevel { info, warning };

/// Receives one line, without its newline. May be called from any thread that calls oriel; must not throw.
/// Where an option of this type is left empty, warnings go to stderr and the rest nowhere.
using LogCallback = std::function<void(LogLevel level, std::string_view message)>;

}  // namespace oriel
