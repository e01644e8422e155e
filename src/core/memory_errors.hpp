#pragma once
// Memory that runs out, as oriel's error.
#include <new>
#include <stdexcept>
#include <string_view>

#include "core/error.hpp"

namespace oriel {

/// Runs `body`. A failed allocation, and a size that no container takes, become out_of_memory:
/// "<where>: memory ran out while <doing>".
template <typename Body>
auto with_memory_errors(std::string_view where, std::string_view doing, Body&& body) {
  constexpr const char* message = "{}: memory ran out while {}";
  try {
    return body();
  } catch (const std::bad_alloc&) {
    throw_error(ErrorCode::out_of_memory, message, where, doing);
  } catch (const std::length_error&) {
    throw_error(ErrorCode::out_of_memory, message, where, doing);
  }
}

}  // namespace oriel
