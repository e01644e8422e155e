#include "arch/processor_config.hpp"

#include <cmath>

#include "core/expect_error.hpp"

namespace oriel::arch {
namespace {

image::PixelSpec defaults() {
  image::PixelSpec spec;
  spec.filter = image::Filter::bicubic;
  spec.mean = clip_mean;
  spec.std = clip_std;
  spec.patch = 16;
  return spec;
}

Json json(const std::string& text) { return Json::parse(text, "p.json"); }
image::PixelSpec read(const std::string& text) { return read_pixel_spec(json(text), defaults()); }

/// `message` is what follows "p.json: ".
void expect_refused(ErrorCode code, const std::string& text, const std::string& message) {
  SCOPED_TRACE(text);
  expect_error(code, "p.json: " + message, [&] { (void)read(text); });
}

TEST(PixelSpec, AbsentKeysTakeTheClassDefaults) {
  for (const image::PixelSpec& spec : {read("{}"), read_pixel_spec(json("{}")["absent"], defaults())}) {
    EXPECT_TRUE(spec.do_resize && spec.do_rescale && spec.do_normalize);
    EXPECT_EQ(spec.filter, image::Filter::bicubic);
    EXPECT_EQ(spec.rescale_factor, 1.0 / 255.0);
    EXPECT_EQ(spec.mean, clip_mean);
    EXPECT_EQ(spec.std, clip_std);
    EXPECT_EQ(spec.patch, 16);
  }
}

TEST(PixelSpec, KeysOfTheFileReplaceThem) {
  const image::PixelSpec spec = read(R"({"do_resize": false, "do_rescale": false, "do_normalize": false, "resample": 2,
      "rescale_factor": 0.5, "image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3.5], "patch_size": 99,
      "do_convert_rgb": null, "do_center_crop": null})");
  EXPECT_FALSE(spec.do_resize || spec.do_rescale || spec.do_normalize);
  EXPECT_EQ(spec.filter, image::Filter::bilinear);
  EXPECT_EQ(spec.rescale_factor, 0.5);
  EXPECT_EQ(spec.mean, (std::array{0.1, 0.2, 0.3}));
  EXPECT_EQ(spec.std, (std::array{1.0, 2.0, 3.5}));
  EXPECT_EQ(spec.patch, 16);
  EXPECT_EQ(read(R"({"image_mean": 0.5, "image_std": 2})").std, (std::array{2.0, 2.0, 2.0}));
}

TEST(PixelSpec, NullSkipsAStep) {
  const image::PixelSpec spec = read(R"({"do_resize": null, "do_rescale": null, "do_normalize": null})");
  EXPECT_FALSE(spec.do_resize);
  EXPECT_FALSE(spec.do_rescale);
  EXPECT_FALSE(spec.do_normalize);
}

TEST(PixelSpec, AStepThatIsOffNeedsNoNumbers) {
  const image::PixelSpec spec = read(R"({"do_resize": false, "resample": null, "do_rescale": null,
      "rescale_factor": null, "do_normalize": false, "image_mean": null, "image_std": null})");
  EXPECT_EQ(spec.mean, clip_mean);
  EXPECT_EQ(spec.rescale_factor, 1.0 / 255.0);
}

TEST(PixelSpec, NullWhereTransformersRaisesIsAnError) {
  constexpr auto malformed = ErrorCode::malformed_model;
  expect_refused(malformed, R"({"image_mean": null})", "image_mean: expected an array of numbers, got null");
  expect_refused(malformed, R"({"image_std": null})", "image_std: expected an array of numbers, got null");
  expect_refused(malformed, R"({"resample": null})", "resample: expected an integer, got null");
  expect_refused(malformed, R"({"rescale_factor": null})", "rescale_factor: expected a number, got null");
}

