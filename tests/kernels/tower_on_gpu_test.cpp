// Whole towers on a GPU, through the public headers: against the CPU, packed and single, from graphs, from threads.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>

#include <map>
#include <oriel/torch.hpp>
#include <thread>

#include "kernels/towers.hpp"
#include "tower/checkpoints.hpp"

namespace oriel {
namespace {

TEST_F(TowerOnGpu, EqualsTheCpuInFloat32) {
  for (const std::string& family : all_towers) {
    SCOPED_TRACE(family);
    const VisionTower cpu = load(family, Device::cpu(), DType::float32);
    const VisionTower gpu = load(family, Device::cuda(), DType::float32);
    const std::vector<Image> images = pictures();
    const auto truth = cpu.get_image_embeddings(images);
    const auto ours = gpu.get_image_embeddings(images);
    for (size_t i = 0; i < images.size(); ++i) {
      const std::vector<float> expected = values(truth[i]);
      EXPECT_LT(largest_difference(values(ours[i]), expected), 1e-4 * scale(expected));
      EXPECT_EQ(ours[i].placeholder_tokens(), truth[i].placeholder_tokens());
    }
  }
}

// A bfloat16 has 8 bits: after a few layers an error of some percent of the scale is that of the dtype. What it is next
// to transformers' own error is measured on full-size towers by benchmarks/gpu.py.
TEST_F(TowerOnGpu, IsNearTheTruthIn16Bits) {
  for (const std::string& family : all_towers)
    for (const DType dtype : {DType::bfloat16, DType::float16}) {
      SCOPED_TRACE(family);
      const VisionTower cpu = load(family, Device::cpu(), DType::float32);
      const VisionTower gpu = load(family, Device::cuda(), dtype);
      const double tolerance = dtype == DType::bfloat16 ? 0.05 : 0.01;
      for (const auto& [width, height] : std::vector<std::pair<int64_t, int64_t>>{{100, 80}, {330, 250}}) {
        const Image image = noise(width, height, 1);
        const std::vector<float> expected = values(cpu.get_image_embeddings(image));
        for (int round = 0; round < 3; ++round)  // plain, captured, replayed
          EXPECT_LT(largest_difference(values(gpu.get_image_embeddings(image)), expected), tolerance * scale(expected));
      }
    }
}

// The tests here are of graphs only as long as there are some.
TEST_F(TowerOnGpu, SmallCallsOfHeadsThatAKernelTakesAreGraphs) {
  for (const std::string& family : shaped_families)
    for (const DType dtype : {DType::bfloat16, DType::float16}) {
      SCOPED_TRACE(family);
      const VisionTower tower = load(family, Device::cuda(), dtype);
      for (int round = 0; round < 4; ++round) {
        EXPECT_TRUE(runs_as_graph(tower, {noise(96, 80, 1)})) << "round " << round;
        EXPECT_TRUE(runs_as_graph(tower, pictures())) << "round " << round;
      }
    }
  EXPECT_FALSE(runs_as_graph(load("pixtral_64", Device::cuda(), DType::float32), {noise(96, 80, 1)}));
  EXPECT_FALSE(runs_as_graph(load("pixtral", Device::cuda(), DType::bfloat16), {noise(96, 80, 1)}));
}

TEST_F(TowerOnGpu, RepeatedCallsOfOneSizeGiveTheSameRows) {
  for (const std::string& family : all_towers) {
    SCOPED_TRACE(family);
    const VisionTower tower = load(family, Device::cuda(), DType::bfloat16);
    std::map<int, std::vector<float>> first;  // by picture; the first call of a size is plain, later ones are replayed
    for (int round = 0; round < 4; ++round)
      for (int picture = 0; picture < 3; ++picture) {
        const auto rows = values(tower.get_image_embeddings(noise(96, 80, static_cast<uint32_t>(picture))));
        if (round == 0)
          first[picture] = rows;
        else
          EXPECT_LT(largest_difference(rows, first[picture]), 0.02 * scale(first[picture])) << "round " << round;
      }
    EXPECT_GT(largest_difference(first[0], first[1]), 0.0) << "other pixels give other rows";
  }
}

TEST_F(TowerOnGpu, PackedEqualsSingleWithinTheRoundingOfTheDtype) {
  for (const std::string& family : all_towers) {
    SCOPED_TRACE(family);
    const VisionTower tower = load(family, Device::cuda(), DType::bfloat16);
    const std::vector<Image> images = pictures();
    const auto packed = tower.get_image_embeddings(images);
    for (size_t i = 0; i < images.size(); ++i) {
      const std::vector<float> single = values(tower.get_image_embeddings(images[i]));
      EXPECT_LT(largest_difference(values(packed[i]), single), 0.03 * scale(single));
    }
  }
}

/// Four threads, each on a stream of its own, with four pictures that take turns.
class TowerOfManyThreads : public TowerOnGpu, public ::testing::WithParamInterface<std::string> {};

TEST_P(TowerOfManyThreads, GivesEachTheRowsOfItsOwnPictures) {
  const VisionTower tower = load(GetParam(), Device::cuda(), DType::bfloat16);
  const std::vector<Image> images = pictures();
  std::vector<std::vector<float>> expected;
  for (const Image& image : images) expected.push_back(values(tower.get_image_embeddings(image)));
  std::vector<std::thread> threads;
  std::vector<double> worst(4, 0.0);
  for (size_t thread = 0; thread < worst.size(); ++thread)
    threads.emplace_back([&, thread] {
      const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());  // each its own
      for (size_t round = 0; round < 25; ++round) {
        const size_t i = (thread + round) % images.size();
        const auto rows = values(tower.get_image_embeddings(images[i]));
        worst[thread] = std::max(worst[thread], largest_difference(rows, expected[i]) / scale(expected[i]));
      }
    });
  for (std::thread& thread : threads) thread.join();
  // A graph's products may take other algorithms than the plain call's: rounding of the dtype, not another picture's
  // rows.
  for (const double distance : worst) EXPECT_LT(distance, 0.02);
}

std::vector<std::string> towers_with_graphs() {
  std::vector<std::string> towers = shaped_families;
  towers.push_back("qwen2_5_vl");
  return towers;
}

INSTANTIATE_TEST_SUITE_P(Towers, TowerOfManyThreads, ::testing::ValuesIn(towers_with_graphs()),
                         [](const auto& tower) { return tower.param; });

TEST_F(TowerOnGpu, TwoTowersWorkAtOnce) {
  const std::vector<std::string> pair{"pixtral_64", "gemma3_72"};
  std::vector<VisionTower> towers;
  for (const std::string& family : pair) towers.push_back(load(family, Device::cuda(), DType::bfloat16));
  const Image image = noise(96, 80, 5);
  std::vector<std::vector<float>> expected;
  for (const VisionTower& tower : towers) expected.push_back(values(tower.get_image_embeddings(image)));
  std::vector<double> worst(towers.size(), 0.0);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < towers.size(); ++i)
    threads.emplace_back([&, i] {
      const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool());
      for (int round = 0; round < 100; ++round)  // captures of one beside launches and replays of the other
        worst[i] = std::max(worst[i], largest_difference(values(towers[i].get_image_embeddings(image)), expected[i]) /
                                          scale(expected[i]));
    });
  for (std::thread& thread : threads) thread.join();
  for (const double distance : worst) EXPECT_LT(distance, 0.02);
}

