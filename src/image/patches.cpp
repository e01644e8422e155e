#include "image/patches.hpp"

#include <algorithm>
#include <vector>

#include "core/error.hpp"
#include "image/patches_values.hpp"
#include "image/resize_plan.hpp"

namespace oriel::image {
namespace {

/// Results from this size on are written past the caches: they would push everything out and be read late anyway.
constexpr int64_t streamed_bytes = int64_t{16} << 20;

/// The patch grid of one temporal slot.
struct PatchGrid {
  int64_t rows;
  int64_t columns;
};

void check_spec(const PixelSpec& spec) {
  const int64_t max_side = 4096;
  const auto check = [max_side](std::string_view name, int64_t value) {
    if (value < 1 || value > max_side) {
      throw_error(ErrorCode::invalid_argument, "patches: expected a {} of 1 to {}, got {}", name, max_side, value);
    }
  };
  check("patch size", spec.patch);
  check("temporal patch size", spec.temporal);
  check("merge size", spec.merge);
}

PatchGrid check_grid(Size target, const PixelSpec& spec) {
  const PatchGrid grid{target.height / spec.patch, target.width / spec.patch};
  if (grid.rows % spec.merge != 0 || grid.columns % spec.merge != 0) {
    throw_error(ErrorCode::invalid_argument,
                "patches: expected a grid that blocks of {} x {} fill, got {} x {} patches", spec.merge, spec.merge,
                grid.columns, grid.rows);
  }
  return grid;
}

void check_frames(std::span<const RgbView> frames, Size target, const PixelSpec& spec) {
  if (frames.size() != 1 && static_cast<int64_t>(frames.size()) != spec.temporal) {
    throw_error(ErrorCode::invalid_argument, "patches: expected one frame or {}, got {}", spec.temporal, frames.size());
  }
  for (const RgbView& frame : frames) {
    check_view("patches: frame", frame.data, frame.size, frame.stride);
    if (frame.size != frames[0].size) {
      throw_error(ErrorCode::invalid_argument, "patches: expected frames of equal size, got {} x {} and {} x {}",
                  frames[0].size.width, frames[0].size.height, frame.size.width, frame.size.height);
    }
    if (!spec.do_resize && frame.size != target) {
      throw_error(ErrorCode::invalid_argument, "patches: without a resize, expected a frame of {} x {}, got {} x {}",
                  target.width, target.height, frame.size.width, frame.size.height);
    }
  }
}

void check_rows(const PatchGrid& grid, const PixelSpec& spec, size_t got) {
  const int64_t patches = checked_multiply(grid.rows, grid.columns, "patches");
  const int64_t expected = checked_multiply(patches, spec.patch_values(), "patches");
  if (static_cast<int64_t>(got) != expected) {
    throw_error(ErrorCode::invalid_argument, "patches: expected room for {} rows of {} floats, {} in all, got {}",
                patches, spec.patch_values(), expected, got);
  }
}

/// One thread's way from frames to rows, a band of patch * merge pixel rows at a time. A band's rows of the output are
/// adjacent in either order, so what a band needs stays in the cache and the output is written once, from front to
/// back.
class BandWriter {
 public:
  BandWriter(std::span<const RgbView> frames, const ResizePlan& plan, const PixelSpec& spec, const PatchGrid& grid,
             const std::array<ByteToFloat, 3>& channels)
      : spec_(spec), grid_(grid), plan_(plan) {
    const int64_t width = plan.target().width;
    const int64_t band_rows = spec.patch * spec.merge;
    layout_.patch = spec.patch;
    layout_.row_stride = width + plane_padding;
    layout_.plane_stride = layout_.row_stride * band_rows;
    layout_.channel_stride = spec.temporal * spec.patch * spec.patch;
    layout_.copies = frames.size() == 1 ? spec.temporal : 1;
    std::copy(channels.begin(), channels.end(), layout_.channels);
    for (const RgbView& frame : frames) resizers_.emplace_back(plan, frame);
    interleaved_.resize(static_cast<size_t>(rows_at_once * 3 * width));
    planes_.resize(static_cast<size_t>(3 * layout_.plane_stride));
    const int64_t bytes = grid.rows * grid.columns * spec.patch_values() * static_cast<int64_t>(sizeof(float));
    // Frames that come one by one write parts of a row; only whole rows are streamed.
    if (bytes >= streamed_bytes && frames.size() == 1) stage_.resize(static_cast<size_t>(2 * spec.patch_values()));
  }

