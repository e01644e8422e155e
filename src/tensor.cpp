#include <ATen/DLConvertor.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstring>
#include <oriel/tensor.hpp>
#include <oriel/torch.hpp>

#include "core/error.hpp"
#include "device.hpp"
#include "tensor_types.hpp"
#include "torch_errors.hpp"

namespace oriel {

struct Tensor::Impl {
  at::Tensor tensor;  // contiguous
  std::vector<int64_t> shape;
};

struct TensorAccess {
  static const at::Tensor& get(const Tensor& tensor) {
    if (!tensor.defined())
      throw_error(ErrorCode::invalid_argument, "tensor: expected a defined tensor, got an empty one");
    return tensor.impl_->tensor;
  }
  static Tensor make(at::Tensor value) {
    Tensor result;
    std::vector<int64_t> shape = value.sizes().vec();
    result.impl_ = std::make_shared<const Tensor::Impl>(Tensor::Impl{std::move(value), std::move(shape)});
    return result;
  }
};

Tensor::Tensor() = default;

Tensor Tensor::copy_of(std::span<const float> data, std::vector<int64_t> shape) {
  return copy_of(std::as_bytes(data), DType::float32, std::move(shape));
}

Tensor Tensor::copy_of(std::span<const int64_t> data, std::vector<int64_t> shape) {
  return copy_of(std::as_bytes(data), DType::int64, std::move(shape));
}

Tensor Tensor::copy_of(std::span<const std::byte> bytes, DType dtype, std::vector<int64_t> shape) {
  int64_t expected = static_cast<int64_t>(oriel::size_in_bytes(dtype));
  for (const int64_t side : shape)
    expected = checked_multiply(expected, side, "tensor shape", ErrorCode::invalid_argument);
  if (expected != static_cast<int64_t>(bytes.size()))
    throw_error(ErrorCode::invalid_argument, "tensor: expected {} bytes for its shape, got {}", expected, bytes.size());
  // A side of 0 hides the others from the product above, but not from libtorch's strides.
  int64_t strides = 1;
  for (const int64_t side : shape)
    strides = checked_multiply(strides, std::max<int64_t>(side, 1), "tensor shape", ErrorCode::invalid_argument);
  const c10::InferenceMode guard;
  return with_torch_errors("tensor", [&] {
    at::Tensor copy = at::empty(shape, at::dtype(to_scalar_type(dtype)));
    if (!bytes.empty()) std::memcpy(copy.mutable_data_ptr(), bytes.data(), bytes.size());
    return TensorAccess::make(std::move(copy));
  });
}

const std::vector<int64_t>& Tensor::shape() const {
  (void)TensorAccess::get(*this);
  return impl_->shape;
}

int64_t Tensor::size(int dimension) const {
  const auto rank = static_cast<int>(shape().size());
  const int index = dimension < 0 ? dimension + rank : dimension;
  if (index < 0 || index >= rank)
    throw_error(ErrorCode::invalid_argument, "tensor: expected a dimension of {}, got {}", rank, dimension);
  return shape()[static_cast<size_t>(index)];
}

int64_t Tensor::element_count() const { return TensorAccess::get(*this).numel(); }
DType Tensor::dtype() const { return from_scalar_type(TensorAccess::get(*this).scalar_type()); }
Device Tensor::device() const { return from_torch_device(TensorAccess::get(*this).device()); }
size_t Tensor::size_in_bytes() const { return TensorAccess::get(*this).nbytes(); }
const void* Tensor::data() const { return TensorAccess::get(*this).const_data_ptr(); }

std::vector<float> Tensor::to_float32() const {
  const at::Tensor& tensor = TensorAccess::get(*this);
  const c10::InferenceMode guard;
  return with_torch_errors("tensor", [&] {
    const at::Tensor host = tensor.to(at::kCPU, at::kFloat).contiguous();
    const auto* values = host.const_data_ptr<float>();
    return std::vector<float>(values, values + host.numel());
  });
}

Tensor Tensor::to(Device device) const {
  const at::Tensor& tensor = TensorAccess::get(*this);
  check_device(device);
  const c10::InferenceMode guard;
  return with_torch_errors("tensor", [&] { return TensorAccess::make(tensor.to(to_torch_device(device))); });
}

Tensor Tensor::to(DType dtype) const {
  const at::Tensor& tensor = TensorAccess::get(*this);
  const at::ScalarType type = to_scalar_type(dtype);
  const c10::InferenceMode guard;
  return with_torch_errors("tensor", [&] { return TensorAccess::make(tensor.to(type)); });
}

Tensor Tensor::rows(int64_t begin, int64_t end) const {
  const int64_t count = size(0);
  if (begin < 0 || begin > end || end > count)
    throw_error(ErrorCode::invalid_argument, "tensor: expected rows within [0, {}], got [{}, {})", count, begin, end);
  const c10::InferenceMode guard;
  return with_torch_errors("tensor",
                           [&] { return TensorAccess::make(TensorAccess::get(*this).narrow(0, begin, end - begin)); });
}

DLManagedTensor* Tensor::to_dlpack() const {
  const at::Tensor& tensor = TensorAccess::get(*this);
  return with_torch_errors("tensor", [&] { return at::toDLPack(tensor); });
}

at::Tensor to_torch(const Tensor& tensor) { return TensorAccess::get(tensor); }

Tensor from_torch(const at::Tensor& tensor) {
  if (!tensor.defined()) return {};
  (void)from_scalar_type(tensor.scalar_type());
  (void)from_torch_device(tensor.device());
  return TensorAccess::make(tensor.contiguous());
}

}  // namespace oriel
