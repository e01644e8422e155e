#include "image/patches.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "core/expect_error.hpp"
#include "core/safetensors.hpp"
#include "image/patches_values.hpp"
#include "image/pixel_recipes.hpp"

namespace oriel::image {
namespace {

PixelSpec clip_spec(int64_t patch, int64_t temporal, int64_t merge) {
  PixelSpec spec;
  spec.patch = patch;
  spec.temporal = temporal;
  spec.merge = merge;
  spec.mean = {0.48145466, 0.4578275, 0.40821073};
  spec.std = {0.26862954, 0.26130258, 0.27577711};
  return spec;
}

std::vector<float> patches(const std::vector<Picture>& frames, Size target, const PixelSpec& spec,
                           ResizeArithmetic arithmetic, Simd simd, const ThreadPool& pool = ThreadPool(1)) {
  std::vector<RgbView> views;
  for (const Picture& frame : frames) views.push_back(frame.view());
  const int64_t count = (target.height / spec.patch) * (target.width / spec.patch) * spec.patch_values();
  // NaN shows where nothing was written; the sentinel behind, where too much was.
  std::vector<float> rows(static_cast<size_t>(count) + 32, std::numeric_limits<float>::quiet_NaN());
  write_patches(views, target, spec, arithmetic, pool, std::span(rows).first(static_cast<size_t>(count)), simd);
  for (size_t i = static_cast<size_t>(count); i < rows.size(); ++i) EXPECT_TRUE(std::isnan(rows[i]));
  rows.resize(static_cast<size_t>(count));
  return rows;
}

testing::AssertionResult bits_equal(std::span<const float> got, std::span<const float> expected, int64_t row_values) {
  if (got.size() != expected.size()) return testing::AssertionFailure() << "the sizes differ";
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(expected[i])) continue;
    return testing::AssertionFailure() << "row " << static_cast<int64_t>(i) / row_values << ", value "
                                       << static_cast<int64_t>(i) % row_values << ": " << got[i] << " instead of "
                                       << expected[i];
  }
  return testing::AssertionSuccess();
}

// --- what transformers' processors make of the same pictures ---

PixelSpec spec_from(const nlohmann::json& golden) {
  PixelSpec spec;
  spec.filter = filter_named(golden.at("filter"));
  spec.do_rescale = golden.at("do_rescale");
  spec.rescale_factor = golden.at("rescale_factor");
  spec.do_normalize = golden.at("do_normalize");
  spec.mean = golden.at("mean");
  spec.std = golden.at("std");
  spec.patch = golden.at("patch");
  spec.temporal = golden.at("temporal");
  spec.merge = golden.at("merge");
  return spec;
}

TEST(PatchGoldens, EqualTransformersProcessorsBitForBit) {
  const SafetensorsFile file = SafetensorsFile::open(ORIEL_TEST_DATA "/pixels/patches.safetensors");
  const nlohmann::json cases = nlohmann::json::parse(file.metadata().at("cases"));
  EXPECT_GE(cases.size(), 30U);
  int compared_whole = 0;
  for (const nlohmann::json& golden : cases) {
    const PixelSpec spec = spec_from(golden);
    const auto size = [&](const char* key) { return Size{golden.at(key).at(0), golden.at(key).at(1)}; };
    const Picture source = make_picture(golden.at("kind"), size("source"), golden.at("seed"));
    for (const Simd simd : supported_simd()) {
      const std::vector<float> got =
          patches({source}, size("target"), spec, arithmetic_named(golden.at("arithmetic")), simd);
      if (golden.contains("tensor")) {
        const std::span<const std::byte> bytes = file.bytes(*file.find(golden.at("tensor").get<std::string>()));
        std::vector<float> expected(bytes.size() / sizeof(float));
        std::memcpy(expected.data(), bytes.data(), bytes.size());
        EXPECT_TRUE(bits_equal(got, expected, spec.patch_values())) << name_of(simd) << " " << golden;
        ++compared_whole;
      }
      EXPECT_EQ(fmt::format("{:016x}", polynomial_hash(got.data(), got.size() * sizeof(float))), golden.at("hash"))
          << name_of(simd) << " " << golden;
    }
  }
  EXPECT_GE(compared_whole, 4);
}

// --- against a loop that a reader can check ---