TEST(PixelSpec, WrongLengthsAndValuesAreRefused) {
  constexpr auto malformed = ErrorCode::malformed_model;
  expect_refused(malformed, R"({"image_mean": [0.5, 0.5]})",
                 "image_mean: expected 3 numbers, one a channel, got [0.5,0.5]");
  expect_refused(malformed, R"({"image_mean": []})", "image_mean: expected 3 numbers, one a channel, got []");
  expect_refused(malformed, R"({"image_std": [1, 1, 1, 1]})",
                 "image_std: expected 3 numbers, one a channel, got [1,1,1,1]");
  expect_refused(malformed, R"({"image_std": [1, 0, 1]})", "image_std: expected finite, positive numbers, got [1,0,1]");
  expect_refused(malformed, R"({"image_std": -1})", "image_std: expected finite, positive numbers, got -1");
  expect_refused(malformed, R"({"image_mean": ["a", 0, 0]})", "image_mean[0]: expected a number, got \"a\"");
  expect_refused(malformed, R"({"image_mean": "half"})", "image_mean: expected an array of numbers, got \"half\"");
  expect_refused(malformed, R"({"rescale_factor": 0})", "rescale_factor: expected a positive number, got 0");
  expect_refused(malformed, R"({"rescale_factor": -0.5})", "rescale_factor: expected a positive number, got -0.5");
  expect_refused(malformed, R"({"do_resize": 1})", "do_resize: expected true or false, got 1");
  expect_refused(malformed, R"({"resample": "bicubic"})", "resample: expected an integer, got \"bicubic\"");
}

TEST(PixelSpec, NaNNeverGetsIn) {
  expect_error(ErrorCode::malformed_model, "p.json: line 1, column 25: expected a finite number, got NaN",
               [] { (void)read(R"({"image_mean": [0.1, 2, NaN]})"); });
  EXPECT_THROW((void)read(R"({"rescale_factor": Infinity})"), Error);
  EXPECT_THROW((void)read(R"({"rescale_factor": 1e999})"), Error);
}

TEST(PixelSpec, FiltersTheDefaultBackendLacksAreNamed) {
  for (const int code : {0, 4, 5, 6, -1})
    expect_refused(ErrorCode::unsupported_model, "{\"resample\": " + std::to_string(code) + "}",
                   "resample: expected 1 (lanczos), 2 (bilinear) or 3 (bicubic), got " + std::to_string(code));
  EXPECT_EQ(read(R"({"resample": 1})").filter, image::Filter::lanczos);
  EXPECT_EQ(read(R"({"resample": 3})").filter, image::Filter::bicubic);
}

TEST(PixelSpec, CentreCropsAreRefused) {
  expect_refused(ErrorCode::unsupported_model, R"({"do_center_crop": true})",
                 "do_center_crop: expected false, got true");
  EXPECT_NO_THROW((void)read(R"({"do_center_crop": false})"));
}

TEST(FixedSize, HasThreeForms) {
  const auto size = [](const std::string& text, bool square = false) {
    return read_fixed_size(json(text)["size"], {5, 6}, square);
  };
  EXPECT_EQ(size("{}"), (Size{5, 6}));
  EXPECT_EQ(size(R"({"size": {"height": 30, "width": 40}})"), (Size{40, 30}));
  EXPECT_EQ(size(R"({"size": [30, 40]})"), (Size{40, 30}));
  EXPECT_EQ(size(R"({"size": 7})", true), (Size{7, 7}));
  const auto refused = [&](const std::string& value, bool square = false) {
    SCOPED_TRACE(value);
    expect_error(ErrorCode::unsupported_model,
                 "p.json: size: expected {\"height\", \"width\"} of 1 to 65536 pixels, got " + value,
                 [&] { (void)size("{\"size\": " + value + "}", square); });
  };
  refused("7");
  refused("null");
  refused(R"({"shortest_edge":224})", true);
  refused(R"({"height":30})");
  refused("[30]");
  refused("[30,0]");
  refused("[30,-2]");
  refused("[30,65537]");
  refused("[1,2,3]");
  expect_error(ErrorCode::malformed_model, "p.json: size: expected an integer in [1, 65536], got 0",
               [&] { (void)size(R"({"size": 0})", true); });
  expect_error(ErrorCode::malformed_model, "p.json: size.width: expected an integer in [1, 65536], got 65537",
               [&] { (void)size(R"({"size": {"height": 1, "width": 65537}})"); });
}

