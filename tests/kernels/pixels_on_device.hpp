#pragma once
// What tests and benchmarks of the pixel kernels share: pictures and tables in device memory, and the parameters.
#include <cuda_runtime_api.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "image/resize_tables.hpp"
#include "ops/cuda/patches_params.hpp"
#include "pixels.h"

namespace oriel::kernels {

inline void check_cuda(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

inline bool has_device() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

/// Device memory of exactly this many bytes.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t size) : size_(size) {
    if (size > 0) check_cuda(cudaMalloc(&data_, size), "cudaMalloc");
  }
  explicit DeviceBytes(std::span<const uint8_t> bytes) : DeviceBytes(bytes.size()) {
    check_cuda(cudaMemcpy(data_, bytes.data(), bytes.size(), cudaMemcpyHostToDevice), "copying to the device");
  }
  ~DeviceBytes() { cudaFree(data_); }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  DeviceBytes(DeviceBytes&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

  [[nodiscard]] uint8_t* data() const { return static_cast<uint8_t*>(data_); }
  [[nodiscard]] size_t size() const { return size_; }
  void fill(uint8_t byte) const { check_cuda(cudaMemset(data_, byte, size_), "cudaMemset"); }
  [[nodiscard]] std::vector<uint8_t> to_host() const {
    std::vector<uint8_t> bytes(size_);
    check_cuda(cudaMemcpy(bytes.data(), data_, size_, cudaMemcpyDeviceToHost), "copying to the host");
    return bytes;
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

/// The tables of one resize on the device.
class DeviceTables {
 public:
  explicit DeviceTables(const image::PixelTables& tables) : buffer_(packed(tables)) {}
  [[nodiscard]] const uint8_t* data() const { return buffer_.data(); }

 private:
  static std::vector<uint8_t> packed(const image::PixelTables& tables) {
    std::vector<uint8_t> bytes(static_cast<size_t>(tables.bytes()));
    tables.write(bytes);
    return bytes;
  }
  DeviceBytes buffer_;
};

using ops::cuda::params_of;

}  // namespace oriel::kernels
