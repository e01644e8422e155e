#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <oriel/export.hpp>

namespace oriel {

/// Width and height in pixels.
struct Size {
  int64_t width = 0;
  int64_t height = 0;
  friend bool operator==(const Size&, const Size&) = default;
};

/// A position in pixels, (0, 0) being the top left corner of the top left pixel.
struct Point {
  double x = 0;
  double y = 0;
  friend bool operator==(const Point&, const Point&) = default;
};

/// Temporal slots, rows of patches and patches in a row, **before** merging: transformers' image_grid_thw. Images have
/// t = 1.
struct Grid {
  int64_t t = 1;
  int64_t h = 0;
  int64_t w = 0;
  [[nodiscard]] constexpr int64_t patches() const { return t * h * w; }
  friend bool operator==(const Grid&, const Grid&) = default;
};

enum class DType { float32, bfloat16, float16, int64, uint8 };
[[nodiscard]] ORIEL_API std::string_view to_string(DType dtype) noexcept;
/// Bytes of one element.
[[nodiscard]] ORIEL_API size_t size_in_bytes(DType dtype) noexcept;

/// Where tensors live and work runs.
struct Device {
  enum class Kind { cpu, cuda };
  Kind kind = Kind::cpu;
  int index = 0;  ///< which GPU; 0 on the CPU
  [[nodiscard]] static constexpr Device cpu() { return {}; }
  [[nodiscard]] static constexpr Device cuda(int index = 0) { return {Kind::cuda, index}; }
  /// Reads "cpu", "cuda" or "cuda:N". Throws invalid_argument for anything else.
  [[nodiscard]] static ORIEL_API Device parse(std::string_view text);
  friend bool operator==(const Device&, const Device&) = default;
};
[[nodiscard]] ORIEL_API std::string to_string(Device device);

/// 128 bits of XXH3 over content. Equal content gives equal hashes on every machine and in every version of one minor.
struct ContentHash {
  uint64_t high = 0;
  uint64_t low = 0;
  /// 32 lower-case hexadecimal digits.
  [[nodiscard]] ORIEL_API std::string to_string() const;
  friend bool operator==(const ContentHash&, const ContentHash&) = default;
};

}  // namespace oriel
