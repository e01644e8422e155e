// Patches made on the tower's GPU: pictures go there as bytes, a quarter to a sixteenth of what patches in float32 are.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <oriel/torch.hpp>
#include <utility>

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
  // Rows follow each other downwards in a mirrored picture, too, whose columns go backwards.
  const int64_t row = pixels.size.width * std::abs(pixels.column_stride_bytes);
  return {.pixels = pixels.data,
          .size = pixels.size,
          .row_stride = pixels.row_stride_bytes == 0 ? row : pixels.row_stride_bytes,
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

/// Throws invalid_argument where the first or the last byte of a picture is none that the current GPU can read: a
/// kernel that tried would end the process's use of it.
void check_memory(const DevicePixelView& pixels, const std::string& name, Device device) {
  const ops::DevicePicture view = view_of(pixels);
  int64_t before = 0;
  int64_t behind = 0;
  for (const int64_t steps :
       {(view.size.height - 1) * view.row_stride, (view.size.width - 1) * view.column_stride, 2 * view.channel_stride})
    (steps < 0 ? before : behind) += steps;
  const auto unreadable = [&](int64_t bytes) {
    const auto address = reinterpret_cast<uintptr_t>(view.pixels) + static_cast<uintptr_t>(bytes);
    return ops::unreadable_memory(reinterpret_cast<const void*>(address), to_torch_device(device));
  };
  if (const std::string found = unreadable(0); !found.empty())
    throw_error(ErrorCode::invalid_argument, "{}: expected pixels in the memory of {}, got a pointer to {}", name,
                to_string(device), found);
  for (const int64_t bytes : {before, behind})
    if (const std::string found = unreadable(bytes); !found.empty())
      throw_error(ErrorCode::invalid_argument,
                  "{}: expected pixels in the memory of {}, but its strides lead {} bytes from data to {}", name,
                  to_string(device), bytes, found);
}

/// What making the patches of frames holds while it does: their bytes, and those between the two passes of a resize.
int64_t bytes_for_a_moment(Size source, Size target, const image::PixelSpec& spec, bool from_host, int64_t frames = 1) {
  return (from_host ? frames * 3 * source.width * source.height : 0) +
         ops::PixelKernels::scratch_bytes(source, target, spec, frames);
}

void check_sides(Size size, const std::string& name) {
  if (size.width > ops::longest_gpu_side || size.height > ops::longest_gpu_side)
    throw_error(ErrorCode::limit_exceeded, "{}: expected sides of at most 2^20 pixels on a GPU, got {} x {}", name,
                size.width, size.height);
}

/// The hash that the CPU's path gives the video; unknown for frames on the GPU.
template <typename GpuPicture>
ContentHash hash_of(std::span<const GpuPicture> frames, const arch::VideoTarget& plan) {
  if (frames[0].host == nullptr) return {};
  Hasher hasher;
  for (const int64_t index : plan.frame_indices)
    hasher.update(frames[static_cast<size_t>(index)].host->content_hash().to_string());
  return hasher.digest();
}

/// How the frames of one temporal slot lie, if one launch can read them.
std::optional<ops::DevicePicture> as_one_picture(const std::vector<ops::DevicePicture>& frames) {
  ops::DevicePicture all = frames[0];
  const auto distance = [&](size_t i) {
    return static_cast<int64_t>(reinterpret_cast<intptr_t>(frames[i].pixels) -
                                reinterpret_cast<intptr_t>(frames[i - 1].pixels));
  };
  if (frames.size() > 1) all.frame_stride = distance(1);
  for (size_t i = 1; i < frames.size(); ++i)
    if (frames[i].row_stride != all.row_stride || frames[i].column_stride != all.column_stride ||
        frames[i].channel_stride != all.channel_stride || distance(i) != all.frame_stride)
      return std::nullopt;
  all.frames = all.frame_stride == 0 ? 1 : static_cast<int64_t>(frames.size());  // one stands for all
  return all;
}

}  // namespace

