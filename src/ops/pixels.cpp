#include "ops/pixels.hpp"

#include "core/error.hpp"

#ifdef ORIEL_CUDA
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "image/resize_tables.hpp"
#include "ops/cuda/launch.hpp"
#include "ops/cuda/patches_params.hpp"
#include "ops/device.hpp"
#include "pixels.h"
#endif

namespace oriel::ops {

#ifdef ORIEL_CUDA

static_assert(longest_gpu_side == kernels::longest_picture_side);

at::Tensor upload_pictures(std::span<const std::span<const uint8_t>> pictures, c10::Device device,
                           const ThreadPool& pool, const std::function<void()>& meanwhile) {
  constexpr size_t stretch = size_t{1} << 20;                          // of a picture, copied by one thread
  constexpr size_t large = size_t{4} << 20;                            // from here on it pays to wake the others
  std::vector<std::pair<std::span<const uint8_t>, size_t>> stretches;  // and where they go
  size_t total = 0;
  for (const auto& picture : pictures) {
    for (size_t begin = 0; begin < picture.size(); begin += stretch)
      stretches.emplace_back(picture.subspan(begin, std::min(stretch, picture.size() - begin)), total + begin);
    total += picture.size();
  }
  const at::Tensor host = at::empty({static_cast<int64_t>(total)}, at::dtype(at::kByte).pinned_memory(true));
  auto* const to = host.mutable_data_ptr<uint8_t>();
  const auto copy = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto& [bytes, place] = stretches[static_cast<size_t>(i)];
      std::copy(bytes.begin(), bytes.end(), to + place);
    }
  };
  const auto count = static_cast<int64_t>(stretches.size());
  if (total >= large && pool.size() > 1)
    pool.parallel_for(count + 1, 1, [&](int64_t begin, int64_t end) {
      if (begin == 0 && meanwhile) meanwhile();
      copy(std::max<int64_t>(begin - 1, 0), end - 1);
    });
  else
    copy(0, count);
  return host.to(device, /*non_blocking=*/true);
}

struct PixelKernels::Tables {
  Size source;
  Size target;
  image::PixelSpec spec;
  image::ResizeArithmetic arithmetic;
  int64_t stream;  ///< another stream would have to wait for the copy
  image::PixelTables tables;
  at::Tensor on_device;
};

namespace {

bool same_values(const image::PixelSpec& a, const image::PixelSpec& b) {
  return a.do_resize == b.do_resize && a.filter == b.filter && a.do_rescale == b.do_rescale &&
         a.rescale_factor == b.rescale_factor && a.do_normalize == b.do_normalize && a.mean == b.mean && a.std == b.std;
}

}  // namespace

PixelKernels::PixelKernels() = default;
PixelKernels::~PixelKernels() = default;

std::shared_ptr<const PixelKernels::Tables> PixelKernels::tables_for(Size source, Size target,
                                                                     const image::PixelSpec& spec,
                                                                     image::ResizeArithmetic arithmetic,
                                                                     c10::Device device) {
  const int64_t stream = current_stream(device).id();
  const auto fits = [&](const std::shared_ptr<const Tables>& t) {
    return t->source == source && t->target == target && t->arithmetic == arithmetic && t->stream == stream &&
           same_values(t->spec, spec);
  };
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = std::find_if(tables_.begin(), tables_.end(), fits); found != tables_.end()) {
      tables_.splice(tables_.begin(), tables_, found);
      return *found;
    }
  }
  const auto made = std::shared_ptr<Tables>(
      new Tables{source, target, spec, arithmetic, stream, image::PixelTables(source, target, spec, arithmetic), {}});
  const at::Tensor host = at::empty({made->tables.bytes()}, at::dtype(at::kByte).pinned_memory(true));
  made->tables.write({host.mutable_data_ptr<uint8_t>(), static_cast<size_t>(made->tables.bytes())});
  made->on_device = host.to(device, /*non_blocking=*/true);
  const std::lock_guard lock(mutex_);
  tables_.push_front(made);
  if (tables_.size() > most_tables) tables_.pop_back();
  return made;
}

int64_t PixelKernels::scratch_bytes(Size source, Size target, const image::PixelSpec& spec, int64_t frames) {
  if (source == target) return 0;
  kernels::PatchesParams params;
  params.resize = true;
  params.picture.height = source.height;
  params.picture.width = source.width;
  params.picture.frames = frames;
  params.target_height = target.height;
  params.target_width = target.width;
  params.patch = spec.patch;
  params.temporal = spec.temporal;
  params.merge = spec.merge;
  size_t most = 0;  // which pass comes first is known with the tables
  for (const bool rows_first : {false, true}) {
    params.rows_first = rows_first;
    most = std::max(most, kernels::patches_scratch_bytes(params));
  }
  return static_cast<int64_t>(most);
}

void PixelKernels::write_patches(const DevicePicture& picture, Size target, const image::PixelSpec& spec,
                                 image::ResizeArithmetic arithmetic, const at::Tensor& rows) {
  const auto tables = tables_for(picture.size, target, spec, arithmetic, rows.device());
  kernels::PatchesParams params =
      cuda::params_of(tables->tables, tables->on_device.const_data_ptr<uint8_t>(), spec, target);
  params.picture = {.pixels = picture.pixels,
                    .height = picture.size.height,
                    .width = picture.size.width,
                    .row_stride = picture.row_stride,
                    .column_stride = picture.column_stride,
                    .channel_stride = picture.channel_stride,
                    .frames = picture.frames,
                    .frame_stride = picture.frame_stride};
  params.out = rows.mutable_data_ptr();
  params.out_stride = rows.stride(0);
  params.out_columns = rows.size(1);
  params.element = cuda::element_of(rows);
  const auto scratch_bytes = static_cast<int64_t>(kernels::patches_scratch_bytes(params));
  const at::Tensor scratch = at::empty({scratch_bytes}, rows.options().dtype(at::kByte));
  params.scratch = scratch_bytes > 0 ? scratch.mutable_data_ptr() : nullptr;
  const cudaError_t error = kernels::write_patches(params, cuda::stream_of(rows));
  if (error == cudaErrorInvalidValue)
    throw_error(ErrorCode::limit_exceeded,
                "a picture of {} x {} pixels resized to {} x {}: more than the GPU's kernels take", picture.size.width,
                picture.size.height, target.width, target.height);
  cuda::check(error, "write_patches");
}

#else

struct PixelKernels::Tables {};
PixelKernels::PixelKernels() = default;
PixelKernels::~PixelKernels() = default;

int64_t PixelKernels::scratch_bytes(Size, Size, const image::PixelSpec&, int64_t) { return 0; }

void PixelKernels::write_patches(const DevicePicture&, Size, const image::PixelSpec&, image::ResizeArithmetic,
                                 const at::Tensor&) {
  throw_error(ErrorCode::unavailable, "preprocessing on a GPU: this build of oriel runs on the CPU only");
}

at::Tensor upload_pictures(std::span<const std::span<const uint8_t>>, c10::Device, const ThreadPool&,
                           const std::function<void()>&) {
  throw_error(ErrorCode::unavailable, "preprocessing on a GPU: this build of oriel runs on the CPU only");
}

#endif

}  // namespace oriel::ops
