// Pixels that a caller says are in the GPU's memory: what is not is refused, and the GPU stays usable.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <cuda_runtime_api.h>

#include <cstring>
#include <oriel/torch.hpp>
#include <string>
#include <vector>

#include "kernels/gpu.hpp"
#include "kernels/towers.hpp"

namespace oriel {
namespace {

class DevicePixels : public TowerOnGpu {
 protected:
  static constexpr Size size{97, 33};
  static constexpr int64_t picture_bytes = 3 * size.width * size.height;

  /// Copies it to memory that CUDA allocated; the pixels must give the patches of the picture in host memory.
  static void expect_read(const VisionTower& tower, void* memory) {
    const Image image = noise(size.width, size.height, 7);
    std::memcpy(memory, image.rgb().data(), static_cast<size_t>(picture_bytes));
    const DevicePixelView view{.data = static_cast<const uint8_t*>(memory), .size = size};
    EXPECT_EQ(tower.preprocess({&view, 1}).values.to_float32(), tower.preprocess({&image, 1}).values.to_float32());
  }
  static void expect_refused(const VisionTower& tower, const DevicePixelView& view, const std::string& message) {
    for (const bool embed : {false, true}) try {
        if (embed)
          (void)tower.get_image_embeddings({&view, 1});
        else
          (void)tower.preprocess({&view, 1});
        ADD_FAILURE() << "expected: " << message;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
        EXPECT_EQ(std::string(error.what()), message);
      }
  }
};

TEST_F(DevicePixels, HostMemoryIsRefusedAndTheGpuStaysUsable) {
  const VisionTower tower = load("qwen2_vl", Device::cuda(), DType::float32);
  const std::vector<uint8_t> host(picture_bytes);
  const DevicePixelView view{.data = host.data(), .size = size};
  expect_refused(tower, view,
                 "image 0: expected pixels in the memory of cuda:0, got a pointer to host memory, or none that CUDA "
                 "knows");
  try {
    (void)tower.get_video_embeddings({&view, 1});
    ADD_FAILURE() << "expected a refusal";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()),
              "frame 0: expected pixels in the memory of cuda:0, got a pointer to host memory, or none that CUDA "
              "knows");
  }
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);
  EXPECT_NO_THROW((void)tower.get_image_embeddings(noise(size.width, size.height, 1)));
}

TEST_F(DevicePixels, StridesThatLeadOutOfTheMemoryAreRefused) {
  const VisionTower tower = load("pixtral", Device::cuda(), DType::float32);
  const at::Tensor bytes = at::empty({picture_bytes}, at::dtype(at::kByte).device(at::kCUDA));
  DevicePixelView view{.data = bytes.const_data_ptr<uint8_t>(), .size = size};
  constexpr int64_t far = int64_t{1} << 40;  // no GPU has so much
  view.row_stride_bytes = far;
  expect_refused(tower, view,
                 "image 0: expected pixels in the memory of cuda:0, but its strides lead " +
                     std::to_string((size.height - 1) * far + (size.width - 1) * 3 + 2) +
                     " bytes from data to host memory, or none that CUDA knows");
  view.row_stride_bytes = -far;
  expect_refused(tower, view,
                 "image 0: expected pixels in the memory of cuda:0, but its strides lead " +
                     std::to_string(-(size.height - 1) * far) +
                     " bytes from data to host memory, or none that CUDA knows");
}

TEST_F(DevicePixels, ManagedAndPinnedMemoryAreRead) {
  const VisionTower tower = load("pixtral", Device::cuda(), DType::float32);
  void* managed = nullptr;
  ASSERT_EQ(cudaMallocManaged(&managed, picture_bytes), cudaSuccess);
  expect_read(tower, managed);
  EXPECT_EQ(cudaFree(managed), cudaSuccess);
  void* pinned = nullptr;
  ASSERT_EQ(cudaMallocHost(&pinned, picture_bytes), cudaSuccess);
  expect_read(tower, pinned);
  EXPECT_EQ(cudaFreeHost(pinned), cudaSuccess);
}

TEST_F(DevicePixels, AnErrorOfTheCallersOwnIsNotTakenForOurs) {
  const VisionTower tower = load("qwen2_vl", Device::cuda(), DType::float32);
  for (const Size target : {size, Size{480, 360}}) {
    const Image image = noise(target.width, target.height, 7);
    const std::vector<float> expected = tower.preprocess({&image, 1}).values.to_float32();
    fail_elsewhere();
    const Patches patches = tower.preprocess({&image, 1});
    EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation) << "it is left to whoever it belongs to";
    EXPECT_EQ(patches.values.to_float32(), expected);
  }
}

TEST_F(DevicePixels, AnotherGpusMemoryIsRefused) {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess || count < 2) GTEST_SKIP() << "there is one GPU";
  const VisionTower tower = load("pixtral", Device::cuda(), DType::float32);
  const at::Tensor bytes = at::empty({picture_bytes}, at::dtype(at::kByte).device(at::Device(at::kCUDA, 1)));
  expect_refused(tower, {.data = bytes.const_data_ptr<uint8_t>(), .size = size},
                 "image 0: expected pixels in the memory of cuda:0, got a pointer to memory of cuda:1");
}

TEST_F(DevicePixels, AMirroredPictureNeedsNoRowStride) {
  const VisionTower tower = load("pixtral", Device::cuda(), DType::float32);
  const Image image = noise(size.width, size.height, 7);
  std::vector<uint8_t> mirrored(picture_bytes);
  for (int64_t y = 0; y < size.height; ++y)
    for (int64_t x = 0; x < size.width; ++x)
      std::memcpy(&mirrored[static_cast<size_t>(3 * (y * size.width + size.width - 1 - x))],
                  &image.rgb()[static_cast<size_t>(3 * (y * size.width + x))], 3);
  const at::Tensor bytes = at::from_blob(mirrored.data(), {picture_bytes}, at::kByte).cuda();
  const DevicePixelView view{
      .data = bytes.const_data_ptr<uint8_t>() + 3 * (size.width - 1), .size = size, .column_stride_bytes = -3};
  EXPECT_EQ(tower.preprocess({&view, 1}).values.to_float32(), tower.preprocess({&image, 1}).values.to_float32());
}

}  // namespace
}  // namespace oriel
