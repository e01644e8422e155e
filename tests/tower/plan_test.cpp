// plan against the sizes that transformers' processors choose, over the tables of tests/goldens/make_plan_tables.py.
#include "core/expect_error.hpp"
#include "tower/golden.hpp"

namespace oriel {
namespace {

const std::string plans_root = std::string(ORIEL_TEST_DATA) + "/plans";

class PlanTable : public testing::TestWithParam<std::string> {};

TEST_P(PlanTable, EverySizeBecomesWhatTransformersMakesOfIt) {
  const std::filesystem::path directory = std::filesystem::path(plans_root) / GetParam();
  const VisionTower tower = VisionTower::load(directory, {.threads = 1, .weights = false});
  const Golden table(directory / "table.safetensors");
  const auto sizes = table.values<int32_t>("sizes");  // width, height
  const auto resized = table.values<int32_t>("resized");
  const auto grids = table.values<int32_t>("grid");
  const auto tokens = table.values<int32_t>("tokens");   // -1 where transformers raises
  const auto prompts = table.values<int32_t>("prompt");  // 0 without a text side
  const auto limits = [&](const char* name) {
    return table.has(name) ? table.values<int64_t>(name) : std::vector<int64_t>(tokens.size(), -1);
  };
  const auto least = limits("min_pixels");
  const auto most = limits("max_pixels");
  ASSERT_GT(tokens.size(), 100u);

  for (size_t i = 0; i < tokens.size(); ++i) {
    const Size size{sizes[2 * i], sizes[2 * i + 1]};
    PreprocessOptions options;
    if (least[i] >= 0) options.min_pixels = least[i];
    if (most[i] >= 0) options.max_pixels = most[i];
    SCOPED_TRACE(testing::Message() << "row " << i << ": " << size.width << " x " << size.height << ", min " << least[i]
                                    << ", max " << most[i]);
    if (tokens[i] < 0) {
      try {
        const ImagePlan plan = tower.plan(size, options);
        FAIL() << "expected an error, got " << plan.tokens << " tokens";
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::unsupported_image) << error.what();
      }
      continue;
    }
    const ImagePlan plan = tower.plan(size, options);
    ASSERT_EQ(plan.resized, (Size{resized[2 * i], resized[2 * i + 1]}));
    ASSERT_EQ(plan.grid, (Grid{grids[3 * i], grids[3 * i + 1], grids[3 * i + 2]}));
    ASSERT_EQ(plan.tokens, tokens[i]);
    if (prompts[i] > 0) {
      ASSERT_EQ(plan.prompt_tokens, prompts[i]);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(ReleasedGeometries, PlanTable, testing::ValuesIn(checkpoints_under(plans_root)),
                         [](const auto& test) { return test.param; });

TEST(Plan, SidesThatAreNotPositiveAreRefused) {
  const VisionTower tower = VisionTower::load(plans_root + "/qwen2_vl_7b", {.weights = false});
  expect_error(ErrorCode::invalid_argument, "plan: expected sides of 1 to 2^31 pixels, got 0 x 5", [&] {
    (void)tower.plan({0, 5});
  });
  expect_error(ErrorCode::invalid_argument, "plan: expected sides of 1 to 2^31 pixels, got 5 x -1", [&] {
    (void)tower.plan({5, -1});
  });
}

TEST(Plan, AnAspectOverTwoHundredIsRefusedByName) {
  const VisionTower tower = VisionTower::load(plans_root + "/qwen2_vl_7b", {.weights = false});
  expect_error(ErrorCode::unsupported_image,
               "plan: a picture of 4020 x 20 pixels: expected an aspect ratio of at most 200", [&] {
                 (void)tower.plan({4020, 20});
               });
  EXPECT_EQ(tower.plan({4000, 20}).resized, (Size{4004, 28}));
}

TEST(Plan, ASideThatFloorsToZeroIsRefusedByName) {
  const VisionTower tower = VisionTower::load(plans_root + "/pixtral_12b", {.weights = false});
  expect_error(ErrorCode::unsupported_image,
               "plan: a picture of 5000 x 4 pixels: shrunk into 1024 x 1024, a side falls below one pixel or one token",
               [&] {
                 (void)tower.plan({5000, 4});
               });
}

TEST(Plan, MorePatchesThanMemoryCanHoldAreRefused) {
  const VisionTower tower = VisionTower::load(plans_root + "/qwen2_vl_7b", {.weights = false});
  EXPECT_THROW((void)tower.plan({1000, 1000}, {.min_pixels = int64_t{1} << 40}), Error);
  expect_error(ErrorCode::invalid_argument, "max_pixels: expected 1 to 2^40 pixels, got 0", [&] {
    (void)tower.plan({1000, 1000}, {.max_pixels = 0});
  });
}

TEST(Plan, TooManyTokensAreRefusedWithAdvice) {
  const VisionTower tower = VisionTower::load(plans_root + "/qwen2_vl_7b", {.weights = false});
  expect_error(ErrorCode::limit_exceeded,
               "plan: needs 1296 tokens, more than max_tokens = 1000; max_pixels = 784000 would keep it within", [&] {
                 (void)tower.plan({1000, 1000}, {.max_tokens = 1000});
               });
  EXPECT_LE(tower.plan({1000, 1000}, {.max_pixels = 784000, .max_tokens = 1000}).tokens, 1000);
}

}  // namespace
}  // namespace oriel
