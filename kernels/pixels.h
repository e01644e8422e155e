#pragma once
// From a decoded picture in device memory to the rows that a vision tower reads, in the CPU's integer arithmetic: the
// bytes are those of image::resize and the floats those of image::write_patches, bit for bit.
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace oriel::kernels {

inline constexpr int64_t longest_picture_side = int64_t{1} << 20;  ///< of a picture, and of what it is resized to

/// Where the bytes of one picture, or of equally large frames, lie. Strides are in bytes and of either sign. Fast are
/// interleaved RGB (column_stride 3, channel_stride 1), RGB with a fourth byte of any value (column_stride 4,
/// channel_stride 1, all else a multiple of 4) and planes (column_stride 1); everything else is read byte by byte.
struct PictureView {
  const uint8_t* pixels = nullptr;  ///< red of the top left pixel
  int64_t height = 0;
  int64_t width = 0;
  int64_t row_stride = 0;
  int64_t column_stride = 3;
  int64_t channel_stride = 1;
  int64_t frames = 1;
  int64_t frame_stride = 0;
};

/// The weights of one axis, as image::AxisTable describes them.
struct AxisWeightsView {
  const int32_t* first = nullptr;   ///< device, [out]
  const uint32_t* words = nullptr;  ///< device; of rows [out, chunks, digits], of columns [chunks, digits, out]
  int64_t in = 0;
  int64_t out = 0;
  int32_t chunks = 0;
  int32_t digits = 0;  ///< 2 or 3
  int32_t shift = 0;
  int32_t span = 0;
};

/// How the bytes of one channel become floats, as image::ByteToFloat describes it.
struct ByteValues {
  bool computable = false;  ///< else the table is read
  float scale_high = 0;
  float scale_low = 0;
  float mean = 0;
  float divisor = 0;
  float reciprocal = 0;
};

/// Resizes a picture, turns bytes into floats and writes patches: row r of `out` holds a patch's values in the order
/// (channel, frame, y, x). Patches stand in raster order, or, with merge m, in raster order of blocks of m x m and
/// inside each block. Pixels right of and below the last whole patch are left out. Everything in a row is written, to
/// the end of `out_columns`.
struct PatchesParams {
  PictureView picture;        ///< frames: 1, which then fills all temporal slots, or `temporal`
  bool resize = false;        ///< if not, the picture has the target's size, and rows and columns are not read
  bool rows_first = false;    ///< the vertical pass is the first one
  AxisWeightsView rows;       ///< from picture.height to target_height
  AxisWeightsView columns;    ///< from picture.width to target_width
  int64_t target_height = 0;  ///< at least one patch; the grid a whole number of blocks
  int64_t target_width = 0;
  const float* values = nullptr;  ///< device, [3, 256]: the float of every byte
  ByteValues channels[3];
  int64_t patch = 0;     ///< side in pixels
  int64_t temporal = 1;  ///< frames of a patch
  int64_t merge = 1;
  void* out = nullptr;                  ///< [patches, out_columns], aligned to an element; to 16 bytes is fast
  int64_t out_stride = 0;               ///< elements from one row to the next, at least out_columns
  int64_t out_columns = 0;              ///< at least 3 * temporal * patch * patch; zeros behind those
  Element element = Element::bfloat16;  ///< floats are rounded to nearest even
  void* scratch = nullptr;  ///< patches_scratch_bytes, aligned to 16 bytes; free again when the kernels have run
};
/// Two kernels (one without a resize). Overlapping pictures and outputs are not allowed.
cudaError_t write_patches(const PatchesParams& params, cudaStream_t stream);

/// Bytes of scratch for these parameters, of which only sizes are read. 0 without a resize.
size_t patches_scratch_bytes(const PatchesParams& params);

}  // namespace oriel::kernels
