#pragma once
// The safetensors format (https://github.com/huggingface/safetensors#format): 8 bytes of header length, a JSON header,
// tensor bytes. Files are untrusted: everything in a header is checked when it is read.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
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
  /// Maps the file and checks its header: header length within the file and at most 100 MB, valid JSON, known dtypes,
  /// non-negative shapes whose product times element size equals the byte range, ranges inside the file, without
  /// overlap and without holes, no duplicate names. Throws file_error, malformed_model or, for a header of millions of
  /// values, limit_exceeded; the message names the file, the tensor and both values.
  ///
  /// The file must not shrink while it is mapped: the system ends a process that reads pages that are gone.
  [[nodiscard]] static SafetensorsFile open(const std::filesystem::path& path);

  [[nodiscard]] const std::filesystem::path& path() const;
  /// In the order of their bytes.
  [[nodiscard]] const std::vector<TensorInfo>& tensors() const;
  /// nullptr if there is none.
  [[nodiscard]] const TensorInfo* find(std::string_view name) const;
  /// The bytes of a tensor of this file; they live as long as this object or a copy. They may start at any address:
  /// copy them rather than reading elements in place. Throws invalid_argument if the range is not one of this file.
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

/// One tensor to write.
struct TensorToWrite {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;
};
/// Writes a file that transformers and safetensors read: tensors of wide elements first, data starting at a multiple of
/// 64 bytes, so that every element is aligned. Writes to a temporary name in the same directory and renames, so that a
/// reader never sees half a file. Throws invalid_argument for an unknown dtype, a byte count that does not fit the
/// shape, or names that are equal or not UTF-8; file_error if the file can't be written.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorToWrite> tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace oriel
