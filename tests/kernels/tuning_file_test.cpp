// Choices of algorithms that outlive the process, and what happens to damaged ones.
#include "ops/tuning_file.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/safetensors.hpp"
#include "core/temporary_directory.hpp"
#include "kernels/gpu.hpp"
#include "matmul.h"
#include "ops/cuda/launch.hpp"
#include "ops/device.hpp"
#include "ops/linear.hpp"
#include "oriel/oriel.hpp"

namespace oriel::ops {
namespace {

constexpr size_t row_numbers = 15;

class TuningFileOnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << no_gpu;
    x_ = at::randn({rows, 72}, at::dtype(at::kBFloat16).device(at::kCUDA));
    weight_ = at::randn({136, 72}, at::dtype(at::kBFloat16).device(at::kCUDA));
    workspace_ = at::empty({kernels::Matmul::workspace_bytes}, at::dtype(at::kByte).device(at::kCUDA));
  }

  /// The product by `matmul`.
  at::Tensor run(kernels::Matmul& matmul) const {
    at::Tensor y = at::empty({rows, 136}, x_.options());
    cuda::check(matmul({.x = x_.const_data_ptr(),
                        .weight = weight_.const_data_ptr(),
                        .y = y.mutable_data_ptr(),
                        .rows = rows,
                        .in = 72,
                        .out = 136,
                        .x_stride = 72,
                        .workspace = workspace_.mutable_data_ptr(),
                        .workspace_bytes = kernels::Matmul::workspace_bytes},
                       cuda::stream_of(x_)),
                "matmul");
    return y;
  }
  /// A product of a size that no other test has: what is chosen for it is new.
  static void choose(int64_t out) {
    const Linear linear(at::randn({out, 40}, at::dtype(at::kBFloat16).device(at::kCUDA)), {});
    (void)linear(at::randn({20, 40}, at::dtype(at::kBFloat16).device(at::kCUDA)));
  }
  static int64_t stored(const std::filesystem::path& path) {
    return SafetensorsFile::open(path).find("products")->shape[0];
  }

  static constexpr int64_t rows = 100;
  const c10::InferenceMode guard_;
  const c10::Device device_{at::kCUDA, 0};
  at::Tensor x_, weight_, workspace_;
};

TEST_F(TuningFileOnGpu, AdoptedChoicesAreNotTimedAgain) {
  kernels::Matmul first;
  const at::Tensor y = run(first);
  EXPECT_EQ(first.chosen(), 1);
  ASSERT_EQ(first.choices().size(), 1U);
  kernels::Matmul second;
  second.adopt(first.choices());
  EXPECT_TRUE(run(second).equal(y));
  EXPECT_EQ(second.chosen(), 0);
}

TEST_F(TuningFileOnGpu, ChoicesThatDoNotFitAreMadeAnew) {
  kernels::Matmul first;
  const at::Tensor y = run(first);
  const kernels::MatmulChoice good = first.choices().front();
  for (size_t setting = 0; setting < good.settings.size(); ++setting) {
    SCOPED_TRACE(setting);
    kernels::MatmulChoice bad = good;
    bad.settings[setting] = int64_t{1} << 40;
    kernels::Matmul second;
    second.adopt({bad});
    EXPECT_LT((run(second) - y).abs().max().item<float>(), 0.5F) << "of values up to some 40";
    EXPECT_EQ(second.chosen(), 1);
  }
}