  ~BandWriter() {
    if (stage_.empty()) return;
    plan_.kernels().stream(behind_);
    plan_.kernels().finish_stream();
  }
  BandWriter(const BandWriter&) = delete;
  BandWriter& operator=(const BandWriter&) = delete;

  /// `rows` is where the band's patches begin.
  void write_band(int64_t band, float* rows) {
    for (size_t frame = 0; frame < resizers_.size(); ++frame) {
      fill_planes(resizers_[frame], band);
      emit_patches(rows + static_cast<int64_t>(frame) * spec_.patch * spec_.patch);
    }
  }

 private:
  void fill_planes(RowResizer& resizer, int64_t band) {
    const int64_t band_rows = spec_.patch * spec_.merge;
    const int64_t width = plan_.target().width;
    for (int64_t y = 0; y < band_rows; y += rows_at_once) {
      const int64_t count = std::min<int64_t>(rows_at_once, band_rows - y);
      const int64_t begin = band * band_rows + y;
      resizer.write_rows(begin, begin + count, interleaved_.data(), 3 * width);
      for (int64_t row = 0; row < count; ++row) {
        uint8_t* red = planes_.data() + (y + row) * layout_.row_stride;
        const std::array<uint8_t*, 3> planes = {red, red + layout_.plane_stride, red + 2 * layout_.plane_stride};
        plan_.kernels().split_channels(interleaved_.data() + row * 3 * width, width, planes.data());
      }
    }
  }

  void emit_patches(float* rows) {
    for (int64_t block = 0; block < grid_.columns / spec_.merge; ++block) {
      for (int64_t dy = 0; dy < spec_.merge; ++dy) {
        for (int64_t dx = 0; dx < spec_.merge; ++dx, rows += spec_.patch_values()) {
          const int64_t x = (block * spec_.merge + dx) * spec_.patch;
          const uint8_t* corner = planes_.data() + dy * spec_.patch * layout_.row_stride + x;
          if (stage_.empty()) {
            plan_.kernels().emit_patch(layout_, corner, rows, {});
          } else {
            float* half = stage_.data() + (behind_.from == stage_.data() ? spec_.patch_values() : 0);
            plan_.kernels().emit_patch(layout_, corner, half, behind_);
            behind_ = {half, rows, spec_.patch_values()};
          }
        }
      }
    }
  }

  const PixelSpec& spec_;
  const PatchGrid& grid_;
  const ResizePlan& plan_;
  PatchLayout layout_{};
  std::vector<RowResizer> resizers_;
  std::vector<uint8_t> interleaved_;  ///< [rows_at_once, width, 3]
  std::vector<float> stage_;          ///< [2, patch values], where rows are streamed past the caches; else empty
  Stream behind_;                     ///< the half of the stage that is not at its place yet
  std::vector<uint8_t> planes_;       ///< [3, patch * merge, width + plane_padding]
};

}  // namespace

void write_patches(std::span<const RgbView> frames, Size target, const PixelSpec& spec, ResizeArithmetic arithmetic,
                   const ThreadPool& pool, std::span<float> rows, Simd simd) {
  check_spec(spec);
  check_frames(frames, target, spec);
  const PatchGrid grid = check_grid(target, spec);
  check_rows(grid, spec, rows.size());
  const ValueTable table = make_value_table(spec, arithmetic);
  const std::array<ByteToFloat, 3> channels = find_arithmetic(table, spec, arithmetic);
  const Filter filter = spec.do_resize ? spec.filter : Filter::bilinear;  // not used where the size stays
  const ResizePlan plan(frames[0].size, target, filter, arithmetic, simd);

  const int64_t band_values = grid.columns * spec.merge * spec.patch_values();
  pool.parallel_for(grid.rows / spec.merge, 1, [&](int64_t begin, int64_t end) {
    BandWriter writer(frames, plan, spec, grid, channels);
    for (int64_t band = begin; band < end; ++band) writer.write_band(band, rows.data() + band * band_values);
  });
}

}  // namespace oriel::image
