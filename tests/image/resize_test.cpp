#include "image/resize.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <random>

#include "core/expect_error.hpp"
#include "core/safetensors.hpp"
#include "image/pixel_recipes.hpp"
#include "image/resize_weights.hpp"

namespace oriel::image {
namespace {

Picture resized(const Picture& source, Size target, Filter filter, ResizeArithmetic arithmetic, Simd simd,
                const ThreadPool& pool = ThreadPool(1)) {
  Picture result = blank(target);
  resize(source.view(), result.mutable_view(), filter, arithmetic, pool, simd);
  return result;
}

Size size_from(const nlohmann::json& json) { return {json.at(0).get<int64_t>(), json.at(1).get<int64_t>()}; }

// --- what torchvision and Pillow make of the same pixels ---

class ResizeGoldens : public testing::TestWithParam<const char*> {};

TEST_P(ResizeGoldens, EqualEveryCaseWithEveryInstructionSet) {
  const SafetensorsFile file = SafetensorsFile::open(ORIEL_TEST_DATA "/pixels/resize.safetensors");
  const nlohmann::json cases = nlohmann::json::parse(file.metadata().at("cases"));
  int compared = 0;
  int compared_whole = 0;
  for (const nlohmann::json& golden : cases) {
    if (golden.at("arithmetic") != GetParam()) continue;
    const Picture source = make_picture(golden.at("kind"), size_from(golden.at("source")), golden.at("seed"));
    for (const Simd simd : supported_simd()) {
      const Picture got = resized(source, size_from(golden.at("target")), filter_named(golden.at("filter")),
                                  arithmetic_named(GetParam()), simd);
      if (golden.contains("tensor")) {
        const std::span<const std::byte> bytes = file.bytes(*file.find(golden.at("tensor").get<std::string>()));
        Picture expected = blank(got.size);
        ASSERT_EQ(bytes.size(), expected.rgb.size());
        std::memcpy(expected.rgb.data(), bytes.data(), bytes.size());
        EXPECT_TRUE(pixels_equal(got, expected)) << name_of(simd) << " " << golden;
        ++compared_whole;
      }
      EXPECT_EQ(fmt::format("{:016x}", polynomial_hash(got.rgb.data(), got.rgb.size())), golden.at("hash"))
          << name_of(simd) << " " << golden;
      ++compared;
    }
  }
  EXPECT_GE(compared, 90);
  EXPECT_GE(compared_whole, 5);
}

INSTANTIATE_TEST_SUITE_P(Backends, ResizeGoldens, testing::Values("torchvision", "pillow", "pillow12"),
                         [](const auto& instance) { return std::string(instance.param); });

// --- vector code against plain code ---

/// Draws the sizes, filters and pixels of a property test; the seed is printed with every failure.
class Draw {
 public:
  explicit Draw(uint32_t seed) : seed_(seed), engine_(seed) {}
  [[nodiscard]] uint32_t seed() const { return seed_; }
  int64_t between(int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(engine_); }
  /// Small sides as often as large ones.
  int64_t side(int64_t high) { return between(1, int64_t{1} << between(0, 63 - __builtin_clzll(uint64_t(high)))); }
  ResizeArithmetic arithmetic() { return static_cast<ResizeArithmetic>(between(0, 2)); }
  Filter filter(ResizeArithmetic arithmetic) {
    constexpr std::array<Filter, 5> all = {Filter::bilinear, Filter::bicubic, Filter::lanczos, Filter::box,
                                           Filter::hamming};
    return all[static_cast<size_t>(between(0, arithmetic == ResizeArithmetic::torchvision ? 2 : 4))];
  }
  Picture picture(Size size) {
    return between(0, 2) == 0 ? edges(size, static_cast<uint64_t>(between(0, 1)))
                              : noise(size, static_cast<uint64_t>(between(0, 1 << 30)));
  }

