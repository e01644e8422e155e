// Videos whose frames become patches on the GPU, from host memory and from the GPU's own: the CPU's values bit for bit.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <oriel/torch.hpp>

#include "kernels/towers.hpp"

namespace oriel {
namespace {

class VideoOnGpu : public TowerOnGpu {
 protected:
  static constexpr Size size{97, 61};
  inline static const std::vector<std::string> families_with_video{"qwen2_vl", "qwen2_5_vl"};

  static std::vector<Image> frames(int64_t count) {
    std::vector<Image> result;
    for (int64_t i = 0; i < count; ++i) result.push_back(noise(size.width, size.height, static_cast<uint32_t>(i)));
    return result;
  }
  static at::Tensor bytes_of(const Image& image) {
    return at::from_blob(const_cast<uint8_t*>(image.rgb().data()), {size.height, size.width, 3}, at::kByte);
  }
  static DevicePixelView interleaved(const at::Tensor& bytes) {
    return {.data = bytes.const_data_ptr<uint8_t>(), .size = size};
  }
  static DevicePixelView planes(const at::Tensor& bytes) {
    return {.data = bytes.const_data_ptr<uint8_t>(),
            .size = size,
            .row_stride_bytes = size.width,
            .column_stride_bytes = 1,
            .channel_stride_bytes = size.width * size.height};
  }
  /// Frames on the GPU, and what keeps them there.
  struct OnGpu {
    std::vector<at::Tensor> memory;
    std::vector<DevicePixelView> views;
  };
  static OnGpu side_by_side(const std::vector<Image>& images) {
    OnGpu result;
    const auto count = static_cast<int64_t>(images.size());
    const at::Tensor all = at::empty({count, size.height, size.width, 3}, at::dtype(at::kByte).device(at::kCUDA));
    for (int64_t i = 0; i < count; ++i) {
      all[i].copy_(bytes_of(images[static_cast<size_t>(i)]));
      result.views.push_back(interleaved(all[i]));
    }
    result.memory.push_back(all);
    return result;
  }
  /// Each frame in memory of its own, every other one in planes.
  static OnGpu scattered(const std::vector<Image>& images) {
    OnGpu result;
    for (size_t i = 0; i < images.size(); ++i) {
      const at::Tensor bytes = bytes_of(images[i]).cuda();
      result.memory.push_back(i % 2 == 0 ? bytes : bytes.permute({2, 0, 1}).contiguous());
      result.views.push_back(i % 2 == 0 ? interleaved(result.memory.back()) : planes(result.memory.back()));
    }
    return result;
  }
};

TEST_F(VideoOnGpu, FramesOnTheDeviceGiveThePatchesOfTheHost) {
  for (const std::string& family : families_with_video)
    for (const int64_t count : {1, 2, 5}) {  // an odd last frame fills its slot
      SCOPED_TRACE(family + ", " + std::to_string(count) + " frames");
      const VisionTower tower = load(family, Device::cuda(), DType::float32);
      const std::vector<Image> images = frames(count);
      const std::vector<OnGpu> places{side_by_side(images), scattered(images)};
      for (const OnGpu& place : places)
        for (const ResizeBackend resize : {ResizeBackend::torchvision, ResizeBackend::pillow}) {
          const VideoOptions options{.fps = 12, .embed = {.resize = resize}};
          const Patches host = tower.preprocess_video(images, options);
          const Patches device = tower.preprocess_video(place.views, options);
          EXPECT_EQ(device.values.device(), Device::cuda());
          EXPECT_EQ(device.values.to_float32(), host.values.to_float32());
          EXPECT_EQ(device.images.front().grid, host.images.front().grid);
          EXPECT_TRUE(device.images.front().is_video);
          EXPECT_EQ(device.images.front().seconds_per_slot, host.images.front().seconds_per_slot);
          EXPECT_EQ(device.images.front().name, "frame 0");
        }
    }
}

TEST_F(VideoOnGpu, PatchesAreRoundedToTheTowersDtype) {
  const VisionTower tower = load("qwen2_vl", Device::cuda(), DType::bfloat16);
  const std::vector<Image> images = frames(4);
  const OnGpu place = side_by_side(images);
  const Patches device = tower.preprocess_video(place.views);
  EXPECT_EQ(device.values.dtype(), DType::bfloat16);
  const at::Tensor host = to_torch(tower.preprocess_video(images).values).to(at::kBFloat16);
  EXPECT_TRUE(to_torch(device.values).cpu().equal(host));
}

TEST_F(VideoOnGpu, SampledFramesAreThoseOfTheHost) {
  const VisionTower tower = load("qwen2_5_vl", Device::cuda(), DType::float32);
  const std::vector<Image> images = frames(9);
  const OnGpu place = scattered(images);
  const VideoOptions options{.sample_frames = 4};
  EXPECT_EQ(tower.preprocess_video(place.views, options).values.to_float32(),
            tower.preprocess_video(images, options).values.to_float32());
}

TEST_F(VideoOnGpu, RowsAreThoseOfThePatchesAndTheHashIsTheCpus) {
  for (const std::string& family : families_with_video) {
    SCOPED_TRACE(family);
    const VisionTower cpu = load(family, Device::cpu(), DType::float32);
    const VisionTower gpu = load(family, Device::cuda(), DType::float32);
    const std::vector<Image> images = frames(5);
    const MMEmbedding truth = cpu.get_video_embeddings(images, {.fps = 12});
    const MMEmbedding of_host = gpu.get_video_embeddings(images, {.fps = 12});
    const OnGpu place = side_by_side(images);
    const MMEmbedding of_device = gpu.get_video_embeddings(place.views, {.fps = 12});
    EXPECT_EQ(of_host.content_hash(), truth.content_hash());
    EXPECT_EQ(of_device.content_hash(), ContentHash{});
    for (const MMEmbedding* ours : {&of_host, &of_device}) {
      // float32 on both sides: a few roundings, as for pictures
      EXPECT_LT(largest_difference(values(*ours), values(truth)), 1e-4 * scale(values(truth)));
      EXPECT_EQ(ours->placeholder_tokens(), truth.placeholder_tokens());
      EXPECT_EQ(ours->info().seconds_per_slot, truth.info().seconds_per_slot);
      EXPECT_EQ(ours->grid(), truth.grid());
    }
  }
}

TEST_F(VideoOnGpu, BadFramesAreNamed) {
  const VisionTower tower = load("qwen2_vl", Device::cuda(), DType::float32);
  OnGpu place = side_by_side(frames(3));
  const auto expect_refused = [&](const std::string& message) {
    try {
      (void)tower.get_video_embeddings(place.views);
      ADD_FAILURE() << "expected: " << message;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
      EXPECT_EQ(std::string(error.what()), message);
    }
  };
  place.views[2].size.height -= 1;
  expect_refused("frame 2: expected a frame of 97 x 61 as the first one, got 97 x 60");
  place.views[1].data = nullptr;
  expect_refused("frame 1: expected pixels, got a null pointer");
  place.views.clear();
  expect_refused("video: expected at least one frame, got none");
}

}  // namespace
}  // namespace oriel