std::vector<float> naive_patches(const std::vector<Picture>& frames, Size target, const PixelSpec& spec,
                                 ResizeArithmetic arithmetic) {
  std::vector<Picture> resized;
  for (const Picture& frame : frames) {
    resized.push_back(blank(target));
    resize(frame.view(), resized.back().mutable_view(), spec.filter, arithmetic, ThreadPool(1), Simd::plain);
  }
  const ValueTable table = make_value_table(spec, arithmetic);
  std::vector<float> rows;
  const auto add_patch = [&](int64_t patch_row, int64_t patch_column) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      for (int64_t slot = 0; slot < spec.temporal; ++slot) {
        const Picture& frame = resized[resized.size() == 1 ? 0 : static_cast<size_t>(slot)];
        for (int64_t y = patch_row * spec.patch; y < (patch_row + 1) * spec.patch; ++y) {
          for (int64_t x = patch_column * spec.patch; x < (patch_column + 1) * spec.patch; ++x) {
            const uint8_t byte = frame.rgb[static_cast<size_t>(3 * (y * target.width + x) + channel)];
            rows.push_back(table[static_cast<size_t>(channel)][byte]);
          }
        }
      }
    }
  };
  const int64_t grid_rows = target.height / spec.patch;
  const int64_t grid_columns = target.width / spec.patch;
  for (int64_t block_row = 0; block_row < grid_rows / spec.merge; ++block_row) {
    for (int64_t block_column = 0; block_column < grid_columns / spec.merge; ++block_column) {
      for (int64_t dy = 0; dy < spec.merge; ++dy) {
        for (int64_t dx = 0; dx < spec.merge; ++dx) {
          add_patch(block_row * spec.merge + dy, block_column * spec.merge + dx);
        }
      }
    }
  }
  return rows;
}

class PatchOrder : public testing::TestWithParam<Simd> {
 protected:
  void SetUp() override {
    if (!is_supported(GetParam())) GTEST_SKIP() << "this processor lacks " << name_of(GetParam());
  }
};

TEST_P(PatchOrder, EqualsANaiveLoopForRastersBlocksAndFrames) {
  for (const int64_t patch : {1, 2, 4, 7, 8, 14, 16, 19, 32}) {
    for (const int64_t temporal : {1, 2, 3}) {
      for (const int64_t merge : {1, 2, 3}) {
        const PixelSpec spec = clip_spec(patch, temporal, merge);
        const Size target{patch * merge * 2, patch * merge * 3};
        for (const int64_t frame_count : temporal == 1 ? std::vector<int64_t>{1} : std::vector<int64_t>{1, temporal}) {
          std::vector<Picture> frames;
          for (int64_t i = 0; i < frame_count; ++i) frames.push_back(noise({37, 53}, static_cast<uint64_t>(i)));
          for (const ResizeArithmetic arithmetic : {ResizeArithmetic::torchvision, ResizeArithmetic::pillow}) {
            EXPECT_TRUE(bits_equal(patches(frames, target, spec, arithmetic, GetParam()),
                                   naive_patches(frames, target, spec, arithmetic), spec.patch_values()))
                << "patch " << patch << ", temporal " << temporal << ", merge " << merge << ", frames " << frame_count;
          }
        }
      }
    }
  }
}

TEST_P(PatchOrder, EqualsANaiveLoopOnRandomSizes) {
  const uint32_t seed = std::random_device{}();
  RecordProperty("seed", std::to_string(seed));
  std::mt19937 engine(seed);
  const auto draw = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine);
  };
  for (int round = 0; round < 60 && !HasFailure(); ++round) {
    const PixelSpec spec = clip_spec(draw(5, 20), draw(1, 2), draw(1, 2));
    const int64_t block = spec.patch * spec.merge;
    Size target{block * draw(1, 6), block * draw(1, 6)};
    // Without blocks, pixels that do not fill a patch may remain.
    if (spec.merge == 1) target = {target.width + draw(0, spec.patch - 1), target.height + draw(0, spec.patch - 1)};
    const std::vector<Picture> frames = {noise({draw(1, 300), draw(1, 300)}, seed)};
    const auto arithmetic = static_cast<ResizeArithmetic>(draw(0, 2));
    EXPECT_TRUE(bits_equal(patches(frames, target, spec, arithmetic, GetParam()),
                           naive_patches(frames, target, spec, arithmetic), spec.patch_values()))
        << "seed " << seed << ", round " << round;
  }
}