TEST(SquareSide, IsOneNumberOrTwoEqualOnes) {
  const auto side = [](const std::string& text) { return read_square_side(json(text)["patch_size"], 9); };
  EXPECT_EQ(side("{}"), 9);
  EXPECT_EQ(side(R"({"patch_size": 14})"), 14);
  EXPECT_EQ(side(R"({"patch_size": [14, 14]})"), 14);
  EXPECT_EQ(side(R"({"patch_size": {"height": 16, "width": 16}})"), 16);
  for (const std::string value : {"[14,16]", "[14]", R"({"height":14,"width":16})", "null", "\"14\""}) {
    SCOPED_TRACE(value);
    expect_error(ErrorCode::unsupported_model, "p.json: patch_size: expected one side or two equal ones, got " + value,
                 [&] { (void)side("{\"patch_size\": " + value + "}"); });
  }
  EXPECT_THROW((void)side(R"({"patch_size": 0})"), Error);
  EXPECT_THROW((void)side(R"({"patch_size": 5000})"), Error);
  EXPECT_THROW((void)side(R"({"patch_size": {"height": 16}})"), Error);
}

TEST(ExpectSame, ComplainsOfADifferentValueOnly) {
  const Json processor = json(R"({"patch_size": 14})");
  EXPECT_NO_THROW(expect_same(processor["patch_size"], 14, "vision_config.patch_size"));
  EXPECT_NO_THROW(expect_same(processor["absent"], 14, "vision_config.patch_size"));
  expect_error(ErrorCode::malformed_model,
               "p.json: patch_size: expected 16 as vision_config.patch_size of config.json says, got 14",
               [&] { expect_same(processor["patch_size"], 16, "vision_config.patch_size"); });
}

TEST(RopeTheta, IsFoundInEveryForm) {
  const auto theta = [](const std::string& text) { return read_rope_theta(json(text), 10000.0); };
  EXPECT_EQ(theta("{}"), 10000.0);
  EXPECT_EQ(theta(R"({"rope_theta": 500})"), 500.0);
  EXPECT_EQ(theta(R"({"rope_parameters": {"rope_theta": 300.0, "rope_type": "axial"}})"), 300.0);
  EXPECT_EQ(theta(R"({"rope_parameters": {"rope_type": "default"}, "rope_theta": 7})"), 7.0);
  EXPECT_EQ(theta(R"({"rope_scaling": {"rope_theta": 200.0, "type": "default"}})"), 200.0);
  EXPECT_EQ(theta(R"({"rope_scaling": {"rope_theta": 1}, "rope_parameters": {"rope_theta": 2}, "rope_theta": 3})"),
            1.0);
  EXPECT_EQ(theta(R"({"rope_scaling": null, "rope_parameters": {"rope_theta": 2}, "rope_theta": 3})"), 2.0);
  EXPECT_EQ(theta(R"({"rope_scaling": null, "rope_parameters": null, "rope_theta": 3})"), 3.0);
  EXPECT_EQ(theta(R"({"rope_theta": null})"), 10000.0);
}

TEST(RopeTheta, OtherRopeTypesAndValuesAreRefused) {
  const auto refused = [](ErrorCode code, const std::string& text, const std::string& message) {
    SCOPED_TRACE(text);
    expect_error(code, "p.json: " + message, [&] { (void)read_rope_theta(json(text), 10000.0); });
  };
  refused(ErrorCode::unsupported_model, R"({"rope_scaling": {"rope_type": "yarn"}})",
          R"(rope_scaling.rope_type: expected "default" or "axial", got "yarn")");
  refused(ErrorCode::unsupported_model, R"({"rope_scaling": {"type": "linear"}})",
          R"(rope_scaling.type: expected "default" or "axial", got "linear")");
  refused(ErrorCode::unsupported_model, R"({"rope_parameters": {"rope_type": "dynamic"}})",
          R"(rope_parameters.rope_type: expected "default" or "axial", got "dynamic")");
  refused(ErrorCode::malformed_model, R"({"rope_theta": 0})", "rope_theta: expected a positive number, got 0");
  refused(ErrorCode::malformed_model, R"({"rope_parameters": {"rope_theta": -5}})",
          "rope_parameters.rope_theta: expected a positive number, got -5");
  refused(ErrorCode::malformed_model, R"({"rope_theta": "10000"})", "rope_theta: expected a number, got \"10000\"");
}

TEST(ThreeChannels, OthersAreRefused) {
  EXPECT_NO_THROW(expect_three_channels(json("{}")["num_channels"]));
  EXPECT_NO_THROW(expect_three_channels(json(R"({"num_channels": 3})")["num_channels"]));
  expect_error(ErrorCode::unsupported_model, "p.json: num_channels: expected 3 (RGB), got 1",
               [] { expect_three_channels(json(R"({"num_channels": 1})")["num_channels"]); });
}

}  // namespace
}  // namespace oriel::arch
