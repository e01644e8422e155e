#pragma once
// What every image processor's file has in common: spec/resize.md 7, 9 and 10.
#include <cstdint>
#include <string_view>

#include "core/json.hpp"
#include "image/patches.hpp"
#include "oriel/types.hpp"

namespace oriel::arch {

inline constexpr std::array<double, 3> clip_mean{0.48145466, 0.4578275, 0.40821073};
inline constexpr std::array<double, 3> clip_std{0.26862954, 0.26130258, 0.27577711};
inline constexpr std::array<double, 3> half_mean{0.5, 0.5, 0.5};

/// `defaults` are the class's; keys of the file replace them. null in do_resize, do_rescale or do_normalize skips that
/// step, null elsewhere is malformed_model, as in transformers. Filters that the default backend lacks and centre crops
/// are unsupported_model. Patch geometry is left as in `defaults`.
[[nodiscard]] image::PixelSpec read_pixel_spec(const Json& processor, image::PixelSpec defaults);

/// A square or rectangular `size`: {"height", "width"}, a pair [height, width], or an integer where
/// `integer_is_square`. Absent gives `fallback`; keep-aspect forms are unsupported_model.
[[nodiscard]] Size read_fixed_size(const Json& size, Size fallback, bool integer_is_square);

/// A patch size given as integer, [n, n] or {"height": n, "width": n}; absent gives `fallback`.
[[nodiscard]] int64_t read_square_side(const Json& value, int64_t fallback);

/// Throws malformed_model unless `processor` (if it says anything) agrees with what the config says.
void expect_same(const Json& processor_value, int64_t config_value, std::string_view config_key);

/// rope_theta of a vision config: inside rope_scaling or rope_parameters, else at its top, else `fallback`. Rope types
/// other than "default" and "axial" are unsupported_model.
[[nodiscard]] double read_rope_theta(const Json& vision_config, double fallback);

/// in_channels or num_channels: 3, or unsupported_model.
void expect_three_channels(const Json& value);

}  // namespace oriel::arch