TEST_F(TuningFileOnGpu, TheFasterOfTwoWaysIsTakenAndAdopted) {
  int calls = 0;
  const auto way = [&](int times) {
    return [&calls, times, this](const void* weight, cudaStream_t stream) {
      ++calls;
      for (int i = 0; i < times; ++i)
        cuda::check(cudaMemcpyAsync(workspace_.mutable_data_ptr(), weight, 136 * 72 * 2, cudaMemcpyDefault, stream),
                    "copy");
      return cudaSuccess;
    };
  };
  const auto fails = [](const void*, cudaStream_t) { return cudaErrorInvalidValue; };
  const auto ask = [&](kernels::Matmul& matmul, int64_t some_rows, kernels::Way first, kernels::Way second) {
    return matmul.is_faster({.shape = {.rows = some_rows, .in = 72, .out = 136, .x_stride = 72, .element = 1},
                             .first = std::move(first),
                             .second = std::move(second),
                             .weight = weight_.const_data_ptr(),
                             .weight_rows = 136,
                             .otherwise = some_rows == 3000},
                            cuda::stream_of(x_));
  };
  kernels::Matmul first;
  EXPECT_TRUE(ask(first, 1000, way(1), way(10)));
  EXPECT_FALSE(ask(first, 2000, way(10), way(1)));
  EXPECT_TRUE(ask(first, 3000, fails, fails)) << "what the caller expects";
  EXPECT_TRUE(ask(first, 4000, way(10), fails));
  EXPECT_EQ(first.chosen(), 4);
  EXPECT_GT(calls, 0);
  calls = 0;
  EXPECT_FALSE(ask(first, 2000, way(1), way(10)));
  kernels::Matmul second;
  second.adopt(first.choices());
  EXPECT_TRUE(ask(second, 1000, way(10), way(1)));
  EXPECT_FALSE(ask(second, 2000, way(1), way(10)));
  EXPECT_EQ(calls, 0);
  EXPECT_EQ(second.chosen(), 0);

  kernels::MatmulChoice neither = first.choices().front();
  neither.settings[0] = 3;
  kernels::Matmul third;
  third.adopt({neither});
  EXPECT_TRUE(ask(third, 1000, way(1), way(10)));
  EXPECT_EQ(third.chosen(), 1) << "made anew";
}

// The first call of a process with a tuning file, and the second one of any other: timing wants a workspace and room
// for the other way's results, a known answer must not.
TEST_F(TuningFileOnGpu, AKnownAnswerTakesNoRoom) {
  if (compute_capability(device_) != 90) GTEST_SKIP() << "this chip has no kernel for one of the ways";
  const auto allocations = [] {
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return c10::cuda::CUDACachingAllocator::getDeviceStats(0).allocation[all].allocated;
  };
  constexpr int64_t out = 520;
  for (const int64_t way : {1, 2}) {
    const int64_t in = 8 * (100 + way);  // as no other test has, so that nothing is remembered of it
    const kernels::MatmulShape shape{.rows = 128,
                                     .in = in,
                                     .out = out,
                                     .x_stride = in,
                                     .element = static_cast<int32_t>(kernels::Element::bfloat16),
                                     .epilogue = 16 | 32};
    cuda::products_of(device_).adopt({{shape, {way}}});
    const at::Tensor x = at::randn({128, in}, x_.options());
    const at::Tensor weight = at::randn({2 * out, in}, x_.options());
    (void)cuda::gated_linear(x, weight, {}, Activation::silu);  // times the product of the second way
    const int64_t before = allocations();
    (void)cuda::gated_linear(x, weight, {}, Activation::silu);
    EXPECT_EQ(allocations() - before, way == 1 ? 1 : 3) << "the result; apart, gate and up and their workspace, too";
  }
}

/// Has the GPU for itself: what others take would show.
class PlannedMemoryOfTiming : public TuningFileOnGpu {};

