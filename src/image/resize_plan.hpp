#pragma once
// Resizing as a stream of rows: what resize() and write_patches() have in common.
#include <cstdint>
#include <optional>
#include <vector>

#include "image/resize.hpp"
#include "image/resize_kernels.hpp"
#include "image/resize_packing.hpp"

namespace oriel::image {

/// The kernels for a set of instructions. Throws unavailable if the processor lacks it.
[[nodiscard]] const Kernels& kernels_for(Simd simd);
/// What `best` stands for on this processor; any other value itself.
[[nodiscard]] Simd resolve(Simd simd);

/// Throws invalid_argument unless `data` is set, sides are positive and rows do not overlap.
void check_view(const char* what, const uint8_t* data, Size size, int64_t stride);

/// Everything about a resize that does not depend on pixels. Shared by threads.
class ResizePlan {
 public:
  /// Throws as make_axis_weights, and limit_exceeded if a thread's intermediate rows would take more than 1 GiB.
  ResizePlan(Size source, Size target, Filter filter, ResizeArithmetic arithmetic, Simd simd);

  [[nodiscard]] const Kernels& kernels() const { return *kernels_; }
  [[nodiscard]] Size target() const { return target_; }

 private:
  friend class RowResizer;
  const Kernels* kernels_;
  Size source_;
  Size target_;
  std::optional<HorizontalPass> horizontal_;  ///< empty if the width stays
  std::optional<VerticalPass> vertical_;      ///< empty if the height stays
  bool vertical_first_ = false;
};

/// Makes the rows of a resized picture, best from top to bottom. One thread's own; plan and source must outlive it.
class RowResizer {
 public:
  RowResizer(const ResizePlan& plan, const RgbView& source);
  /// Writes target rows [begin, end), `stride` bytes apart, to `out`. Intermediate rows are kept for the next call.
  void write_rows(int64_t begin, int64_t end, uint8_t* out, int64_t stride);

 private:
  [[nodiscard]] const uint8_t* source_row(int64_t y) const { return source_.data + y * source_.stride; }
  [[nodiscard]] uint8_t* ring_row(int64_t y) { return ring_.data() + (y % ring_rows_) * ring_stride_; }
  void squeeze(const uint8_t* const* source, uint8_t* const* target, int64_t ahead = 0);
  void squeeze_up_to(int64_t end);
  void mix_row(int64_t y, bool from_ring, uint8_t* out, int64_t bytes);
  void write_horizontal(int64_t begin, int64_t end, uint8_t* out, int64_t stride);
  void write_vertical_first(int64_t begin, int64_t end, uint8_t* out, int64_t stride);
  void write_horizontal_first(int64_t begin, int64_t end, uint8_t* out, int64_t stride);

  const ResizePlan& plan_;
  RgbView source_;
  std::vector<uint8_t> tail_;             ///< ends of rows_at_once rows, padded for the kernels' reads
  std::vector<const uint8_t*> pointers_;  ///< rows under the taps of one output row
  // Intermediate rows: source rows [ring_begin_, ring_end_) squeezed to the target's width, row y in slot
  // y % ring_rows_; or, vertical pass first, rows_at_once target rows of the source's width.
  std::vector<uint8_t> ring_;
  int64_t ring_stride_ = 0;
  int64_t ring_rows_ = 0;
  int64_t ring_begin_ = 0;
  int64_t ring_end_ = 0;
};

}  // namespace oriel::image
