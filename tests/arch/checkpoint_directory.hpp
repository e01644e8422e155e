#pragma once
// Checkpoint directories that a test writes file by file.
#include <gtest/gtest.h>

#include <oriel/error.hpp>
#include <string>
#include <vector>

#include "arch/model_files.hpp"
#include "arch/registry.hpp"
#include "core/safetensors.hpp"
#include "core/temporary_directory.hpp"

namespace oriel::arch {

/// A tensor of zeros to write. Its dtype is a safetensors name; elements are 4 bytes for F32, 2 for BF16 and F16, 8 for
/// I64, 1 otherwise.
struct ZeroTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::string dtype = "F32";
};

class CheckpointDirectory {
 public:
  CheckpointDirectory() = default;
  explicit CheckpointDirectory(std::string_view config) { write("config.json", config); }

  [[nodiscard]] std::string path() const { return directory_.path().string(); }
  CheckpointDirectory& write(std::string_view name, std::string_view content) {
    directory_.write(name, content);
    return *this;
  }
  CheckpointDirectory& write_tensors(const std::vector<ZeroTensor>& tensors,
                                     std::string_view name = "model.safetensors") {
    std::vector<std::vector<std::byte>> bytes;
    for (const ZeroTensor& tensor : tensors) {
      size_t size = tensor.dtype == "F32" ? 4 : tensor.dtype == "I64" ? 8 : tensor.dtype == "U8" ? 1 : 2;
      for (const int64_t side : tensor.shape) size *= static_cast<size_t>(side);
      bytes.emplace_back(size);
    }
    std::vector<TensorToWrite> entries;
    for (size_t i = 0; i < tensors.size(); ++i)
      entries.push_back({tensors[i].name, tensors[i].dtype, tensors[i].shape, bytes[i]});
    write_safetensors(directory_.path() / name, entries);
    return *this;
  }
  [[nodiscard]] ModelFiles files() const { return ModelFiles::read(directory_.path()); }
  [[nodiscard]] std::unique_ptr<Architecture> architecture() const { return make_architecture(files()); }

 private:
  TemporaryDirectory directory_;
};

}  // namespace oriel::arch