TEST_P(PatchOrder, LargeResultsThatPassTheCachesAreTheSame) {
  // 36 MB; rows of 1176 floats, so that they start at every second line's middle and the lines between are shared.
  const PixelSpec spec = clip_spec(14, 2, 2);
  const Size target{1400, 1092};
  const std::vector<Picture> frames = {noise({500, 400}, 9)};
  const std::vector<float> expected = naive_patches(frames, target, spec, ResizeArithmetic::torchvision);
  ASSERT_GT(expected.size() * sizeof(float), size_t{32} << 20);
  std::vector<float> room(expected.size() + 9);
  for (const size_t offset : {0, 1, 9}) {
    const std::span<float> rows = std::span(room).subspan(offset, expected.size());
    const RgbView view = frames[0].view();
    write_patches({&view, 1}, target, spec, ResizeArithmetic::torchvision, ThreadPool(2), rows, GetParam());
    EXPECT_TRUE(bits_equal(rows, expected, spec.patch_values())) << "offset " << offset;
  }
}

TEST_P(PatchOrder, ValuesThatNoArithmeticGivesComeFromTheTable) {
  // The reciprocal of so small a divisor overflows: the formula gives NaN where the division gives numbers.
  PixelSpec spec = clip_spec(14, 1, 1);
  spec.std = {1e-39, 0.5, 1e-39};
  spec.mean = {0, 0, 0};
  spec.do_rescale = false;
  const ValueTable table = make_value_table(spec, ResizeArithmetic::pillow);
  EXPECT_FALSE(find_arithmetic(table, spec, ResizeArithmetic::pillow)[0].computable);
  const std::vector<Picture> frames = {noise({28, 28}, 1)};
  EXPECT_TRUE(bits_equal(patches(frames, {28, 28}, spec, ResizeArithmetic::pillow, GetParam()),
                         naive_patches(frames, {28, 28}, spec, ResizeArithmetic::pillow), spec.patch_values()));
}

INSTANTIATE_TEST_SUITE_P(Simd, PatchOrder, testing::Values(Simd::plain, Simd::avx2, Simd::avx512),
                         [](const auto& instance) { return std::string(name_of(instance.param)); });

// --- values ---

TEST(ValueTable, TorchvisionDividesBytesByFoldedConstants) {
  const PixelSpec spec = clip_spec(14, 1, 1);
  const ValueTable table = make_value_table(spec, ResizeArithmetic::torchvision);
  const float mean = static_cast<float>(spec.mean[1]) * 255.0F;
  const float divisor = static_cast<float>(spec.std[1]) * 255.0F;
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(table[1][static_cast<size_t>(byte)], (static_cast<float>(byte) - mean) / divisor);
  }
}

TEST(ValueTable, BackendsDifferInTheLastBits) {
  const PixelSpec spec = clip_spec(14, 1, 1);
  const ValueTable torchvision = make_value_table(spec, ResizeArithmetic::torchvision);
  const ValueTable pillow = make_value_table(spec, ResizeArithmetic::pillow);
  EXPECT_NE(torchvision, pillow);
  for (size_t byte = 0; byte < 256; ++byte) EXPECT_NEAR(torchvision[0][byte], pillow[0][byte], 1e-6);
}

TEST(ValueTable, TheUsualProcessorsAreComputedNotLookedUp) {
  // Speed hangs on this: a read of the table costs several times the arithmetic.
  for (const bool clip : {true, false}) {
    PixelSpec spec = clip_spec(14, 1, 1);
    spec.rescale_factor = 0.00392156862745098;
    if (!clip) spec.mean = spec.std = {0.5, 0.5, 0.5};
    for (const ResizeArithmetic arithmetic : {ResizeArithmetic::torchvision, ResizeArithmetic::pillow}) {
      const ValueTable table = make_value_table(spec, arithmetic);
      for (const ByteToFloat& channel : find_arithmetic(table, spec, arithmetic)) EXPECT_TRUE(channel.computable);
    }
  }
}

TEST(ValueTable, RefusesConstantsThatDivideByZero) {
  PixelSpec spec = clip_spec(14, 1, 1);
  spec.std[2] = 0;
  expect_error(ErrorCode::malformed_model, "image_std[2]: expected a finite number other than 0, got 0",
               [&] { (void)make_value_table(spec, ResizeArithmetic::torchvision); });
  spec = clip_spec(14, 1, 1);
  spec.rescale_factor = 0;
  expect_error(ErrorCode::malformed_model, "rescale_factor: expected a finite number other than 0, got 0",
               [&] { (void)make_value_table(spec, ResizeArithmetic::torchvision); });
}

// --- the rest of the contract ---

