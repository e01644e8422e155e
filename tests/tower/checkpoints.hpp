#pragma once
// The checkpoints of assets/tiny, and pictures to show them.
#include <gtest/gtest.h>

#include <oriel/oriel.hpp>
#include <random>
#include <string>
#include <vector>

#include "tower/scratch.hpp"

namespace oriel {

inline const std::vector<std::string> tiny_names{"gemma3", "mistral3", "pixtral", "qwen2_5_vl", "qwen2_vl", "siglip"};

inline VisionTower load_tiny(const std::string& name, LoadOptions options = {}) {
  if (options.threads == 0) options.threads = 2;
  return VisionTower::load(tiny(name), options);
}

/// Noise of a seed.
inline Image picture(Size size, uint64_t seed, const std::string& name = "picture") {
  std::mt19937_64 random(seed);
  std::vector<uint8_t> pixels(static_cast<size_t>(size.width * size.height * 3));
  for (uint8_t& value : pixels) value = static_cast<uint8_t>(random() >> 56);
  return Image::from_pixels({pixels.data(), size}, {}, name);
}

/// Pictures of mixed sizes, wide, tall, tiny.
inline std::vector<Image> mixed_pictures() {
  return {picture({97, 61}, 1), picture({30, 140}, 2), picture({9, 8}, 3), picture({97, 61}, 4),
          picture({128, 128}, 5)};
}

inline std::vector<float> values(const MMEmbedding& embedding) { return embedding.embeddings().to_float32(); }

}  // namespace oriel
