#pragma once
// The checkpoints of assets/tiny, copies of them that a test may spoil, and pictures to show them.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <oriel/oriel.hpp>
#include <random>
#include <string>
#include <vector>

#include "core/expect_error.hpp"
#include "core/safetensors.hpp"
#include "core/temporary_directory.hpp"

namespace oriel {

inline const std::vector<std::string> tiny_names{"gemma3", "mistral3", "pixtral", "qwen2_5_vl", "qwen2_vl", "siglip"};

inline std::string tiny(const std::string& name) { return std::string(ORIEL_ASSETS) + "/tiny/" + name; }

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

/// A tensor that owns its bytes.
struct StoredTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};

/// A copy of a tiny checkpoint, to be changed.
class Scratch {
 public:
  explicit Scratch(const std::string& name) {
    for (const auto& entry : std::filesystem::directory_iterator(tiny(name)))
      std::filesystem::copy_file(entry.path(), directory_.path() / entry.path().filename());
  }

  [[nodiscard]] std::string path(const std::string& file = "") const {
    return file.empty() ? directory_.path().string() : (directory_.path() / file).string();
  }
  [[nodiscard]] std::string read(const std::string& file) const {
    std::ifstream stream(path(file), std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  void write(const std::string& file, const std::string& content) const { directory_.write(file, content); }
  void remove(const std::string& file) const { ASSERT_TRUE(std::filesystem::remove(path(file))) << file; }

  /// Replaces the first `from` of a file, which must be there.
  void replace(const std::string& file, const std::string& from, const std::string& to) const {
    std::string text = read(file);
    const size_t place = text.find(from);
    ASSERT_NE(place, std::string::npos) << file << " has no " << from;
    write(file, text.replace(place, from.size(), to));
  }

  [[nodiscard]] std::vector<StoredTensor> tensors() const {
    const SafetensorsFile file = SafetensorsFile::open(path("model.safetensors"));
    std::vector<StoredTensor> result;
    for (const TensorInfo& tensor : file.tensors()) {
      const auto bytes = file.bytes(tensor);
      result.push_back({tensor.name, tensor.dtype, tensor.shape, {bytes.begin(), bytes.end()}});
    }
    return result;
  }
  void write_tensors(const std::vector<StoredTensor>& tensors, const std::string& file = "model.safetensors") const {
    std::vector<TensorToWrite> entries;
    for (const StoredTensor& tensor : tensors)
      entries.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.bytes});
    write_safetensors(path(file), entries);
  }

  [[nodiscard]] VisionTower load(LoadOptions options = {}) const {
    if (options.threads == 0) options.threads = 1;
    return VisionTower::load(path(), options);
  }
  /// `message` is what follows the directory's path.
  void expect_refused(ErrorCode code, const std::string& message) const {
    expect_error(code, path() + message, [&] { (void)load(); });
  }

 private:
  TemporaryDirectory directory_;
};

}  // namespace oriel
