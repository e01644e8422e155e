// A tower on a stream of the caller's: who waits for whom, and what stays as it was.
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <oriel/torch.hpp>
#include <thread>

#include "kernels/towers.hpp"
#include "tower_arrangement.hpp"

namespace oriel {
namespace {

using namespace std::chrono_literals;

class CallersStream : public TowerOnGpu {
 protected:
  void SetUp() override {
    TowerOnGpu::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), cudaSuccess);
  }
  void TearDown() override {
    if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  }
  void expect_no_wait(const std::function<Tensor(const EmbedOptions&)>& call);

  cudaStream_t stream_ = nullptr;
};

/// Holds a stream up until it is let go; at most ten seconds, so that a host that waits for it is found out.
class Barrier {
 public:
  explicit Barrier(cudaStream_t stream) { EXPECT_EQ(cudaLaunchHostFunc(stream, &hold, this), cudaSuccess); }
  void let_go() { open_ = true; }
  [[nodiscard]] bool ran_out() const { return ran_out_; }

 private:
  static void CUDART_CB hold(void* self) {
    auto& barrier = *static_cast<Barrier*>(self);
    const auto end = std::chrono::steady_clock::now() + 10s;
    while (!barrier.open_ && !barrier.ran_out_) {
      std::this_thread::sleep_for(1ms);
      barrier.ran_out_ = std::chrono::steady_clock::now() > end;
    }
  }
  std::atomic<bool> open_{false};
  std::atomic<bool> ran_out_{false};
};

/// Runs a call until its size is known (products are timed, a graph is captured, memory is there), and once more while
/// nothing on the stream can run.
void CallersStream::expect_no_wait(const std::function<Tensor(const EmbedOptions&)>& call) {
  const EmbedOptions options{.embeddings_cpu = false, .stream = stream_};
  std::vector<float> expected;
  for (int round = 0; round < 4; ++round) {
    const Tensor rows = call(options);
    ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
    expected = rows.to_float32();
  }
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);

  Barrier barrier(stream_);
  const Tensor rows = call(options);
  EXPECT_EQ(cudaStreamQuery(stream_), cudaErrorNotReady) << "nothing can have run yet";
  barrier.let_go();
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_FALSE(barrier.ran_out()) << "the call waited for the stream";
  EXPECT_EQ(rows.to_float32(), expected);
}

TEST_F(CallersStream, CallsAreEnqueuedThereAndTheHostDoesNotWait) {
  for (const DType dtype : {DType::bfloat16, DType::float32}) {  // a graph, and one launch after the other
    for (const std::string& family : all_towers) {
      SCOPED_TRACE(family);
      const VisionTower tower = load(family, Device::cuda(), dtype);
      const Image image = noise(96, 80, 3);
      expect_no_wait(
          [&](const EmbedOptions& options) { return tower.get_image_embeddings(image, options).embeddings(); });
    }
  }
}

// Of so many patches neither graphs nor arrangements are kept: all that a call needs is made and uploaded anew.
TEST_F(CallersStream, TheHostDoesNotWaitForLargeCallsEither) {
  for (const std::string& family : shaped_families) {
    SCOPED_TRACE(family);
    const VisionTower tower = load(family, Device::cuda(), DType::bfloat16);
    const bool has_one_size = family == "gemma3_72" || family == "siglip_72";
    const Grid grid = has_one_size ? tower.plan({64, 64}).grid : Grid{1, 96, 96};
    Patches patches;
    int64_t count = 0;
    for (; count <= ArrangementCache::most_patches; count += grid.patches())
      patches.images.push_back({.grid = grid, .name = "random"});
    const int64_t values = 3 * tower.patch_size() * tower.patch_size() * (tower.has_video() ? 2 : 1);
    patches.values = from_torch(at::randn({count, values}, at::dtype(at::kBFloat16).device(at::kCUDA)));
    expect_no_wait([&](const EmbedOptions& options) {
      return tower.encode(patches, {.embeddings_cpu = false, .stream = options.stream}).back();
    });
  }
}

TEST_F(CallersStream, TheHostDoesNotWaitForPatchesFromItsMemory) {
  for (const DType dtype : {DType::bfloat16, DType::float32})
    for (const std::string family : {"pixtral_64", "qwen2_5_vl_80", "siglip_72"}) {
      SCOPED_TRACE(family);
      const VisionTower tower = load(family, Device::cuda(), dtype);
      const VisionTower host_tower = load(family, Device::cpu(), DType::float32);
      const Image image = noise(96, 80, 3);
      Patches patches = host_tower.preprocess({&image, 1});
      ASSERT_EQ(patches.values.device(), Device::cpu());
      expect_no_wait([&](const EmbedOptions& options) {
        Patches of_this_call = patches;
        const at::Tensor mine = to_torch(patches.values).clone();
        of_this_call.values = from_torch(mine);
        const Tensor rows = tower.get_image_embeddings(of_this_call, options).front().embeddings();
        mine.fill_(0.25);  // the call has what it needs
        return rows;
      });
      // Pinned memory is read where it lies by copies that do not wait: not by these.
      patches.values = from_torch(to_torch(patches.values).pin_memory());
      const at::Tensor pinned = to_torch(patches.values);
      const at::Tensor kept = pinned.clone();
      expect_no_wait([&](const EmbedOptions& options) {
        pinned.copy_(kept);
        const Tensor rows = tower.get_image_embeddings(patches, options).front().embeddings();
        pinned.fill_(0.25);
        return rows;
      });
    }
}

