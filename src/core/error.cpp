#include "core/error.hpp"

namespace oriel {
namespace {

/// Names and keys in a message may come from a file, with line breaks or a terminal's escape sequences in them.
std::string as_one_line(std::string message) {
  for (char& c : message) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return message;
}

}  // namespace

std::string_view to_string(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::invalid_argument:
      return "invalid_argument";
    case ErrorCode::file_error:
      return "file_error";
    case ErrorCode::malformed_image:
      return "malformed_image";
    case ErrorCode::unsupported_image:
      return "unsupported_image";
    case ErrorCode::malformed_model:
      return "malformed_model";
    case ErrorCode::unsupported_model:
      return "unsupported_model";
    case ErrorCode::limit_exceeded:
      return "limit_exceeded";
    case ErrorCode::unavailable:
      return "unavailable";
    case ErrorCode::cancelled:
      return "cancelled";
    case ErrorCode::out_of_memory:
      return "out_of_memory";
    case ErrorCode::internal:
      return "internal";
  }
  return "unknown error code";
}

Error::Error(ErrorCode code, const std::string& message) : std::runtime_error(as_one_line(message)), code_(code) {}

int64_t checked_multiply(int64_t a, int64_t b, std::string_view what, ErrorCode code) {
  int64_t product = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) {
    throw_error(code, "{}: {} * {} does not fit", what, a, b);
  }
  return product;
}

int64_t checked_add(int64_t a, int64_t b, std::string_view what, ErrorCode code) {
  int64_t sum = 0;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum)) {
    throw_error(code, "{}: {} + {} does not fit", what, a, b);
  }
  return sum;
}

}  // namespace oriel