TEST_F(TowerOnGpu, DeterministicPacksChangeNoBit) {
  std::vector<Image> images = pictures();
  for (const uint32_t seed : {11, 12, 13}) images.push_back(noise(97, 64, seed));  // neighbours of one size
  for (const std::string& family : all_towers)
    for (const DType dtype : {DType::bfloat16, DType::float16, DType::float32}) {
      SCOPED_TRACE(family + ", " + std::string(to_string(dtype)));
      const VisionTower tower = load(family, Device::cuda(), dtype, /*deterministic=*/true);
      for (int round = 0; round < 3; ++round) {  // plain, captured, replayed
        const auto packed = tower.get_image_embeddings(images);
        for (size_t i = 0; i < images.size(); ++i)
          EXPECT_EQ(values(packed[i]), values(tower.get_image_embeddings(images[i])))
              << "picture " << i << ", round " << round;
      }
    }
}

TEST_F(TowerOnGpu, PixelsOnTheDeviceGiveThePatchesOfTheHost) {
  for (const std::string& family : families) {
    SCOPED_TRACE(family);
    const VisionTower tower = load(family, Device::cuda(), DType::float32);
    for (const auto& [width, height] : std::vector<std::pair<int64_t, int64_t>>{{97, 33}, {640, 480}, {64, 200}}) {
      const Image image = noise(width, height, 7);
      const Patches host = tower.preprocess({&image, 1});
      const at::Tensor bytes =
          at::from_blob(const_cast<uint8_t*>(image.rgb().data()), {height, width, 3}, at::kByte).cuda();
      const at::Tensor planes = bytes.permute({2, 0, 1}).contiguous();
      const DevicePixelView views[] = {{.data = bytes.const_data_ptr<uint8_t>(), .size = {width, height}},
                                       {.data = planes.const_data_ptr<uint8_t>(),
                                        .size = {width, height},
                                        .row_stride_bytes = width,
                                        .column_stride_bytes = 1,
                                        .channel_stride_bytes = width * height}};
      for (const DevicePixelView& view : views) {
        const Patches device = tower.preprocess({&view, 1});
        EXPECT_EQ(device.values.device(), Device::cuda());
        EXPECT_EQ(device.values.to_float32(), host.values.to_float32());
        const auto rows = tower.get_image_embeddings({&view, 1});
        const std::vector<float> expected = values(tower.get_image_embeddings(host).front());
        EXPECT_LT(largest_difference(values(rows.front()), expected), 1e-5 * scale(expected));
      }
    }
  }
}

