#pragma once
// The pictures of tests/data/pictures, what Pillow makes of them, and expectations about errors.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "core/safetensors.hpp"
#include "oriel/error.hpp"
#include "oriel/image.hpp"

namespace oriel::testing {

using ByteVector = std::vector<std::byte>;

inline std::filesystem::path pictures() { return std::filesystem::path(ORIEL_TEST_DATA) / "pictures"; }

inline ByteVector read_picture(const std::string& name) {
  std::ifstream file(pictures() / name, std::ios::binary);
  EXPECT_TRUE(file.good()) << name;
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

/// What goldens.safetensors says about one picture.
struct Expected {
  std::string name, format;
  int orientation = 1;
  bool has_alpha = false;
};

struct Golden {
  Size size;
  std::vector<uint8_t> rgb;
};

class PictureGoldens {
 public:
  static const PictureGoldens& get() {
    static const PictureGoldens goldens;
    return goldens;
  }
  [[nodiscard]] std::vector<Expected> pictures() const {
    std::vector<Expected> all;
    for (const auto& [name, line] : file_.metadata()) {
      if (name == "pillow") continue;
      Expected expected{name, {}};
      std::istringstream(line) >> expected.format >> expected.orientation >> expected.has_alpha;
      all.push_back(expected);
    }
    return all;
  }
  [[nodiscard]] bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  [[nodiscard]] Golden load(const std::string& name) const {
    const TensorInfo* tensor = file_.find(name);
    if (tensor == nullptr) throw std::runtime_error("no golden " + name);
    const auto bytes = file_.bytes(*tensor);
    const auto* begin = reinterpret_cast<const uint8_t*>(bytes.data());
    return {{tensor->shape.at(1), tensor->shape.at(0)}, {begin, begin + bytes.size()}};
  }

 private:
  SafetensorsFile file_ = SafetensorsFile::open(testing::pictures() / "goldens.safetensors");
};

/// Bit equality, with the first difference.
inline ::testing::AssertionResult equals(const Image& image, const Golden& golden) {
  if (image.size() != golden.size) {
    return ::testing::AssertionFailure() << "expected " << golden.size.width << " x " << golden.size.height << ", got "
                                         << image.size().width << " x " << image.size().height;
  }
  const auto rgb = image.rgb();
  const auto difference = std::mismatch(rgb.begin(), rgb.end(), golden.rgb.begin(), golden.rgb.end());
  if (difference.first == rgb.end() && difference.second == golden.rgb.end()) return ::testing::AssertionSuccess();
  const int64_t at = difference.first - rgb.begin();
  const int64_t pixel = at / 3;
  return ::testing::AssertionFailure() << "channel " << at % 3 << " at (" << pixel % image.size().width << ", "
                                       << pixel / image.size().width << "): expected " << int{*difference.second}
                                       << ", got " << int{*difference.first};
}

/// The code and the text of the Error that `function` throws.
template <typename Function>
void expect_error(ErrorCode code, const std::string& text, Function&& function) {
  try {
    static_cast<void>(function());
    ADD_FAILURE() << "expected an error: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(to_string(error.code()), to_string(code));
    EXPECT_EQ(std::string(error.what()), text);
  }
}

/// A file in an allocation of exactly its size, so that AddressSanitizer sees one byte too far.
inline ByteVector first_bytes(const ByteVector& bytes, size_t count) {
  return ByteVector(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
}

inline ByteVector bytes_of(std::string_view text) {
  const auto* begin = reinterpret_cast<const std::byte*>(text.data());
  return {begin, begin + text.size()};
}

}  // namespace oriel::testing
