#pragma once
// Exceptions of libtorch as oriel's.
#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "core/error.hpp"

namespace oriel {

/// Carries an exception of the caller's own callback past with_torch_errors.
struct CallbackFailure {
  std::exception_ptr exception;
};

/// Calls a callback of the caller inside with_torch_errors: what it throws reaches the caller as it is.
template <typename Callback, typename... Args>
void call_back(const Callback& callback, const Args&... args) {
  if (!callback) return;
  try {
    callback(args...);
  } catch (...) {
    throw CallbackFailure{std::current_exception()};
  }
}

/// Runs `body`; what libtorch and oneDNN throw becomes out_of_memory or internal, with `what` in front of the first
/// line.
template <typename Body>
auto with_torch_errors(std::string_view what, Body&& body) {
  const auto first_line = [](std::string_view text) { return text.substr(0, text.find('\n')); };
  try {
    return body();
  } catch (const c10::OutOfMemoryError& error) {
    throw_error(ErrorCode::out_of_memory, "{}: {}", what, first_line(error.what_without_backtrace()));
  } catch (const c10::Error& error) {
    const std::string_view text = first_line(error.what_without_backtrace());
    const bool memory = text.find("can't allocate memory") != std::string_view::npos;
    throw_error(memory ? ErrorCode::out_of_memory : ErrorCode::internal, "{}: {}", what, text);
  } catch (const CallbackFailure& failure) {
    std::rethrow_exception(failure.exception);
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw_error(ErrorCode::out_of_memory, "{}: host memory ran out", what);
  } catch (const std::exception& error) {
    throw_error(ErrorCode::internal, "{}: {}", what, first_line(error.what()));
  }
}

}  // namespace oriel
