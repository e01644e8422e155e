#include "arch/processor_config.hpp"

#include <cmath>

#include "core/error.hpp"

namespace oriel::arch {
namespace {

bool read_step(const Json& value, bool fallback) {
  if (value.is_absent()) return fallback;
  return !value.is_null() && value.boolean();
}

image::Filter read_filter(const Json& value, image::Filter fallback) {
  if (value.is_absent()) return fallback;
  switch (value.integer()) {
    case 1:
      return image::Filter::lanczos;
    case 2:
      return image::Filter::bilinear;
    case 3:
      return image::Filter::bicubic;
    default:
      throw_error(ErrorCode::unsupported_model, "{}: expected 1 (lanczos), 2 (bilinear) or 3 (bicubic), got {}",
                  value.where(), value.dump());
  }
}

std::array<double, 3> read_channels(const Json& value, std::array<double, 3> fallback, bool positive) {
  if (value.is_absent()) return fallback;
  std::vector<double> numbers = value.is_number() ? std::vector(3, value.number()) : value.numbers();
  if (numbers.size() != 3)
    throw_error(ErrorCode::malformed_model, "{}: expected 3 numbers, one a channel, got {}", value.where(),
                value.dump());
  for (const double number : numbers)
    if (!std::isfinite(number) || (positive && number <= 0))
      throw_error(ErrorCode::malformed_model, "{}: expected finite{} numbers, got {}", value.where(),
                  positive ? ", positive" : "", value.dump());
  return {numbers[0], numbers[1], numbers[2]};
}

}  // namespace

image::PixelSpec read_pixel_spec(const Json& processor, image::PixelSpec spec) {
  spec.do_resize = read_step(processor["do_resize"], spec.do_resize);
  spec.do_rescale = read_step(processor["do_rescale"], spec.do_rescale);
  spec.do_normalize = read_step(processor["do_normalize"], spec.do_normalize);
  // A step that is off needs no numbers: null is fine for them then.
  const auto counts = [](bool step, const Json& value) { return step || !value.is_null(); };
  if (counts(spec.do_resize, processor["resample"])) spec.filter = read_filter(processor["resample"], spec.filter);
  if (counts(spec.do_rescale, processor["rescale_factor"]))
    spec.rescale_factor = processor["rescale_factor"].number_or(spec.rescale_factor);
  if (!std::isfinite(spec.rescale_factor) || spec.rescale_factor <= 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a positive number, got {}",
                processor["rescale_factor"].where(), processor["rescale_factor"].dump());
  if (counts(spec.do_normalize, processor["image_mean"]))
    spec.mean = read_channels(processor["image_mean"], spec.mean, /*positive=*/false);
  if (counts(spec.do_normalize, processor["image_std"]))
    spec.std = read_channels(processor["image_std"], spec.std, /*positive=*/true);
  if (read_step(processor["do_center_crop"], false))
    throw_error(ErrorCode::unsupported_model, "{}: expected false, got true", processor["do_center_crop"].where());
  return spec;
}

Size read_fixed_size(const Json& size, Size fallback, bool integer_is_square) {
  constexpr int64_t longest = 1 << 16;
  if (size.is_absent()) return fallback;
  if (size.is_array()) {
    const std::vector<int64_t> sides = size.integers();
    if (sides.size() == 2 && sides[0] > 0 && sides[1] > 0 && sides[0] <= longest && sides[1] <= longest)
      return {sides[1], sides[0]};
  } else if (size.is_number() && integer_is_square) {
    const int64_t side = size.integer_in(1, longest);
    return {side, side};
  } else if (size.is_object() && size["height"].has_value() && size["width"].has_value()) {
    return {size["width"].integer_in(1, longest), size["height"].integer_in(1, longest)};
  }
  throw_error(ErrorCode::unsupported_model, "{}: expected {{\"height\", \"width\"}} of 1 to {} pixels, got {}",
              size.where(), longest, size.dump());
}

int64_t read_square_side(const Json& value, int64_t fallback) {
  constexpr int64_t longest = 4096;
  if (value.is_absent()) return fallback;
  if (value.is_number()) return value.integer_in(1, longest);
  int64_t height = 0;
  int64_t width = 0;
  if (value.is_array() && value.elements().size() == 2) {
    height = value.elements()[0].integer_in(1, longest);
    width = value.elements()[1].integer_in(1, longest);
  } else if (value.is_object()) {
    height = value["height"].integer_in(1, longest);
    width = value["width"].integer_in(1, longest);
  }
  if (height == 0 || height != width)
    throw_error(ErrorCode::unsupported_model, "{}: expected one side or two equal ones, got {}", value.where(),
                value.dump());
  return height;
}

void expect_same(const Json& processor_value, int64_t config_value, std::string_view config_key) {
  if (processor_value.is_absent()) return;
  const int64_t found = read_square_side(processor_value, config_value);
  if (found != config_value)
    throw_error(ErrorCode::malformed_model, "{}: expected {} as {} of config.json says, got {}",
                processor_value.where(), config_value, config_key, found);
}

double read_rope_theta(const Json& vision_config, double fallback) {
  const Json scaling = vision_config["rope_scaling"];
  const Json rope = scaling.has_value() ? scaling : vision_config["rope_parameters"];
  if (rope.has_value())
    for (const char* key : {"rope_type", "type"})
      if (const Json type = rope[key]; type.has_value() && type.string() != "default" && type.string() != "axial")
        throw_error(ErrorCode::unsupported_model, "{}: expected \"default\" or \"axial\", got {}", type.where(),
                    type.dump());
  const Json inner = rope["rope_theta"];
  const Json theta = inner.has_value() ? inner : vision_config["rope_theta"];
  const double value = theta.has_value() ? theta.number() : fallback;
  if (!std::isfinite(value) || value <= 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a positive number, got {}", theta.where(), theta.dump());
  return value;
}

void expect_three_channels(const Json& value) {
  if (value.has_value() && value.integer() != 3)
    throw_error(ErrorCode::unsupported_model, "{}: expected 3 (RGB), got {}", value.where(), value.dump());
}

}  // namespace oriel::arch