// As matrices that a tower's small call multiplies, long enough for the weight's place to matter.
TEST_F(PlannedMemoryOfTiming, LeavesNoMemoryBehind) {
  const at::Tensor weight = at::randn({1024, 1024}, at::dtype(at::kBFloat16).device(at::kCUDA));
  const Linear linear(weight, {});
  const at::Tensor x = at::randn({300, 1024}, weight.options());
  const auto free_bytes = [] {
    size_t free = 0;
    size_t total = 0;
    cuda::check(cudaDeviceSynchronize(), "wait");
    cuda::check(cudaMemGetInfo(&free, &total), "memory");
    return static_cast<int64_t>(free);
  };
  (void)linear(x.narrow(0, 0, 100));  // cuBLASLt's own and libtorch's blocks
  const int64_t before = free_bytes();
  (void)linear(x);
  EXPECT_GT(free_bytes(), before - (int64_t{32} << 20))
      << "code of kernels; the copies of the weight are 64 MiB or more";
}

TEST_F(TuningFileOnGpu, WritesWhatIsNewWithWhatIsThere) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "tuning";
  TuningFile file(path, device_);
  file.save_if_new();
  EXPECT_FALSE(std::filesystem::exists(path)) << "nothing was chosen";
  choose(1000);
  file.save_if_new();
  const int64_t before = stored(path);
  EXPECT_GE(before, 1);

  // Another process adds a shape of its own.
  const SafetensorsFile read = SafetensorsFile::open(path);
  const auto bytes = read.bytes(*read.find("products"));
  std::vector<int64_t> numbers(bytes.size() / sizeof(int64_t));
  std::memcpy(numbers.data(), bytes.data(), bytes.size());
  std::vector<int64_t> row(numbers.end() - row_numbers, numbers.end());
  row[0] = 123456;  // another number of rows
  numbers.insert(numbers.end(), row.begin(), row.end());
  const TensorToWrite tensor{
      "products", "I64", {before + 1, static_cast<int64_t>(row_numbers)}, std::as_bytes(std::span(numbers))};
  write_safetensors(path, {&tensor, 1}, read.metadata());
  choose(1008);
  file.save_if_new();
  EXPECT_EQ(stored(path), before + 2);
}

TEST_F(TuningFileOnGpu, OfAnotherGpuIsReplacedAndADamagedOneIsIgnored) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "tuning";
  const std::array<int64_t, row_numbers> row{};
  const TensorToWrite tensor{"products", "I64", {1, static_cast<int64_t>(row_numbers)}, std::as_bytes(std::span(row))};
  write_safetensors(path, {&tensor, 1}, {{"gpu", "another"}});
  TuningFile other(path, device_);
  choose(1016);
  other.save_if_new();
  EXPECT_NE(SafetensorsFile::open(path).metadata().at("gpu"), "another");
  const std::map<std::string, std::string> origin = SafetensorsFile::open(path).metadata();

  const TensorToWrite narrow{"products", "I64", {1, 3}, std::as_bytes(std::span(row).first(3))};
  write_safetensors(path, {&narrow, 1}, origin);
  ::testing::internal::CaptureStderr();
  TuningFile damaged(path, device_);
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("tuning_file: ignored: " + path.string() +
                                                          ": expected a tensor products of I64 [*, 15]"),
            std::string::npos);
  std::ofstream(path) << "no such file";
  ::testing::internal::CaptureStderr();
  TuningFile unreadable(path, device_);
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("tuning_file: ignored: "), std::string::npos);
  choose(1024);
  unreadable.save_if_new();
  EXPECT_GE(stored(path), 1);
}

TEST_F(TuningFileOnGpu, ATowerKeepsItUpToDate) {
  const TemporaryDirectory directory;
  const std::filesystem::path path = directory.path() / "tuning";
  const auto tower = VisionTower::load(std::string(ORIEL_ASSETS) + "/tiny/pixtral",
                                       {.device = Device::cuda(), .dtype = DType::float16, .tuning_file = path});
  const std::vector<uint8_t> pixels(size_t{3} * 400 * 368, 100);
  const Image image = Image::from_pixels({.data = pixels.data(), .size = {400, 368}, .channels = 3});
  choose(1032);
  (void)tower.get_image_embeddings(image);
  EXPECT_GE(stored(path), 1);
}

}  // namespace
}  // namespace oriel::ops