TEST_F(TowerOnGpu, OutOfMemoryIsSaidBeforeACallStarts) {
  const VisionTower tower = load("pixtral", Device::cuda(), DType::bfloat16);
  const Image image = noise(64, 64, 1);
  const std::vector<float> rows = values(tower.get_image_embeddings(image));
  const Patches small = tower.preprocess({&image, 1});
  const int64_t side = 1 << 10;
  Patches large;
  large.images.push_back({.grid = {1, side, side}, .name = "large"});
  large.values = from_torch(at::zeros({side * side, small.values.size(1)}, at::dtype(at::kBFloat16).device(at::kCUDA)));
  c10::cuda::CUDACachingAllocator::emptyCache();  // of what other tests left behind
  size_t free = 0;
  size_t total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  const int64_t left = int64_t{256} << 20;  // the tower's work on `large` takes some 800 MiB
  const at::Tensor taken = at::empty({static_cast<int64_t>(free) - left}, at::dtype(at::kByte).device(at::kCUDA));
  try {
    (void)tower.encode(large);
    ADD_FAILURE() << "expected out_of_memory";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    EXPECT_NE(std::string(error.what()).find("encode: 1048576 patches need "), std::string::npos) << error.what();
  }
  EXPECT_LT(largest_difference(values(tower.get_image_embeddings(image)), rows), 0.02 * scale(rows)) << "still usable";
}

/// A tiny tower with a middle so wide that its graph of 4096 patches takes hundreds of megabytes.
VisionTower load_wide() {
  constexpr size_t wide = 1 << 16;
  const Scratch scratch("qwen2_5_vl");
  scratch.replace("config.json", "\"intermediate_size\": 44", "\"intermediate_size\": " + std::to_string(wide));
  std::vector<StoredTensor> tensors = scratch.tensors();
  for (StoredTensor& tensor : tensors) {
    if (tensor.name.find("visual.blocks") == std::string::npos) continue;
    const size_t own = tensor.bytes.size();
    for (int64_t& side : tensor.shape) {
      if (side != 44) continue;
      side = static_cast<int64_t>(wide);
      tensor.bytes.resize(own / 44 * wide);  // zeros behind those that are there
    }
  }
  scratch.write_tensors(tensors);
  return VisionTower::load(scratch.path(), {.device = Device::cuda(), .dtype = DType::bfloat16});
}

TEST_F(TowerOnGpu, OutOfMemoryIsNotSaidWhereAGraphHasTheMemory) {
  // Not what earlier tests left cached: with something of this one in it, it would stay, and be free for others below.
  c10::cuda::CUDACachingAllocator::emptyCache();
  const VisionTower tower = load_wide();
  const int64_t patch_values = 3 * 2 * tower.patch_size() * tower.patch_size();
  const auto square = [&](int64_t height, int64_t width) {
    Patches patches;
    patches.images.push_back({.grid = {1, height, width}, .name = "square"});
    patches.values =
        from_torch(at::full({height * width, patch_values}, 0.5, at::dtype(at::kBFloat16).device(at::kCUDA)));
    return patches;
  };
  const Patches patches = square(64, 64);
  const Patches other = square(62, 62);  // not later: it would lie in what the first call left cached, and keep that
  const auto rows = [&] { return tower.encode(patches).front().to_float32(); };
  (void)rows();  // plain
  const std::vector<float> expected = rows();
  c10::cuda::CUDACachingAllocator::emptyCache();
  size_t free = 0;
  size_t total = 0;
  ASSERT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
  const int64_t left = int64_t{128} << 20;  // a replay takes some tens, most of them the projection's workspace
  const at::Tensor taken = at::empty({static_cast<int64_t>(free) - left}, at::dtype(at::kByte).device(at::kCUDA));
  EXPECT_EQ(rows(), expected);
  const auto refused = [](const auto& call) {
    try {
      call();
      ADD_FAILURE() << "expected out_of_memory";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
      EXPECT_NE(std::string(error.what()).find(" patches need "), std::string::npos) << error.what();
    }
  };
  refused([&] { (void)tower.encode(other); });                                        // has no graph
  refused([&] { (void)tower.get_hidden_states(patches, std::vector<int64_t>{0}); });  // runs plainly
  EXPECT_EQ(rows(), expected) << "still usable";
}

TEST_F(TowerOnGpu, RowsStayOnTheDeviceIfWanted) {
  const VisionTower tower = load("pixtral", Device::cuda(), DType::bfloat16);
  const MMEmbedding embedding = tower.get_image_embeddings(noise(64, 64, 3), {.embeddings_cpu = false});
  EXPECT_EQ(embedding.embeddings().device(), Device::cuda());
  EXPECT_EQ(embedding.embeddings().dtype(), DType::bfloat16);
}

}  // namespace
}  // namespace oriel