Patches VisionTower::Impl::preprocess_on_gpu(std::span<const GpuPicture> pictures, const PreprocessOptions& options,
                                             const std::optional<GpuCall>& then) const {
  std::vector<arch::ImageTarget> targets;
  std::vector<Grid> grids;
  int64_t beside = 0;
  int64_t total = 0;
  for (const GpuPicture& picture : pictures) {
    if (picture.host == nullptr) check(picture.pixels, picture.name, device);
    targets.push_back(plan(picture.pixels.size, options, picture.name));
    check_sides(picture.pixels.size, picture.name);
    check_sides(targets.back().resized, picture.name);
    grids.push_back(targets.back().grid);
    total += grids.back().patches();
    beside = std::max(beside, bytes_for_a_moment(picture.pixels.size, targets.back().resized, traits().pixels,
                                                 picture.host != nullptr));
  }
  const c10::InferenceMode guard;
  const auto count = static_cast<int64_t>(pictures.size());
  Patches result;
  with_torch_errors("preprocess", [&] {
    const c10::Device where = to_torch_device(device);
    const c10::DeviceGuard device_guard(where);
    const ops::CallersStream on_stream(options.stream, where);
    for (const GpuPicture& picture : pictures)
      if (picture.host == nullptr) check_memory(picture.pixels, picture.name, device);
    if (!grids.empty()) check_patches_fit(grids, traits().pixels.patch_values(), beside, then);
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
        // The hash is wanted below, and takes as long as the copy.
        uploaded = ops::upload_pictures({&bytes, 1}, where, *pool, [&] { (void)picture.host->content_hash(); });
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

void VisionTower::Impl::write_slot(const std::vector<const GpuPicture*>& frames, Size target, ResizeBackend resize,
                                   const at::Tensor& rows) const {
  const image::PixelSpec& pixels = traits().video_pixels;
  std::vector<ops::DevicePicture> views;
  at::Tensor uploaded;
  if (frames[0]->host != nullptr) {
    std::vector<std::span<const uint8_t>> bytes;
    for (const GpuPicture* frame : frames) bytes.push_back(frame->host->rgb());
    uploaded = ops::upload_pictures(bytes, rows.device(), *pool);
    const auto* data = uploaded.const_data_ptr<uint8_t>();
    for (const GpuPicture* frame : frames) {
      views.push_back(view_of(frame->pixels));
      views.back().pixels = std::exchange(data, data + frame->host->rgb().size());
    }
  } else {
    for (const GpuPicture* frame : frames) views.push_back(view_of(frame->pixels));
  }
  if (const auto all = as_one_picture(views))
    return pixel_kernels.write_patches(*all, target, pixels, arithmetic(resize), rows);
  // Each frame by itself fills all places of the slot; its own one is taken.
  const at::Tensor filled = at::empty_like(rows);
  const auto place = [&](const at::Tensor& x, size_t frame) {
    return x.view({x.size(0), 3, pixels.temporal, pixels.patch * pixels.patch}).select(2, static_cast<int64_t>(frame));
  };
  for (size_t i = 0; i < views.size(); ++i) {
    pixel_kernels.write_patches(views[i], target, pixels, arithmetic(resize), filled);
    place(rows, i).copy_(place(filled, i));
  }
}

Patches VisionTower::Impl::preprocess_video_on_gpu(std::span<const GpuPicture> frames, const VideoOptions& options,
                                                   const std::optional<GpuCall>& then) const {
  for (const GpuPicture& frame : frames)
    if (frame.host == nullptr) check(frame.pixels, frame.name, device);
  const auto frame = [&](size_t i) { return Frame{frames[i].pixels.size, frames[i].name}; };
  const arch::VideoTarget plan = plan_frames(static_cast<int64_t>(frames.size()), frame, options);
  const Size size = frames[0].pixels.size;
  check_sides(size, frames[0].name);
  check_sides(plan.target.resized, frames[0].name);
  const image::PixelSpec& pixels = traits().video_pixels;
  const Grid grid = plan.target.grid;
  const bool from_host = frames[0].host != nullptr;
  int64_t beside = bytes_for_a_moment(size, plan.target.resized, pixels, from_host, pixels.temporal);
  // Frames that one launch can't read fill a slot of their own.
  if (!from_host)
    beside = std::max(beside, bytes_for_a_moment(size, plan.target.resized, pixels, false) +
                                  grid.h * grid.w * pixels.patch_values() * static_cast<int64_t>(size_in_bytes(dtype)));

  const c10::InferenceMode guard;
  Patches result;
  with_torch_errors("preprocess", [&] {
    const c10::Device where = to_torch_device(device);
    const c10::DeviceGuard device_guard(where);
    const ops::CallersStream on_stream(options.embed.stream, where);
    for (const GpuPicture& one : frames)
      if (one.host == nullptr) check_memory(one.pixels, one.name, device);
    check_patches_fit({grid}, pixels.patch_values(), beside, then);
    const at::Tensor values =
        at::empty({grid.patches(), pixels.patch_values()}, at::dtype(to_scalar_type(dtype)).device(where));
    const int64_t slot_patches = grid.h * grid.w;
    for (int64_t slot = 0; slot < grid.t; ++slot) {
      check_cancelled(options.embed.cancel);
      std::vector<const GpuPicture*> of_slot;
      for (int64_t k = 0; k < pixels.temporal; ++k)
        of_slot.push_back(&frames[frame_at(plan, slot * pixels.temporal + k)]);
      write_slot(of_slot, plan.target.resized, options.embed.resize,
                 values.narrow(0, slot * slot_patches, slot_patches));
      call_back(options.embed.progress, Progress{Progress::Stage::preprocess, slot + 1, grid.t});
    }
    result.values = from_torch(values);
  });
  result.images.push_back(patched_video(plan, size, frames[0].name, hash_of(frames, plan)));
  return result;
}

Patches VisionTower::Impl::preprocess_video_where_it_runs(std::span<const Image> frames, const VideoOptions& options,
                                                          const std::optional<GpuCall>& then) const {
  if (device.kind == Device::Kind::cpu) return preprocess_video(frames, options);
  std::vector<GpuPicture> pictures;
  for (const Image& frame : frames)
    pictures.push_back({.host = &frame, .pixels = {.size = frame.size()}, .name = frame.name()});
  return preprocess_video_on_gpu(pictures, options, then);
}

Patches VisionTower::Impl::preprocess_video_on_gpu(std::span<const DevicePixelView> frames, const VideoOptions& options,
                                                   const std::optional<GpuCall>& then) const {
  std::vector<GpuPicture> pictures;
  for (size_t i = 0; i < frames.size(); ++i)
    pictures.push_back({.host = nullptr, .pixels = frames[i], .name = "frame " + std::to_string(i)});
  return preprocess_video_on_gpu(pictures, options, then);
}

Patches VisionTower::Impl::preprocess_where_it_runs(std::span<const Image> images, const PreprocessOptions& options,
                                                    const std::optional<GpuCall>& then) const {
  if (device.kind == Device::Kind::cpu) return preprocess(images, options);
  std::vector<GpuPicture> pictures;
  for (const Image& image : images)
    pictures.push_back({.host = &image, .pixels = {.size = image.size()}, .name = image.name()});
  return preprocess_on_gpu(pictures, options, then);
}

Patches VisionTower::Impl::preprocess_on_gpu(std::span<const DevicePixelView> images, const PreprocessOptions& options,
                                             const std::optional<GpuCall>& then) const {
  std::vector<GpuPicture> pictures;
  for (size_t i = 0; i < images.size(); ++i)
    pictures.push_back({.host = nullptr, .pixels = images[i], .name = "image " + std::to_string(i)});
  return preprocess_on_gpu(pictures, options, then);
}

}  // namespace oriel
