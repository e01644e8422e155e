#pragma once
// From a decoded picture to the rows that a vision tower reads: resize, rescale, normalise, patchify.
#include <array>
#include <cstdint>
#include <span>

#include "core/thread_pool.hpp"
#include "image/resize.hpp"
#include "oriel/types.hpp"

namespace oriel::image {

/// What a processor does to pixels, as read from its file: spec/resize.md 7, spec/qwen_vl.md 2.
struct PixelSpec {
  bool do_resize = true;
  Filter filter = Filter::bicubic;
  bool do_rescale = true;
  double rescale_factor = 1.0 / 255.0;
  bool do_normalize = true;
  std::array<double, 3> mean{};
  std::array<double, 3> std{};
  int64_t patch = 14;    ///< side of a patch in pixels
  int64_t temporal = 1;  ///< frames in one patch; a still image fills every slot with the same pixels
  int64_t merge = 1;  ///< 1: patches in raster order; m: in blocks of m x m, raster inside the block and of the blocks

  /// Values of one row: 3 * temporal * patch * patch.
  [[nodiscard]] int64_t patch_values() const { return 3 * temporal * patch * patch; }
};

/// The float32 value of every byte in every channel. torchvision fuses rescale and normalise, Pillow's processors do
/// not.
using ValueTable = std::array<std::array<float, 256>, 3>;
[[nodiscard]] ValueTable make_value_table(const PixelSpec& spec, ResizeArithmetic arithmetic);

/// Writes the rows of one temporal slot: (target.height / patch) * (target.width / patch) rows of spec.patch_values()
/// floats, each row (channel, frame, y, x). Pixels right of and below the last whole patch are left out.
/// `frames` holds spec.temporal pictures of equal size, or one that stands for all.
/// Each is resized to `target` first (unless !spec.do_resize, where its size must be `target`).
/// `rows` must have exactly the size needed; from 16 MiB on it is written past the caches. Parallel on `pool`.
/// Throws invalid_argument for frames, grid or room that do not fit each other, and as make_value_table and resize do.
void write_patches(std::span<const RgbView> frames, Size target, const PixelSpec& spec, ResizeArithmetic arithmetic,
                   const ThreadPool& pool, std::span<float> rows, Simd simd = Simd::best);

}  // namespace oriel::image