TEST_F(CallersStream, TheHostDoesNotWaitForRowsOfSpecialTokens) {
  for (const std::string family : {"pixtral_64", "qwen2_vl_80"}) {
    SCOPED_TRACE(family);
    const VisionTower tower = load(family, Device::cuda(), DType::bfloat16);
    const Image image = noise(96, 80, 3);
    const int64_t width = tower.get_image_embeddings(image).embeddings().shape()[1];
    expect_no_wait([&](EmbedOptions options) {
      options.layout = TokenLayout::exllamav2;
      options.token_rows = [&](std::span<const int64_t> tokens) {
        return from_torch(at::full({static_cast<int64_t>(tokens.size()), width}, 0.5));
      };
      return tower.get_image_embeddings(image, options).embeddings();
    });
  }
}

TEST_F(CallersStream, WhatTheCallReadsIsReadInItsOrder) {
  const VisionTower tower = load("qwen2_5_vl_80", Device::cuda(), DType::bfloat16, /*deterministic=*/true);
  const Image image = noise(96, 80, 3);
  Patches patches = tower.preprocess({&image, 1});
  const at::Tensor host = to_torch(patches.values).to(at::kBFloat16);
  const at::Tensor late = at::randn(host.sizes(), host.options().device(at::kCUDA));  // other values, to begin with
  for (int round = 0; round < 3; ++round) (void)tower.encode(patches, {.stream = stream_});
  const std::vector<float> expected = tower.encode(patches).front().to_float32();
  patches.values = from_torch(late);
  const at::Tensor pinned = host.pin_memory();
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);

  Barrier barrier(stream_);
  ASSERT_EQ(cudaMemcpyAsync(late.mutable_data_ptr(), pinned.const_data_ptr(), pinned.nbytes(), cudaMemcpyHostToDevice,
                            stream_),
            cudaSuccess);
  const std::vector<Tensor> rows = tower.encode(patches, {.embeddings_cpu = false, .stream = stream_});
  barrier.let_go();
  ASSERT_EQ(cudaStreamSynchronize(stream_), cudaSuccess);
  EXPECT_EQ(rows.front().to_float32(), expected) << "the patches that were copied there in the stream's order";
}

TEST_F(CallersStream, TheThreadsCurrentStreamStaysWhatItWas) {
  const VisionTower tower = load("pixtral", Device::cuda(), DType::bfloat16);
  const Image image = noise(64, 64, 1);
  const c10::cuda::CUDAStream before = c10::cuda::getCurrentCUDAStream();
  (void)tower.get_image_embeddings(image, {.stream = stream_});
  EXPECT_EQ(c10::cuda::getCurrentCUDAStream(), before);
  std::stop_source stop;
  stop.request_stop();
  EXPECT_THROW((void)tower.get_image_embeddings(image, {.cancel = stop.get_token(), .stream = stream_}), Error);
  EXPECT_EQ(c10::cuda::getCurrentCUDAStream(), before);
}

TEST_F(CallersStream, EveryStageTakesOneAndTheRowsAreTheSame) {
  for (const std::string& family : all_towers) {
    SCOPED_TRACE(family);
    const VisionTower tower = load(family, Device::cuda(), DType::bfloat16, /*deterministic=*/true);
    const std::vector<Image> images = pictures();
    const auto expected = tower.get_image_embeddings(images);
    const Patches patches = tower.preprocess(images, {.stream = stream_});
    const std::vector<int64_t> layers{0, -1};
    const auto hidden = tower.get_hidden_states(patches, layers);
    for (void* stream : {static_cast<void*>(stream_), static_cast<void*>(cudaStreamLegacy)}) {
      const auto rows = tower.get_image_embeddings(images, {.stream = stream});
      for (size_t i = 0; i < images.size(); ++i) EXPECT_EQ(values(rows[i]), values(expected[i]));
      const auto states = tower.get_hidden_states(patches, layers, {.stream = stream});
      for (size_t i = 0; i < layers.size(); ++i) EXPECT_EQ(states[i].to_float32(), hidden[i].to_float32());
    }
  }
}

TEST_F(CallersStream, RowsInACacheAreFinished) {
  const VisionTower tower = load("pixtral", Device::cuda(), DType::bfloat16);
  EmbeddingCache cache;
  const Image image = noise(64, 64, 1);
  const MMEmbedding embedding = cache.get_image_embeddings(tower, image, {.embeddings_cpu = false, .stream = stream_});
  EXPECT_EQ(cudaStreamQuery(stream_), cudaSuccess);
  EXPECT_EQ(cache.get_image_embeddings(tower, image, {.embeddings_cpu = false}).first_id(), embedding.first_id());
}

void expect_refused(const VisionTower& tower, const Image& image, void* stream, const std::string& message) {
  try {
    (void)tower.get_image_embeddings(image, {.stream = stream});
    ADD_FAILURE() << "expected: " << message;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::invalid_argument);
    EXPECT_EQ(std::string(error.what()), message);
  }
}

TEST_F(CallersStream, OneNameForManyStreamsIsRefused) {
  expect_refused(load("pixtral", Device::cuda(), DType::bfloat16), noise(64, 64, 1), cudaStreamPerThread,
                 "stream: expected a stream of its own, got cudaStreamPerThread");
}

TEST_F(CallersStream, AStreamOfAnotherGpuIsRefused) {
  int devices = 0;
  ASSERT_EQ(cudaGetDeviceCount(&devices), cudaSuccess);
  if (devices < 2) GTEST_SKIP() << "one GPU";
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  cudaStream_t other = nullptr;
  ASSERT_EQ(cudaStreamCreate(&other), cudaSuccess);
  ASSERT_EQ(cudaSetDevice(0), cudaSuccess);
  expect_refused(load("pixtral", Device::cuda(), DType::bfloat16), noise(64, 64, 1), other,
                 "stream: expected one of cuda:0, got one of cuda:1");
  EXPECT_EQ(cudaStreamDestroy(other), cudaSuccess);
}

}  // namespace
}  // namespace oriel
