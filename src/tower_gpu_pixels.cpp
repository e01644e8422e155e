// Patches made on the tower's GPU: pictures go there as bytes, a quarter to a sixteenth of what patches in float32 are.
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <oriel/torch.hpp>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "ops/device.hpp"
#include "tensor_types.hpp"
#include "torch_errors.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

constexpr int64_t longest_stride = int64_t{1} << 40;  // bytes

ops::DevicePicture view_of(const DevicePixelView& pixels) {
  return {.pixels = pixels.data,
          .size = pixels.size,
          .row_stride =
              pixels.row_stride_bytes == 0 ? pixels.size.width * pixels.column_stride_bytes : pixels.row_stride_bytes,
          .column_stride = pixels.column_stride_bytes,
          .channel_stride = pixels.channel_stride_bytes};
}

void check(const DevicePixelView& pixels, const std::string& name, Device device) {
  if (device.kind != Device::Kind::cuda)
    throw_error(ErrorCode::invalid_argument, "{}: pixels in a GPU's memory need a tower on a GPU, this one is on {}",
                name, to_string(device));
  if (pixels.data == nullptr) throw_error(ErrorCode::invalid_argument, "{}: expected pixels, got a null pointer", name);
  if (pixels.column_stride_bytes == 0 || pixels.channel_stride_bytes == 0)
    throw_error(ErrorCode::invalid_argument, "{}: expected strides other than 0, got column {} and channel {}", name,
                pixels.column_stride_bytes, pixels.channel_stride_bytes);
  for (const int64_t stride : {pixels.row_stride_bytes, pixels.column_stride_bytes, pixels.channel_stride_bytes})
    if (stride > longest_stride || stride < -longest_stride)
      throw_error(ErrorCode::invalid_argument, "{}: expected strides of at most 2^40 bytes either way, got {}", name,
                  stride);
}

void check_sides(Size size, const std::string& name) {
  if (size.width > ops::longest_gpu_side || size.height > ops::longest_gpu_side)
    throw_error(ErrorCode::limit_exceeded, "{}: expected sides of at most 2^20 pixels on a GPU, got {} x {}", name,
                size.width, size.height);
}

}  // namespace

Patches VisionTower::Impl::preprocess_on_gpu(std::span<const GpuPicture> pictures,
                                             const PreprocessOptions& options) const {
  std::vector<arch::ImageTarget> targets;
  int64_t total = 0;
  for (const GpuPicture& picture : pictures) {
    if (picture.host == nullptr) check(picture.pixels, picture.name, device);
    targets.push_back(plan(picture.pixels.size, options, picture.name));
    check_sides(picture.pixels.size, picture.name);
    check_sides(targets.back().resized, picture.name);
    total += targets.back().grid.patches();
  }
  const c10::InferenceMode guard;
  const auto count = static_cast<int64_t>(pictures.size());
  Patches result;
  with_torch_errors("preprocess", [&] {
    const c10::Device where = to_torch_device(device);
    const c10::DeviceGuard device_guard(where);
    const ops::CallersStream on_stream(options.stream, where);
    const at::Tensor values =
        at::empty({total, traits().pixels.patch_values()}, at::dtype(to_scalar_type(dtype)).device(where));
    int64_t begin = 0;
    for (size_t i = 0; i < pictures.size(); ++i) {
      check_cancelled(options.cancel);
      const GpuPicture& picture = pictures[i];
      const arch::ImageTarget& target = targets[i];
      at::Tensor uploaded;
      ops::DevicePicture view = view_of(picture.pixels);
      if (picture.host != nullptr) {
        const std::span<const uint8_t> bytes = picture.host->rgb();
        uploaded = ops::upload_pictures({&bytes, 1}, where);
        view.pixels = uploaded.const_data_ptr<uint8_t>();
      }
      pixel_kernels.write_patches(view, target.resized, traits().pixels, arithmetic(options.resize),
                                  values.narrow(0, begin, target.grid.patches()));
      begin += target.grid.patches();
      result.images.push_back({.grid = target.grid,
                               .original = picture.pixels.size,
                               .resized = target.resized,
                               .name = picture.name,
                               .content_hash = picture.host != nullptr ? picture.host->content_hash() : ContentHash{}});
      call_back(options.progress, Progress{Progress::Stage::preprocess, static_cast<int64_t>(i) + 1, count});
    }
    result.values = from_torch(values);
  });
  return result;
}

Patches VisionTower::Impl::preprocess_where_it_runs(std::span<const Image> images,
                                                    const PreprocessOptions& options) const {
  if (device.kind == Device::Kind::cpu) return preprocess(images, options);
  std::vector<GpuPicture> pictures;
  for (const Image& image : images)
    pictures.push_back({.host = &image, .pixels = {.size = image.size()}, .name = image.name()});
  return preprocess_on_gpu(pictures, options);
}

Patches VisionTower::Impl::preprocess_on_gpu(std::span<const DevicePixelView> images,
                                             const PreprocessOptions& options) const {
  std::vector<GpuPicture> pictures;
  for (size_t i = 0; i < images.size(); ++i)
    pictures.push_back({.host = nullptr, .pixels = images[i], .name = "image " + std::to_string(i)});
  return preprocess_on_gpu(pictures, options);
}

}  // namespace oriel
