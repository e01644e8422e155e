#pragma once
// The weight files of a model directory as the Hugging Face hub lays them out (spec/weights.md 1).
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/safetensors.hpp"

namespace oriel {

/// All weights of a checkpoint directory: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
/// Only the shards that hold a wanted tensor are opened, so that a tower can be loaded from a partial download.
class CheckpointFiles {
 public:
  /// `wanted(name)` says which tensors matter. Where both kinds are there, the single file wins, as in transformers.
  /// Throws file_error if there is no weight file (the message lists the names looked for, and names pickled, GGUF or
  /// Mistral's own files that are there instead) or needed shards are missing (it lists them all); malformed_model if
  /// the index names tensors that their shard does not hold, if a shard's path leaves the directory, or if two opened
  /// shards hold the same wanted name.
  [[nodiscard]] static CheckpointFiles open(const std::filesystem::path& directory,
                                            const std::function<bool(std::string_view name)>& wanted);

  struct Entry {
    const SafetensorsFile* file;
    const TensorInfo* tensor;
  };
  /// The wanted tensors by name.
  [[nodiscard]] const std::map<std::string, Entry, std::less<>>& tensors() const { return tensors_; }
  [[nodiscard]] const std::vector<SafetensorsFile>& files() const { return *files_; }

 private:
  CheckpointFiles();
  void add_wanted_tensors_of(const SafetensorsFile& file, const std::function<bool(std::string_view name)>& wanted);

  std::shared_ptr<std::vector<SafetensorsFile>> files_;  // filled by open and constant after it; entries point into it
  std::map<std::string, Entry, std::less<>> tensors_;
};

}  // namespace oriel
