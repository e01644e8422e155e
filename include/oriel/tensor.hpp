#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <oriel/export.hpp>
#include <oriel/types.hpp>

struct DLManagedTensor;  // dlpack.h

namespace oriel {

/// A dense row-major array on some device, without a framework in its interface (oriel/torch.hpp converts it).
/// A value: copies share the storage. Safe to read from many threads.
class ORIEL_API Tensor {
 public:
  /// An empty tensor: defined() is false, and every other member but the assignments throws invalid_argument.
  Tensor();
  /// Copies to new host memory. `data.size()` must equal the product of `shape`, else invalid_argument is thrown.
  [[nodiscard]] static Tensor copy_of(std::span<const float> data, std::vector<int64_t> shape);
  [[nodiscard]] static Tensor copy_of(std::span<const int64_t> data, std::vector<int64_t> shape);
  /// Copies `bytes`, elements of `dtype` in native byte order; the same error.
  [[nodiscard]] static Tensor copy_of(std::span<const std::byte> bytes, DType dtype, std::vector<int64_t> shape);

  [[nodiscard]] bool defined() const noexcept { return impl_ != nullptr; }
  [[nodiscard]] const std::vector<int64_t>& shape() const;
  /// Length of one dimension; negative counts from the end. Throws invalid_argument beyond the dimensions.
  [[nodiscard]] int64_t size(int dimension) const;
  [[nodiscard]] int64_t element_count() const;
  [[nodiscard]] DType dtype() const;
  [[nodiscard]] Device device() const;
  [[nodiscard]] size_t size_in_bytes() const;
  /// First element, contiguous row-major; a device pointer where device() is a GPU. Lives as long as any copy of this.
  [[nodiscard]] const void* data() const;

  /// Copies to host memory as float32. Waits for pending device work.
  [[nodiscard]] std::vector<float> to_float32() const;
  /// Same values elsewhere or in another dtype; shares storage where nothing changes. Throws unavailable for a device
  /// that this build or machine does not have.
  [[nodiscard]] Tensor to(Device device) const;
  [[nodiscard]] Tensor to(DType dtype) const;
  /// Rows [begin, end) of the first dimension, sharing storage. Throws invalid_argument beyond them.
  [[nodiscard]] Tensor rows(int64_t begin, int64_t end) const;

  /// A DLPack capsule that shares the storage and keeps it alive; the receiver calls its deleter.
  [[nodiscard]] DLManagedTensor* to_dlpack() const;

 private:
  struct Impl;
  friend struct TensorAccess;
  std::shared_ptr<const Impl> impl_;
};

}  // namespace oriel
