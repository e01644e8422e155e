#include "image/resize_plan.hpp"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.hpp"

namespace oriel::image {
namespace {

constexpr int64_t max_ring_bytes = int64_t{1} << 30;

/// Pillow 13 goes vertically first where that shrinks the picture more: spec/resize.md 3.
bool pillow_goes_vertical_first(Size source, Size target) {
  const int64_t fewer_rows = source.height - target.height;
  const int64_t fewer_columns = source.width - target.width;
  return fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
}

}  // namespace

void check_view(const char* what, const uint8_t* data, Size size, int64_t stride) {
  if (size.width < 1 || size.height < 1) {
    throw_error(ErrorCode::invalid_argument, "{}: expected sides of 1 or more pixels, got {} x {}", what, size.width,
                size.height);
  }
  if (data == nullptr) throw_error(ErrorCode::invalid_argument, "{}: expected pixels, got a null pointer", what);
  const int64_t row_bytes = checked_multiply(size.width, 3, what);
  if (size.height > 1 && stride < row_bytes && stride > -row_bytes) {
    throw_error(ErrorCode::invalid_argument, "{}: expected rows at least {} bytes apart, got a stride of {}", what,
                row_bytes, stride);
  }
}

ResizePlan::ResizePlan(Size source, Size target, Filter filter, ResizeArithmetic arithmetic, Simd simd)
    : kernels_(&kernels_for(simd)), source_(source), target_(target) {
  const Simd resolved = resolve(simd);
  // Both tables are made even where a side stays: a filter that does not exist is an error for every size.
  const AxisWeights columns = make_axis_weights(source.width, target.width, filter, arithmetic);
  const AxisWeights rows = make_axis_weights(source.height, target.height, filter, arithmetic);
  if (source.width != target.width) horizontal_.emplace(columns, resolved);
  if (source.height != target.height) vertical_.emplace(rows, resolved);
  vertical_first_ = arithmetic == ResizeArithmetic::pillow && pillow_goes_vertical_first(source, target);
  if (horizontal_ && vertical_ && !vertical_first_) {
    const int64_t ring = checked_multiply(checked_multiply(target.width, 3, "resize"), vertical_->taps(), "resize");
    if (ring > max_ring_bytes) {
      throw_error(ErrorCode::limit_exceeded,
                  "resize: {} x {} to {} x {} would need {} bytes of intermediate rows, the limit is {}", source.width,
                  source.height, target.width, target.height, ring, max_ring_bytes);
    }
  }
}

RowResizer::RowResizer(const ResizePlan& plan, const RgbView& source) : plan_(plan), source_(source) {
  if (plan.horizontal_) tail_.resize(static_cast<size_t>(rows_at_once * plan.horizontal_->tail_bytes()));
  if (plan.vertical_) pointers_.resize(static_cast<size_t>(plan.vertical_->padded_taps()));
  if (plan.horizontal_ && plan.vertical_) {
    ring_rows_ = plan.vertical_first_ ? rows_at_once : plan.vertical_->taps() + rows_at_once;
    ring_stride_ = 3 * (plan.vertical_first_ ? source.size.width : plan.target_.width);
    ring_.resize(static_cast<size_t>(ring_rows_ * ring_stride_));
  }
}

void RowResizer::write_rows(int64_t begin, int64_t end, uint8_t* out, int64_t stride) {
  if (plan_.horizontal_ && plan_.vertical_) {
    return plan_.vertical_first_ ? write_vertical_first(begin, end, out, stride)
                                 : write_horizontal_first(begin, end, out, stride);
  }
  if (plan_.horizontal_) return write_horizontal(begin, end, out, stride);
  const int64_t bytes = 3 * plan_.target_.width;
  for (int64_t y = begin; y < end; ++y, out += stride) {
    if (plan_.vertical_) {
      mix_row(y, false, out, bytes);
    } else {
      std::memcpy(out, source_row(y), static_cast<size_t>(bytes));
    }
  }
}

/// The horizontal pass over rows_at_once rows; pointers may repeat. `ahead` bytes behind each lies the row after it.
void RowResizer::squeeze(const uint8_t* const* source, uint8_t* const* target, int64_t ahead) {
  const HorizontalPass& pass = *plan_.horizontal_;
  HorizontalWeights weights = pass.weights();
  weights.ahead = ahead;
  plan_.kernels_->horizontal(weights, 0, pass.inner_groups(), source, 0, target);
  if (pass.inner_groups() == weights.groups) return;

  const int64_t inside = 3 * source_.size.width - pass.tail_start();
  std::array<const uint8_t*, rows_at_once> tails;
  for (int row = 0; row < rows_at_once; ++row) {
    uint8_t* tail = tail_.data() + row * pass.tail_bytes();
    std::memcpy(tail, source[row] + pass.tail_start(), static_cast<size_t>(std::min(inside, pass.tail_bytes())));
    tails[static_cast<size_t>(row)] = tail;
  }
  weights.ahead = 0;
  plan_.kernels_->horizontal(weights, pass.inner_groups(), weights.groups, tails.data(), pass.tail_start(), target);
}

/// Brings source rows up to `end` into the ring.
void RowResizer::squeeze_up_to(int64_t end) {
  while (ring_end_ < end) {
    const int64_t count = std::min<int64_t>(rows_at_once, source_.size.height - ring_end_);
    std::array<const uint8_t*, rows_at_once> from;
    std::array<uint8_t*, rows_at_once> to;
    for (int64_t row = 0; row < rows_at_once; ++row) {
      const int64_t y = ring_end_ + std::min(row, count - 1);
      from[static_cast<size_t>(row)] = source_row(y);
      to[static_cast<size_t>(row)] = ring_row(y);
    }
    const bool more = ring_end_ + 2 * rows_at_once <= source_.size.height;
    squeeze(from.data(), to.data(), more ? rows_at_once * source_.stride : 0);
    ring_end_ += count;
    ring_begin_ = std::max(ring_begin_, ring_end_ - ring_rows_);
  }
}

/// The vertical pass for one output row.
void RowResizer::mix_row(int64_t y, bool from_ring, uint8_t* out, int64_t bytes) {
  const VerticalPass& pass = *plan_.vertical_;
  const int64_t first = pass.first(y);
  const int64_t last = first + pass.count(y) - 1;
  for (int64_t tap = 0; tap < pass.padded_taps(); ++tap) {
    const int64_t row = std::min(first + tap, last);
    pointers_[static_cast<size_t>(tap)] = from_ring ? ring_row(row) : source_row(row);
  }
  plan_.kernels_->vertical(pass.weights(), y, pointers_.data(), bytes, out);
}

void RowResizer::write_horizontal(int64_t begin, int64_t end, uint8_t* out, int64_t stride) {
  for (int64_t y = begin; y < end; y += rows_at_once) {
    std::array<const uint8_t*, rows_at_once> from;
    std::array<uint8_t*, rows_at_once> to;
    for (int64_t row = 0; row < rows_at_once; ++row) {
      const int64_t inside = std::min(y + row, end - 1);
      from[static_cast<size_t>(row)] = source_row(inside);
      to[static_cast<size_t>(row)] = out + (inside - begin) * stride;
    }
    squeeze(from.data(), to.data());
  }
}

void RowResizer::write_horizontal_first(int64_t begin, int64_t end, uint8_t* out, int64_t stride) {
  const VerticalPass& pass = *plan_.vertical_;
  for (int64_t y = begin; y < end; ++y, out += stride) {
    const int64_t first = pass.first(y);
    if (first < ring_begin_ || first > ring_end_) ring_begin_ = ring_end_ = first;
    squeeze_up_to(first + pass.count(y));
    mix_row(y, true, out, 3 * plan_.target_.width);
  }
}

void RowResizer::write_vertical_first(int64_t begin, int64_t end, uint8_t* out, int64_t stride) {
  for (int64_t y = begin; y < end; y += rows_at_once) {
    std::array<const uint8_t*, rows_at_once> from;
    std::array<uint8_t*, rows_at_once> to;
    for (int64_t row = 0; row < rows_at_once; ++row) {
      const int64_t inside = std::min(y + row, end - 1);
      from[static_cast<size_t>(row)] = ring_row(inside - y);
      to[static_cast<size_t>(row)] = out + (inside - begin) * stride;
      if (y + row < end) mix_row(inside, false, ring_row(row), 3 * source_.size.width);
    }
    squeeze(from.data(), to.data());
  }
}

}  // namespace oriel::image
