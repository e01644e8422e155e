#pragma once
// The safetensors format (https://github.com/huggingface/safetensors#format): 8 bytes of header length, a JSON header,
// tensor bytes. Files are untrusted: everything in a header is checked when it is read.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace oriel {

/// One tensor as the header describes it.
struct TensorInfo {
  std::string name;
  std::string dtype;           ///< as in the file: "F32", "BF16", "F16", "I64", "U8", ...
  std::vector<int64_t> shape;  ///< product checked against the byte range
  int64_t begin = 0;           ///< first byte, relative to the file
  int64_t end = 0;             ///< one past the last byte
};

/// "[1024, 3, 16, 16]", for messages.
[[nodiscard]] std::string shape_to_string(std::span<const int64_t> shape);

/// A memory-mapped safetensors file. A cheap value; the mapping lives as long as any copy. Safe from many threads.
class SafetensorsFile {
 public:
  /// Maps the file and checks its header: header length within the file and below 100 MB, valid JSON, known dtypes,
  /// non-negative shapes whose product times element size equals the byte range, ranges inside the file, without
  /// overlap and without holes, no duplicate names. Throws file_error or malformed_model; the message names the
  /// file, the tensor and both values.
  [[nodiscard]] static SafetensorsFile open(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const;
  /// In file order.
  [[nodiscard]] const std::vector<TensorInfo>& tensors() const;
  /// nullptr if there is none.
  [[nodiscard]] const TensorInfo* find(std::string_view name) const;
  /// The bytes of a tensor of this file; they live as long as this object or a copy.
  [[nodiscard]] std::span<const std::byte> bytes(const TensorInfo& tensor) const;
  /// Tells the system that the pages of a tensor are not needed any more.
  void release(const TensorInfo& tensor) const;
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const;  ///< "__metadata__", strings only
  /// The header's own text, for fingerprints.
  [[nodiscard]] std::string_view header() const;

 private:
  struct Mapping;
  explicit SafetensorsFile(std::shared_ptr<const Mapping> mapping);
  std::shared_ptr<const Mapping> mapping_;
};

/// All weights of a checkpoint directory: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
/// Only the shards that hold a wanted tensor are opened, so that a tower can be loaded from a partial download.
class CheckpointFiles {
 public:
  /// `wanted(name)` says which tensors matter. Throws file_error if there is no weight file (the message lists the names
  /// looked for, and says so if only pickled or GGUF weights are there) or a needed shard is missing; malformed_model
  /// if the index names a tensor that its shard does not hold, if a shard's path leaves the directory, or if two shards
  /// hold the same name.
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
  std::shared_ptr<const std::vector<SafetensorsFile>> files_;
  std::map<std::string, Entry, std::less<>> tensors_;
};

/// One tensor to write.
struct TensorToWrite {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};
/// Writes a file that transformers and safetensors read; tensor data starts at a multiple of 64 bytes. Writes to a
/// temporary name in the same directory and renames, so that a reader never sees half a file. Throws file_error.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace oriel
