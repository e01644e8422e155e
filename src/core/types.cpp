#include <oriel/types.hpp>

#include <charconv>

#include "core/error.hpp"

namespace oriel {

std::string_view to_string(DType dtype) noexcept {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::bfloat16:
      return "bfloat16";
    case DType::float16:
      return "float16";
    case DType::int64:
      return "int64";
    case DType::uint8:
      return "uint8";
  }
  return "unknown dtype";
}

size_t size_in_bytes(DType dtype) noexcept {
  switch (dtype) {
    case DType::float32:
      return 4;
    case DType::bfloat16:
    case DType::float16:
      return 2;
    case DType::int64:
      return 8;
    case DType::uint8:
      return 1;
  }
  return 0;
}

Device Device::parse(std::string_view text) {
  if (text == "cpu") return cpu();
  if (text == "cuda") return cuda();
  constexpr std::string_view prefix = "cuda:";
  if (text.starts_with(prefix)) {
    const std::string_view digits = text.substr(prefix.size());
    int index = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    // from_chars reads a minus sign too, which no device index has.
    if (error == std::errc() && end == digits.data() + digits.size() && !digits.starts_with('-')) return cuda(index);
  }
  throw_error(ErrorCode::invalid_argument, R"(device: expected "cpu", "cuda" or "cuda:N", got "{}")", text);
}

std::string to_string(Device device) {
  return device.kind == Device::Kind::cpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

std::string ContentHash::to_string() const { return fmt::format("{:016x}{:016x}", high, low); }

}  // namespace oriel
