#pragma once
// image::write_patches on a GPU: the same values bit for bit, rounded where the tower computes in 16 bits.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <span>

#include "core/thread_pool.hpp"
#include "image/patches.hpp"
#include "oriel/types.hpp"

namespace oriel::ops {

inline constexpr int64_t longest_gpu_side = int64_t{1} << 20;  ///< of a picture, and of what it is resized to

/// Bytes of one picture, or of equally large frames, in a GPU's memory. Strides in bytes, of either sign.
struct DevicePicture {
  const uint8_t* pixels = nullptr;  ///< red of the top left pixel
  Size size;
  int64_t row_stride = 0;
  int64_t column_stride = 3;
  int64_t channel_stride = 1;
  int64_t frames = 1;
  int64_t frame_stride = 0;
};

/// Copies pictures in host memory, RGB without padding, one behind the other to a GPU, behind what is enqueued on its
/// current stream; the host does not wait for the copy. Large ones are put into pinned memory by all threads of the
/// pool, one of which does something else of the caller's first, `meanwhile`; for small ones nothing calls it. Result:
/// uint8 [bytes of all].
[[nodiscard]] at::Tensor upload_pictures(std::span<const std::span<const uint8_t>> pictures, c10::Device device,
                                         const ThreadPool& pool, const std::function<void()>& meanwhile = {});

/// The pixel kernels, with the tables of the last few resizes on the device. Safe from many threads.
class PixelKernels {
 public:
  static constexpr size_t most_tables = 16;

  PixelKernels();
  ~PixelKernels();

  /// Writes the rows of one temporal slot on the current stream; arguments as image::write_patches'. rows
  /// [patches, spec.patch_values()] of float32, bfloat16 or float16 on the GPU, its rows dense. Throws as
  /// image::write_patches, and unavailable in a build without CUDA.
  void write_patches(const DevicePicture& picture, Size target, const image::PixelSpec& spec,
                     image::ResizeArithmetic arithmetic, const at::Tensor& rows);
  /// At least what write_patches holds for a moment beside picture and rows; its tables, some hundred kilobytes that
  /// are kept, apart. 0 in a build without CUDA.
  [[nodiscard]] static int64_t scratch_bytes(Size source, Size target, const image::PixelSpec& spec,
                                             int64_t frames = 1);

 private:
  struct Tables;
  [[nodiscard]] std::shared_ptr<const Tables> tables_for(Size source, Size target, const image::PixelSpec& spec,
                                                         image::ResizeArithmetic arithmetic, c10::Device device);

  std::mutex mutex_;
  std::list<std::shared_ptr<const Tables>> tables_;  ///< most recently used first
};

}  // namespace oriel::ops