 private:
  uint32_t seed_;
  std::mt19937 engine_;
};

/// Rows of a picture in memory of its own: any stride, any alignment, nothing to read behind the last row.
class StridedPicture {
 public:
  StridedPicture(const Picture& picture, int64_t gap, bool bottom_up)
      : size_(picture.size), step_(3 * picture.size.width + gap), bottom_up_(bottom_up) {
    bytes_.assign(static_cast<size_t>(step_ * (size_.height - 1) + 3 * size_.width), 0xA5);
    for (int64_t y = 0; y < size_.height; ++y) {
      std::memcpy(row(y), picture.rgb.data() + y * 3 * size_.width, static_cast<size_t>(3 * size_.width));
    }
  }
  [[nodiscard]] RgbView view() { return {row(0), size_, bottom_up_ ? -step_ : step_}; }
  [[nodiscard]] MutableRgbView mutable_view() { return {row(0), size_, bottom_up_ ? -step_ : step_}; }
  [[nodiscard]] Picture packed() {
    Picture result = blank(size_);
    for (int64_t y = 0; y < size_.height; ++y) {
      std::memcpy(result.rgb.data() + y * 3 * size_.width, row(y), static_cast<size_t>(3 * size_.width));
    }
    return result;
  }
  /// Whether the bytes between the rows are as they were.
  [[nodiscard]] bool gaps_are_untouched() const {
    for (int64_t y = 0; y + 1 < size_.height; ++y) {
      for (int64_t i = 3 * size_.width; i < step_; ++i) {
        if (bytes_[static_cast<size_t>(y * step_ + i)] != 0xA5) return false;
      }
    }
    return true;
  }

 private:
  uint8_t* row(int64_t y) { return bytes_.data() + (bottom_up_ ? size_.height - 1 - y : y) * step_; }
  Size size_;
  int64_t step_;
  bool bottom_up_;
  std::vector<uint8_t> bytes_;
};

/// Bytes that end where the memory ends.
class GuardedBytes {
 public:
  explicit GuardedBytes(int64_t size) {
    const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    mapped_ = (static_cast<size_t>(size) + page - 1) / page * page + page;
    memory_ = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory_ == MAP_FAILED) throw_error(ErrorCode::out_of_memory, "mmap: no {} bytes", mapped_);
    auto* guard = static_cast<uint8_t*>(memory_) + mapped_ - page;
    if (mprotect(guard, page, PROT_NONE) != 0) throw_error(ErrorCode::internal, "mprotect failed");
    data_ = guard - size;
  }
  ~GuardedBytes() { munmap(memory_, mapped_); }
  GuardedBytes(const GuardedBytes&) = delete;
  GuardedBytes& operator=(const GuardedBytes&) = delete;
  [[nodiscard]] uint8_t* data() const { return data_; }

