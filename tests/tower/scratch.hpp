#pragma once
// Copies of the checkpoints of assets/tiny that a test may change.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <oriel/oriel.hpp>
#include <string>
#include <vector>

#include "core/expect_error.hpp"
#include "core/safetensors.hpp"
#include "core/temporary_directory.hpp"

namespace oriel {

inline std::string tiny(const std::string& name) { return std::string(ORIEL_ASSETS) + "/tiny/" + name; }

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
