#pragma once
#include <stdexcept>
#include <string>
#include <string_view>

#include <oriel/export.hpp>

namespace oriel {

/// What kind of thing went wrong. The message of the Error says which one, with the expected and the found value.
enum class ErrorCode {
  invalid_argument,   ///< a value that the caller passed is out of range or contradicts another
  file_error,         ///< a file is missing or can't be read or written
  malformed_image,    ///< bytes that are not the picture they claim to be, or end too early
  unsupported_image,  ///< a real picture of a kind that oriel refuses by name
  malformed_model,    ///< config, processor or weight files that are damaged or contradict each other
  unsupported_model,  ///< a well-formed checkpoint of a kind that oriel does not run
  limit_exceeded,     ///< a size, pixel, token or memory limit would be passed; nothing was started
  unavailable,        ///< a device, codec or prompt token that this build, machine or checkpoint does not have
  cancelled,          ///< the caller's stop_token was triggered
  out_of_memory,      ///< memory ran out during a call; the object that was called stays usable
  internal,           ///< a defect of oriel, or an error of libtorch without a better name: please report it
};

/// The name of a code as written above, such as "malformed_model".
[[nodiscard]] ORIEL_API std::string_view to_string(ErrorCode code) noexcept;

/// The one exception type of oriel. what() is one line: where (file, tensor, argument), what was expected, what was
/// found.
class ORIEL_API Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message);
  [[nodiscard]] ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace oriel
