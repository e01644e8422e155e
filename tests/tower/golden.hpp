#pragma once
// Reading the goldens of tests/data/towers, and comparing with them.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <oriel/oriel.hpp>
#include <string>
#include <vector>

#include "core/safetensors.hpp"

namespace oriel {

/// One golden.safetensors, as tests/goldens/make_tower_goldens.py writes it.
class Golden {
 public:
  explicit Golden(const std::filesystem::path& path) : file_(SafetensorsFile::open(path)) {}

  [[nodiscard]] bool has(const std::string& name) const { return file_.find(name) != nullptr; }
  [[nodiscard]] std::vector<int64_t> shape(const std::string& name) const { return info(name).shape; }

  template <typename Value>
  [[nodiscard]] std::vector<Value> values(const std::string& name) const {
    const auto bytes = file_.bytes(info(name));
    std::vector<Value> result(bytes.size() / sizeof(Value));
    std::memcpy(result.data(), bytes.data(), bytes.size());
    return result;
  }

  /// The pictures image.0, image.1, ...
  [[nodiscard]] std::vector<Image> images() const {
    std::vector<Image> result;
    for (size_t i = 0; has("image." + std::to_string(i)); ++i) {
      const std::string name = "image." + std::to_string(i);
      const auto pixels = values<uint8_t>(name);
      result.push_back(Image::from_pixels({pixels.data(), {shape(name)[1], shape(name)[0]}}, {}, name));
    }
    return result;
  }

  /// The frames video.<index>.frames.
  [[nodiscard]] std::vector<Image> frames(size_t index) const {
    const std::string name = "video." + std::to_string(index) + ".frames";
    const auto pixels = values<uint8_t>(name);
    const auto sides = shape(name);
    std::vector<Image> result;
    for (int64_t t = 0; t < sides[0]; ++t)
      result.push_back(Image::from_pixels({pixels.data() + t * sides[1] * sides[2] * 3, {sides[2], sides[1]}}, {},
                                          name + "[" + std::to_string(t) + "]"));
    return result;
  }

 private:
  [[nodiscard]] const TensorInfo& info(const std::string& name) const {
    const TensorInfo* tensor = file_.find(name);
    if (tensor == nullptr) throw std::runtime_error(file_.path().string() + " has no tensor " + name);
    return *tensor;
  }
  SafetensorsFile file_;
};

/// Every value within `tolerance` of the expected values' largest magnitude. NaN anywhere fails, and so do expected
/// values that are all zero: nothing could be told apart from them.
inline void expect_close(const std::vector<float>& got, const std::vector<float>& expected, double tolerance,
                         const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  double scale = 0;
  for (const float value : expected) scale = std::max(scale, std::abs(static_cast<double>(value)));
  ASSERT_GT(scale, 0) << what;
  size_t worst = 0;
  double worst_error = -1;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (!(error <= worst_error)) worst = i, worst_error = error;
    if (std::isnan(error)) break;
  }
  EXPECT_LE(worst_error, tolerance * scale) << what << ": element " << worst << " is " << got[worst] << ", expected "
                                            << expected[worst] << " (scale " << scale << ")";
}

/// Bit for bit.
inline void expect_identical(const std::vector<float>& got, const std::vector<float>& expected,
                             const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_EQ(std::memcmp(&got[i], &expected[i], sizeof(float)), 0)
        << what << ": element " << i << " is " << got[i] << ", expected " << expected[i];
}

/// The checkpoint directories under `root`, sorted.
inline std::vector<std::string> checkpoints_under(const std::string& root) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(root))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

inline const std::string towers_root = std::string(ORIEL_TEST_DATA) + "/towers";

}  // namespace oriel
