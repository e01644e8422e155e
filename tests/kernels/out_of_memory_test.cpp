// Towers on a GPU that is full: what does not fit is refused before it starts, what does is not, and towers stay
// usable.
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>

#include <functional>
#include <oriel/torch.hpp>
#include <regex>
#include <string>
#include <vector>

#include "kernels/towers.hpp"

namespace oriel {
namespace {

constexpr int64_t mebibyte = int64_t{1} << 20;

/// Takes what is free on the GPU but for some bytes; behind libtorch's back, which would first give back what it keeps.
class FullGpu {
 public:
  explicit FullGpu(int64_t left) {
    size_t free = 0;
    size_t total = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    EXPECT_EQ(cudaMalloc(&memory_, free - static_cast<size_t>(left)), cudaSuccess);
  }
  ~FullGpu() { (void)cudaFree(memory_); }
  FullGpu(const FullGpu&) = delete;
  FullGpu& operator=(const FullGpu&) = delete;

 private:
  void* memory_ = nullptr;
};

class OutOfMemory : public TowerOnGpu {
 protected:
  static void expect_refused(const std::string& pattern, const std::function<void()>& call) {
    try {
      call();
      ADD_FAILURE() << "expected: " << pattern;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
      EXPECT_TRUE(std::regex_match(error.what(), std::regex(pattern))) << error.what();
    }
  }
};

TEST_F(OutOfMemory, SmallCallsAreCheckedAsLargeOnesAre) {
  const VisionTower tower = load("pixtral", Device::cuda(), DType::bfloat16);
  const Image image = noise(64, 64, 1);
  const Patches patches = tower.preprocess({&image, 1});
  const std::vector<int64_t> layers{0, 1, 2};
  const std::vector<float> rows = values(tower.get_image_embeddings(image));
  c10::cuda::CUDACachingAllocator::emptyCache();
  {
    const FullGpu full(8 * mebibyte);  // the products' workspace alone is 32
    const std::string refusal = R"(encode: \d+ patches need \d+ bytes on cuda:0, \d+ are free)";
    expect_refused(refusal, [&] { (void)tower.encode(patches); });
    expect_refused(refusal, [&] { (void)tower.get_hidden_states(patches, layers); });
    expect_refused(refusal, [&] { (void)tower.get_image_embeddings(image); });
  }
  EXPECT_LT(largest_difference(values(tower.get_image_embeddings(image)), rows), 0.02 * scale(rows)) << "still usable";
}

TEST_F(OutOfMemory, PatchesThatDoNotFitAreRefused) {
  const VisionTower tower = load("qwen2_vl", Device::cuda(), DType::bfloat16);
  constexpr Size size{4000, 3000};
  const Image image = noise(size.width, size.height, 1);
  const at::Tensor pixels = at::empty({3 * size.width * size.height}, at::dtype(at::kByte).device(at::kCUDA));
  const DevicePixelView view{.data = pixels.const_data_ptr<uint8_t>(), .size = size};
  const int64_t max_pixels = int64_t{1} << 28;
  c10::cuda::CUDACachingAllocator::emptyCache();
  const FullGpu full(64 * mebibyte);  // the patches take some 130
  expect_refused(R"(preprocess: \d+ patches need \d+ bytes on cuda:0, \d+ are free)", [&] {
    (void)tower.preprocess({&view, 1}, {.max_pixels = max_pixels});
  });
  const std::string refusal = R"(encode: \d+ patches need \d+ bytes on cuda:0, \d+ are free)";
  expect_refused(refusal, [&] { (void)tower.get_image_embeddings({&view, 1}, {.max_pixels = max_pixels}); });
  expect_refused(refusal, [&] { (void)tower.get_image_embeddings(image, {.max_pixels = max_pixels}); });
  expect_refused(refusal, [&] { (void)tower.get_video_embeddings({&view, 1}, {.embed = {.max_pixels = max_pixels}}); });
}

// What a graph needs is held by it: that is not wanted a second time.
TEST_F(OutOfMemory, CallsThatAreReplayedNeedNothingNew) {
  for (const std::string family : {"qwen2_vl", "qwen2_5_vl"}) {
    SCOPED_TRACE(family);
    const VisionTower tower = load(family, Device::cuda(), DType::bfloat16);
    const Image image = noise(640, 480, 1);
    std::vector<float> rows;
    for (int call = 0; call < 4; ++call) rows = values(tower.get_image_embeddings(image));
    const FullGpu full(4 * mebibyte);
    for (int call = 0; call < 4; ++call)
      EXPECT_LT(largest_difference(values(tower.get_image_embeddings(image)), rows), 0.02 * scale(rows));
  }
}

}  // namespace
}  // namespace oriel
