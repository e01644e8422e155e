#pragma once
// Small towers on a GPU, and what tests of them compare.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <oriel/oriel.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tower/shaped_checkpoints.hpp"

namespace oriel {

/// The tiny ones: head dims of 10 to 20, which libtorch's attention serves, and for which but one family has graphs.
inline const std::vector<std::string> families{"pixtral", "mistral3", "qwen2_vl", "qwen2_5_vl", "gemma3", "siglip"};
/// With the head dims of real models: our attention kernels serve these, and small calls are graphs.
inline const std::vector<std::string> shaped_families{"pixtral_64",    "mistral3_64", "qwen2_vl_80",
                                                      "qwen2_5_vl_80", "gemma3_72",   "siglip_72"};
inline const std::vector<std::string> all_towers = [] {
  std::vector<std::string> all = families;
  all.insert(all.end(), shaped_families.begin(), shaped_families.end());
  return all;
}();

class TowerOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      (void)load("siglip", Device::cuda(), DType::float32);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::unavailable) throw;
      GTEST_SKIP() << error.what();
    }
  }
  static VisionTower load(const std::string& family, Device device, DType dtype, bool deterministic = false) {
    return VisionTower::load(checkpoint(family), {.device = device, .dtype = dtype, .deterministic = deterministic});
  }
  static Image noise(int64_t width, int64_t height, uint32_t seed) {
    std::mt19937 random(seed);
    std::vector<uint8_t> pixels(static_cast<size_t>(3 * width * height));
    for (uint8_t& value : pixels) value = static_cast<uint8_t>(random());
    return Image::from_pixels({.data = pixels.data(), .size = {width, height}, .channels = 3});
  }
  static std::vector<Image> pictures() {
    std::vector<Image> result;
    for (const auto& [width, height] :
         std::vector<std::pair<int64_t, int64_t>>{{40, 60}, {97, 33}, {260, 340}, {64, 50}})
      result.push_back(noise(width, height, static_cast<uint32_t>(width)));
    return result;
  }
  static std::vector<float> values(const MMEmbedding& embedding) { return embedding.embeddings().to_float32(); }
  /// Whether a call of these pictures runs as a graph, or as the first one of its size does: then progress hears of all
  /// blocks together, and else of one after the other.
  static bool runs_as_graph(const VisionTower& tower, const std::vector<Image>& images, EmbedOptions options = {}) {
    int reports = 0;
    options.progress = [&](const Progress& progress) {
      if (progress.stage == Progress::Stage::encode) ++reports;
    };
    (void)tower.get_image_embeddings(images, options);
    return reports == 2;
  }
  static double scale(const std::vector<float>& x) {
    double most = 0;
    for (const float value : x) most = std::max(most, std::abs(static_cast<double>(value)));
    return most;
  }
  static double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) return INFINITY;
    double most = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      const double difference = std::abs(static_cast<double>(a[i]) - b[i]);
      if (!(difference <= most)) most = difference;  // NaN, too
    }
    return most;
  }
};

}  // namespace oriel
