#include "core/log.hpp"

#include <cstdio>

namespace oriel {

void log(const LogCallback& callback, LogLevel level, std::string_view message) {
  if (callback) {
    callback(level, message);
  } else if (level == LogLevel::warning) {
    std::fprintf(stderr, "oriel: warning: %.*s\n", static_cast<int>(message.size()), message.data());
  }
}

}  // namespace oriel
