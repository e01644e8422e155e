#pragma once
// The pictures of tests/goldens/make_pixel_goldens.py, made again byte by byte, and what comparing pixels takes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "image/resize.hpp"

namespace oriel::image {

inline constexpr uint64_t lcg_multiplier = 6364136223846793005U;

/// [height, width, 3] bytes without padding.
struct Picture {
  Size size;
  std::vector<uint8_t> rgb;
  [[nodiscard]] RgbView view() const { return {rgb.data(), size, 3 * size.width}; }
  [[nodiscard]] MutableRgbView mutable_view() { return {rgb.data(), size, 3 * size.width}; }
};

inline Picture blank(Size size) {
  return {size, std::vector<uint8_t>(static_cast<size_t>(3 * size.width * size.height))};
}

inline Picture noise(Size size, uint64_t seed) {
  Picture picture = blank(size);
  for (uint8_t& byte : picture.rgb) {
    seed = seed * lcg_multiplier + 1442695040888963407U;
    byte = static_cast<uint8_t>(seed >> 56);
  }
  return picture;
}

inline Picture smooth(Size size, uint64_t seed) {
  Picture picture = blank(size);
  size_t i = 0;
  for (int64_t row = 0; row < size.height; ++row) {
    for (int64_t column = 0; column < size.width; ++column) {
      const int64_t x = column * 255 / std::max<int64_t>(size.width - 1, 1);
      const int64_t y = row * 255 / std::max<int64_t>(size.height - 1, 1);
      picture.rgb[i++] = static_cast<uint8_t>(x);
      picture.rgb[i++] = static_cast<uint8_t>(y);
      picture.rgb[i++] = static_cast<uint8_t>((x + y + static_cast<int64_t>(seed)) / 2 % 256);
    }
  }
  return picture;
}

inline Picture edges(Size size, uint64_t seed) {
  Picture picture = blank(size);
  size_t i = 0;
  for (int64_t y = 0; y < size.height; ++y) {
    for (int64_t x = 0; x < size.width; ++x) {
      for (int64_t channel = 0; channel < 3; ++channel) {
        const int64_t field = (x + channel) / 3 + y / 2 + static_cast<int64_t>(seed);
        picture.rgb[i++] = field % 2 == 0 ? 0 : 255;
      }
    }
  }
  return picture;
}

inline Picture make_picture(const std::string& kind, Size size, uint64_t seed) {
  if (kind == "noise") return noise(size, seed);
  if (kind == "smooth") return smooth(size, seed);
  if (kind == "edges") return edges(size, seed);
  throw_error(ErrorCode::internal, "no picture is called {}", kind);
}

/// The golden files' hash: h = h * multiplier + byte + 1 modulo 2^64.
inline uint64_t polynomial_hash(const void* data, size_t bytes) {
  const auto* byte = static_cast<const uint8_t*>(data);
  uint64_t hash = 0;
  for (size_t i = 0; i < bytes; ++i) hash = hash * lcg_multiplier + byte[i] + 1;
  return hash;
}

/// Equal, or the first place where they differ.
inline testing::AssertionResult pixels_equal(const Picture& got, const Picture& expected) {
  if (got.size != expected.size) return testing::AssertionFailure() << "the sizes differ";
  const auto [a, b] = std::mismatch(got.rgb.begin(), got.rgb.end(), expected.rgb.begin());
  if (a == got.rgb.end()) return testing::AssertionSuccess();
  const int64_t at = a - got.rgb.begin();
  int64_t different = 0;
  for (size_t i = 0; i < got.rgb.size(); ++i) different += got.rgb[i] != expected.rgb[i] ? 1 : 0;
  return testing::AssertionFailure() << different << " of " << got.rgb.size() << " bytes differ, first at row "
                                     << at / 3 / got.size.width << ", column " << at / 3 % got.size.width
                                     << ", channel " << at % 3 << ": " << int{*a} << " instead of " << int{*b};
}

/// The instruction sets that this processor has, plain first.
inline std::vector<Simd> supported_simd() {
  std::vector<Simd> result;
  for (const Simd simd : {Simd::plain, Simd::avx2, Simd::avx512}) {
    if (is_supported(simd)) result.push_back(simd);
  }
  return result;
}

inline const char* name_of(Simd simd) {
  return simd == Simd::plain ? "plain" : simd == Simd::avx2 ? "avx2" : simd == Simd::avx512 ? "avx512" : "best";
}

inline Filter filter_named(const std::string& name) {
  if (name == "box") return Filter::box;
  if (name == "bilinear") return Filter::bilinear;
  if (name == "hamming") return Filter::hamming;
  if (name == "bicubic") return Filter::bicubic;
  if (name == "lanczos") return Filter::lanczos;
  throw_error(ErrorCode::internal, "no filter is called {}", name);
}

inline ResizeArithmetic arithmetic_named(const std::string& name) {
  if (name == "torchvision") return ResizeArithmetic::torchvision;
  if (name == "pillow") return ResizeArithmetic::pillow;
  if (name == "pillow12") return ResizeArithmetic::pillow12;
  throw_error(ErrorCode::internal, "no arithmetic is called {}", name);
}

}  // namespace oriel::image