 private:
  size_t mapped_;
  void* memory_;
  uint8_t* data_;
};

void compare_with_plain(Draw& draw, Size from, Size to, Simd simd) {
  const ResizeArithmetic arithmetic = draw.arithmetic();
  const Filter filter = draw.filter(arithmetic);
  const Picture source = draw.picture(from);
  const Picture expected = resized(source, to, filter, arithmetic, Simd::plain);

  StridedPicture strided_source(source, draw.between(0, 5), draw.between(0, 1) == 1);
  StridedPicture strided_target(blank(to), draw.between(0, 5), draw.between(0, 1) == 1);
  resize(strided_source.view(), strided_target.mutable_view(), filter, arithmetic, ThreadPool(1), simd);
  EXPECT_TRUE(pixels_equal(strided_target.packed(), expected))
      << name_of(simd) << ", seed " << draw.seed() << ": " << from.width << " x " << from.height << " to " << to.width
      << " x " << to.height << ", filter " << static_cast<int>(filter) << ", arithmetic "
      << static_cast<int>(arithmetic);
  EXPECT_TRUE(strided_target.gaps_are_untouched()) << name_of(simd) << ", seed " << draw.seed();
}

class ResizeVectors : public testing::TestWithParam<Simd> {
 protected:
  void SetUp() override {
    if (!is_supported(GetParam())) GTEST_SKIP() << "this processor lacks " << name_of(GetParam());
  }
};

TEST_P(ResizeVectors, EqualPlainCodeOnRandomSizes) {
  Draw draw(std::random_device{}());
  RecordProperty("seed", std::to_string(draw.seed()));
  for (int round = 0; round < 500 && !HasFailure(); ++round) {
    compare_with_plain(draw, {draw.side(512), draw.side(512)}, {draw.side(256), draw.side(256)}, GetParam());
  }
}

TEST_P(ResizeVectors, EqualPlainCodeOnPicturesOnePixelWideOrHigh) {
  Draw draw(std::random_device{}());
  RecordProperty("seed", std::to_string(draw.seed()));
  for (int round = 0; round < 100 && !HasFailure(); ++round) {
    const int64_t a = draw.side(1024);
    const int64_t b = draw.side(128);
    compare_with_plain(draw, {1, a}, {b, draw.side(16)}, GetParam());
    compare_with_plain(draw, {a, 1}, {draw.side(16), b}, GetParam());
    compare_with_plain(draw, {a, b}, {1, b}, GetParam());
    compare_with_plain(draw, {b, a}, {b, 1}, GetParam());
  }
}

TEST_P(ResizeVectors, EqualPlainCodeOnPhotographSizes) {
  Draw draw(std::random_device{}());
  RecordProperty("seed", std::to_string(draw.seed()));
  for (const Size to : {Size{896, 896}, Size{1148, 868}, Size{1932, 1092}, Size{224, 168}}) {
    compare_with_plain(draw, {1920, 1080}, to, GetParam());
  }
}

TEST_P(ResizeVectors, NeverTouchMemoryBehindThePictures) {
  // The last byte of either picture is the last byte of a page whose neighbour may not be touched.
  Draw draw(std::random_device{}());
  RecordProperty("seed", std::to_string(draw.seed()));
  const ThreadPool pool(1);
  for (int round = 0; round < 200; ++round) {
    const ResizeArithmetic arithmetic = draw.arithmetic();
    const Size from{draw.side(128), draw.side(64)};
    // Each pass alone too: then it reads the source and writes the target itself.
    const Size to{round % 3 == 0 ? from.width : draw.side(128), round % 3 == 1 ? from.height : draw.side(64)};
    const GuardedBytes source(3 * from.width * from.height);
    const GuardedBytes target(3 * to.width * to.height);
    const Picture pixels = draw.picture(from);
    std::copy(pixels.rgb.begin(), pixels.rgb.end(), source.data());
    const Filter filter = draw.filter(arithmetic);
    resize({source.data(), from, 3 * from.width}, {target.data(), to, 3 * to.width}, filter, arithmetic, pool,
           GetParam());
    Picture got = blank(to);
    std::copy_n(target.data(), got.rgb.size(), got.rgb.begin());
    ASSERT_TRUE(pixels_equal(got, resized(pixels, to, filter, arithmetic, Simd::plain))) << "seed " << draw.seed();
  }
}

TEST_P(ResizeVectors, EqualPlainCodeWhereAWeightFillsSixteenBits) {
  // The largest weight of these axes rounds to more than 127 * 256 + 127: two digits of eight bits can't hold it.
  int found = 0;
  for (int64_t in = 2; in <= 400 && found < 5; ++in) {
    for (int64_t out = 1; out <= 60 && found < 5; ++out) {
      const AxisWeights axis = make_axis_weights(in, out, Filter::bicubic, ResizeArithmetic::torchvision);
      if (*std::max_element(axis.weights.begin(), axis.weights.end()) <= 127 * 256 + 127) continue;
      ++found;
      const Picture source = edges({in, in}, 0);
      EXPECT_TRUE(
          pixels_equal(resized(source, {out, out}, Filter::bicubic, ResizeArithmetic::torchvision, GetParam()),
                       resized(source, {out, out}, Filter::bicubic, ResizeArithmetic::torchvision, Simd::plain)))
          << name_of(GetParam()) << ": " << in << " to " << out;
    }
  }
  EXPECT_EQ(found, 5);
}

INSTANTIATE_TEST_SUITE_P(Simd, ResizeVectors, testing::Values(Simd::avx2, Simd::avx512),
                         [](const auto& instance) { return std::string(name_of(instance.param)); });

// --- what does not depend on instructions ---

TEST(Resize, EveryNumberOfThreadsGivesTheSameBytes) {
  const Picture source = noise({301, 407}, 5);
  for (const ResizeArithmetic arithmetic : {ResizeArithmetic::torchvision, ResizeArithmetic::pillow}) {
    for (const Size target : {Size{120, 130}, Size{301, 200}, Size{500, 407}, Size{301, 407}, Size{333, 610}}) {
      const Picture one = resized(source, target, Filter::bicubic, arithmetic, Simd::best, ThreadPool(1));
      for (const int threads : {2, 5}) {
        EXPECT_TRUE(
            pixels_equal(resized(source, target, Filter::bicubic, arithmetic, Simd::best, ThreadPool(threads)), one))
            << threads << " threads, " << target.width << " x " << target.height;
      }
    }
  }
}

TEST(Resize, EqualSizesCopy) {
  const Picture source = noise({19, 11}, 3);
  for (const Simd simd : supported_simd()) {
    EXPECT_TRUE(pixels_equal(resized(source, {19, 11}, Filter::lanczos, ResizeArithmetic::pillow, simd), source));
  }
}

TEST(Resize, PillowsPassOrdersDifferOnTallPictures) {
  const Picture source = noise({40, 300}, 3);
  const Picture newer = resized(source, {28, 28}, Filter::lanczos, ResizeArithmetic::pillow, Simd::plain);
  const Picture older = resized(source, {28, 28}, Filter::lanczos, ResizeArithmetic::pillow12, Simd::plain);
  EXPECT_FALSE(pixels_equal(newer, older));
}

TEST(ResizeWeights, FirstNeverFallsAndTapsStayInside) {
  for (const auto& [in, out] : {std::pair<int64_t, int64_t>{1, 9}, {9, 1}, {7, 400}, {400, 7}, {64, 64}, {65535, 3}}) {
    for (const Filter filter : {Filter::box, Filter::bilinear, Filter::hamming, Filter::bicubic, Filter::lanczos}) {
      const AxisWeights axis = make_axis_weights(in, out, filter, ResizeArithmetic::pillow);
      for (size_t i = 0; i < static_cast<size_t>(out); ++i) {
        EXPECT_GE(axis.count[i], 1);
        EXPECT_LE(axis.count[i], axis.taps);
        EXPECT_LE(axis.first[i] + axis.count[i], in);
        if (i > 0) {
          EXPECT_LE(axis.first[i - 1], axis.first[i]);
        }
      }
    }
  }
}

TEST(ResizeWeights, TorchvisionKeepsAsManyBitsAsFitInSixteen) {
  // Growing: the largest weight is nearly 1. Shrinking: it is spread over many pixels.
  const AxisWeights grown = make_axis_weights(10, 1000, Filter::bilinear, ResizeArithmetic::torchvision);
  const AxisWeights shrunk = make_axis_weights(1000, 10, Filter::bilinear, ResizeArithmetic::torchvision);
  EXPECT_EQ(grown.shift, 14);
  EXPECT_EQ(shrunk.shift, 21);
  EXPECT_EQ(make_axis_weights(10, 1000, Filter::bilinear, ResizeArithmetic::pillow).shift, 22);
}

// --- errors ---

class ResizeErrors : public testing::Test {
 protected:
  void call(const RgbView& source, const MutableRgbView& target, Filter filter = Filter::bicubic,
            ResizeArithmetic arithmetic = ResizeArithmetic::torchvision) {
    resize(source, target, filter, arithmetic, pool_);
  }
  ThreadPool pool_{1};
  Picture source_ = noise({8, 6}, 1);
  Picture target_ = blank({4, 3});
};

TEST_F(ResizeErrors, BoxAndHammingAreNamedWhereTorchvisionLacksThem) {
  expect_error(
      ErrorCode::unsupported_model,
      "resample: expected bilinear, bicubic or lanczos, got box, which torchvision does not have for pictures of "
      "bytes; Pillow's arithmetic has it",
      [&] { call(source_.view(), target_.mutable_view(), Filter::box); });
  expect_error(
      ErrorCode::unsupported_model,
      "resample: expected bilinear, bicubic or lanczos, got hamming, which torchvision does not have for pictures "
      "of bytes; Pillow's arithmetic has it",
      [&] { call(source_.view(), target_.mutable_view(), Filter::hamming); });
}

TEST_F(ResizeErrors, SidesMustBePositive) {
  expect_error(ErrorCode::invalid_argument, "resize: target: expected sides of 1 or more pixels, got 0 x 3", [&] {
    call(source_.view(), {target_.rgb.data(), {0, 3}, 0});
  });
  expect_error(ErrorCode::invalid_argument, "resize: source: expected sides of 1 or more pixels, got 8 x -1", [&] {
    call({source_.rgb.data(), {8, -1}, 24}, target_.mutable_view());
  });
}

TEST_F(ResizeErrors, RowsMustNotOverlap) {
  expect_error(ErrorCode::invalid_argument, "resize: source: expected rows at least 24 bytes apart, got a stride of 23",
               [&] {
                 call({source_.rgb.data(), {8, 6}, 23}, target_.mutable_view());
               });
}

TEST_F(ResizeErrors, PixelsMustBeThere) {
  expect_error(ErrorCode::invalid_argument, "resize: source: expected pixels, got a null pointer", [&] {
    call({nullptr, {8, 6}, 24}, target_.mutable_view());
  });
}

TEST_F(ResizeErrors, SidesHaveALimit) {
  expect_error(ErrorCode::limit_exceeded, "resize: expected sides of at most 1048576 pixels, got 1048577", [&] {
    call({source_.rgb.data(), {1048577, 1}, 0}, target_.mutable_view());
  });
}

TEST_F(ResizeErrors, IntermediateRowsHaveALimit) {
  // One byte stands for the picture: the call must stop before it reads a pixel.
  expect_error(
      ErrorCode::limit_exceeded,
      "resize: 1 x 1000000 to 1000 x 1 would need 3000000000 bytes of intermediate rows, the limit is 1073741824", [&] {
        call({source_.rgb.data(), {1, 1000000}, 3}, {target_.rgb.data(), {1000, 1}, 3000});
      });
}

}  // namespace
}  // namespace oriel::image