TEST(Patches, EveryNumberOfThreadsGivesTheSameBits) {
  const PixelSpec spec = clip_spec(14, 2, 2);
  const std::vector<Picture> frames = {noise({700, 500}, 4)};
  const Size target{280, 420};
  const std::vector<float> one = patches(frames, target, spec, ResizeArithmetic::torchvision, Simd::best);
  for (const int threads : {2, 5}) {
    EXPECT_TRUE(
        bits_equal(patches(frames, target, spec, ResizeArithmetic::torchvision, Simd::best, ThreadPool(threads)), one,
                   spec.patch_values()))
        << threads << " threads";
  }
}

TEST(Patches, WithoutAResizeThePixelsStay) {
  PixelSpec spec = clip_spec(4, 1, 1);
  spec.do_resize = false;
  spec.do_rescale = false;
  spec.do_normalize = false;
  spec.filter = Filter::box;  // which torchvision lacks: it must not matter
  const Picture frame = noise({8, 4}, 2);
  const std::vector<float> rows = patches({frame}, {8, 4}, spec, ResizeArithmetic::torchvision, Simd::best);
  EXPECT_EQ(rows[0], static_cast<float>(frame.rgb[0]));
  EXPECT_EQ(rows[1], static_cast<float>(frame.rgb[3]));
  EXPECT_EQ(rows[16], static_cast<float>(frame.rgb[1]));      // green of the first pixel
  EXPECT_EQ(rows[48], static_cast<float>(frame.rgb[3 * 4]));  // the second patch
  EXPECT_EQ(rows[4], static_cast<float>(frame.rgb[3 * 8]));   // the second row of the first patch
}

class PatchErrors : public testing::Test {
 protected:
  void call(std::span<const RgbView> frames, Size target, const PixelSpec& spec, size_t floats) {
    std::vector<float> rows(floats);
    write_patches(frames, target, spec, ResizeArithmetic::torchvision, ThreadPool(1), rows);
  }
  Picture picture_ = noise({28, 28}, 1);
  std::vector<RgbView> frames_ = {picture_.view()};
};

TEST_F(PatchErrors, TheRoomMustBeExact) {
  expect_error(ErrorCode::invalid_argument, "patches: expected room for 4 rows of 588 floats, 2352 in all, got 2351",
               [&] {
                 call(frames_, {28, 28}, clip_spec(14, 1, 1), 2351);
               });
}

TEST_F(PatchErrors, BlocksMustFillTheGrid) {
  expect_error(ErrorCode::invalid_argument, "patches: expected a grid that blocks of 2 x 2 fill, got 3 x 2 patches",
               [&] {
                 call(frames_, {42, 28}, clip_spec(14, 1, 2), 6 * 588);
               });
}

TEST_F(PatchErrors, FramesMustBeOneOrAsManyAsSlots) {
  frames_.assign(3, picture_.view());
  expect_error(ErrorCode::invalid_argument, "patches: expected one frame or 2, got 3", [&] {
    call(frames_, {28, 28}, clip_spec(14, 2, 1), 4 * 1176);
  });
  expect_error(ErrorCode::invalid_argument, "patches: expected one frame or 2, got 0", [&] {
    call({}, {28, 28}, clip_spec(14, 2, 1), 4 * 1176);
  });
}

TEST_F(PatchErrors, FramesMustHaveOneSize) {
  const Picture other = noise({28, 14}, 1);
  frames_.push_back(other.view());
  expect_error(ErrorCode::invalid_argument, "patches: expected frames of equal size, got 28 x 28 and 28 x 14", [&] {
    call(frames_, {28, 28}, clip_spec(14, 2, 1), 4 * 1176);
  });
}

TEST_F(PatchErrors, WithoutAResizeTheFrameMustHaveTheTargetsSize) {
  PixelSpec spec = clip_spec(14, 1, 1);
  spec.do_resize = false;
  expect_error(ErrorCode::invalid_argument, "patches: without a resize, expected a frame of 14 x 14, got 28 x 28", [&] {
    call(frames_, {14, 14}, spec, 588);
  });
}

TEST_F(PatchErrors, NumbersOfTheSpecAreBounded) {
  expect_error(ErrorCode::invalid_argument, "patches: expected a patch size of 1 to 4096, got 0", [&] {
    call(frames_, {14, 14}, clip_spec(0, 1, 1), 588);
  });
  expect_error(ErrorCode::invalid_argument, "patches: expected a merge size of 1 to 4096, got -1", [&] {
    call(frames_, {14, 14}, clip_spec(14, 1, -1), 588);
  });
}

}  // namespace
}  // namespace oriel::image
