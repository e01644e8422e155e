// What a picture becomes (from its size), and the patches themselves (from its pixels).
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <oriel/torch.hpp>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "image/patches.hpp"
#include "torch_errors.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

constexpr int64_t longest_side = int64_t{1} << 31;
constexpr int64_t most_patch_bytes = int64_t{1} << 40;

arch::PixelBudget pixel_budget(const arch::Traits& traits, const PreprocessOptions& options) {
  if ((options.min_pixels || options.max_pixels) && !traits.has_pixel_limits)
    throw_error(ErrorCode::invalid_argument, "{}: {} has no pixel limits",
                options.min_pixels ? "min_pixels" : "max_pixels", traits.family);
  const auto check = [](const char* name, const std::optional<int64_t>& value) {
    if (value && (*value < 1 || *value > (int64_t{1} << 40)))
      throw_error(ErrorCode::invalid_argument, "{}: expected 1 to 2^40 pixels, got {}", name, *value);
  };
  check("min_pixels", options.min_pixels);
  check("max_pixels", options.max_pixels);
  if (options.min_pixels && options.max_pixels && *options.min_pixels > *options.max_pixels)
    throw_error(ErrorCode::invalid_argument, "min_pixels {}: expected at most max_pixels {}", *options.min_pixels,
                *options.max_pixels);
  return {options.min_pixels, options.max_pixels};
}

void check_size(Size size, const std::string& name) {
  if (size.width < 1 || size.height < 1 || size.width > longest_side || size.height > longest_side)
    throw_error(ErrorCode::invalid_argument, "{}: expected sides of 1 to 2^31 pixels, got {} x {}", name, size.width,
                size.height);
}

void check_target(const arch::Traits& traits, const arch::ImageTarget& target, const std::string& name) {
  const int64_t values = checked_multiply(target.grid.patches(), traits.pixels.patch_values(), name);
  if (values > most_patch_bytes / 4)
    throw_error(ErrorCode::limit_exceeded, "{}: resized to {} x {} it would need {} patch values, more than {}", name,
                target.resized.width, target.resized.height, values, most_patch_bytes / 4);
}

/// A pixel limit that would have kept the picture within its tokens, if there is one; tried before it is said.
std::string pixel_advice(const arch::Architecture& architecture, Size size, const arch::PixelBudget& budget,
                         int64_t most_tokens) {
  const arch::Traits& traits = architecture.traits();
  const int64_t unit = traits.pixels.patch * traits.merge_size;
  if (!traits.has_pixel_limits || most_tokens < 1 || most_tokens > (int64_t{1} << 30)) return {};
  const int64_t pixels = most_tokens * unit * unit;
  const arch::ImageTarget target = architecture.plan(size, {budget.min_pixels, pixels});
  return target.rows <= most_tokens ? fmt::format("; max_pixels = {} would keep it within", pixels) : std::string();
}

/// Runs a plan of the architecture; its errors get the picture's name in front.
template <typename Plan>
auto with_name(const std::string& name, const Plan& plan) {
  try {
    return plan();
  } catch (const Error& error) {
    throw Error(error.code(), name + ": " + error.what());
  }
}

image::RgbView view_of(const Image& image) { return {image.rgb().data(), image.size(), image.size().width * 3}; }

/// Asks the system for huge pages for what lies wholly inside [begin, begin + bytes): to be handed 50 MB in small ones
/// takes several times as long as to compute what is stored there. A wish: without it the pages are small.
void wish_for_huge_pages(void* begin, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t{2} << 20;
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + page - 1) / page * page;
  const uintptr_t last = (address + bytes) / page * page;
  if (first < last) (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)begin;
  (void)bytes;
#endif
}

/// float32 [rows, columns], not set to anything.
at::Tensor empty_matrix(int64_t rows, int64_t columns) {
  // From here on glibc's malloc takes every block fresh from the system. Smaller ones it soon keeps for the next call,
  // and a page faulted once is not worth the wait while the system puts a huge one together.
  constexpr size_t large = size_t{32} << 20;
  at::Tensor result = at::empty({rows, columns}, at::kFloat);
  if (result.nbytes() >= large) wish_for_huge_pages(result.mutable_data_ptr(), result.nbytes());
  return result;
}

/// Patch rows of all pictures, and the place of each.
struct PatchBuffer {
  at::Tensor values;
  explicit PatchBuffer(int64_t patches, int64_t patch_values) : values(empty_matrix(patches, patch_values)) {}
  std::span<float> rows(int64_t begin, int64_t count) {
    const int64_t width = values.size(1);
    return {values.mutable_data_ptr<float>() + begin * width, static_cast<size_t>(count * width)};
  }
};

}  // namespace

void check_tokens(int64_t rows, const std::optional<int64_t>& most, const std::string& name,
                  const std::string& advice) {
  if (most && rows > *most)
    throw_error(ErrorCode::limit_exceeded, "{}: needs {} tokens, more than max_tokens = {}{}", name, rows, *most,
                advice);
}

image::ResizeArithmetic arithmetic(ResizeBackend backend) {
  switch (backend) {
    case ResizeBackend::torchvision:
      return image::ResizeArithmetic::torchvision;
    case ResizeBackend::pillow:
      return image::ResizeArithmetic::pillow;
    case ResizeBackend::pillow12:
      return image::ResizeArithmetic::pillow12;
  }
  throw_error(ErrorCode::invalid_argument, "resize: unknown value {}", static_cast<int>(backend));
}

void check_cancelled(const std::stop_token& token) {
  if (token.stop_requested()) throw_error(ErrorCode::cancelled, "the call was cancelled");
}

arch::ImageTarget VisionTower::Impl::plan(Size size, const PreprocessOptions& options, const std::string& name) const {
  check_size(size, name);
  const arch::PixelBudget budget = pixel_budget(traits(), options);
  const arch::ImageTarget target = with_name(name, [&] { return architecture->plan(size, budget); });
  check_target(traits(), target, name);
  if (options.max_tokens && target.rows > *options.max_tokens)
    check_tokens(target.rows, options.max_tokens, name, pixel_advice(*architecture, size, budget, *options.max_tokens));
  return target;
}

std::vector<Rect> VisionTower::Impl::plan_crops(Size size, const CropOptions& options, const std::string& name) const {
  check_size(size, name);
  if (!(options.min_ratio >= 1 && options.min_ratio < 1e6))
    throw_error(ErrorCode::invalid_argument, "min_ratio: expected a number from 1 and below 1e+06, got {}",
                options.min_ratio);
  if (options.min_side < 1)
    throw_error(ErrorCode::invalid_argument, "min_side: expected a positive number of pixels, got {}",
                options.min_side);
  if (options.max_crops < 1 || options.max_crops > 1024)
    throw_error(ErrorCode::invalid_argument, "max_crops: expected 1 to 1024, got {}", options.max_crops);
  return with_name(name, [&] { return architecture->plan_crops(size, options); });
}

arch::VideoTarget VisionTower::Impl::plan_video(Size frame, int64_t frames, const VideoOptions& options,
                                                const std::string& name) const {
  check_size(frame, name);
  if (!(options.fps > 0 && options.fps < 1e6))
    throw_error(ErrorCode::invalid_argument, "fps: expected a positive number of frames per second, got {}",
                options.fps);
  if (options.sample_fps && !(*options.sample_fps > 0 && *options.sample_fps < 1e6))
    throw_error(ErrorCode::invalid_argument, "sample_fps: expected a positive number, got {}", *options.sample_fps);
  if (options.sample_fps && options.sample_frames)
    throw_error(ErrorCode::invalid_argument, "sample_fps, sample_frames: expected one of them, got both");
  const PreprocessOptions preprocess = preprocess_options(options.embed);
  const arch::VideoRequest request{.frame = frame,
                                   .frames = frames,
                                   .fps = options.fps,
                                   .sample_fps = options.sample_fps,
                                   .sample_frames = options.sample_frames,
                                   .cap_pixels_per_frame = options.cap_pixels_per_frame,
                                   .budget = pixel_budget(traits(), preprocess)};
  const arch::VideoTarget target = with_name(name, [&] { return architecture->plan_video(request); });
  check_target(traits(), target.target, name);
  check_tokens(target.target.rows, preprocess.max_tokens, name);
  return target;
}

void VisionTower::Impl::check_has_video() const {
  if (!traits().has_video)
    throw_error(ErrorCode::unsupported_model, "{}: this family takes pictures, not videos", traits().family);
}

void VisionTower::Impl::check_stream(void* stream) const {
  if (stream != nullptr && device.kind == Device::Kind::cpu)
    throw_error(ErrorCode::invalid_argument, "stream: expected none for a tower on {}, got one", to_string(device));
}

Patches VisionTower::Impl::preprocess(std::span<const Image> images, const PreprocessOptions& options) const {
  check_stream(options.stream);
  std::vector<arch::ImageTarget> targets;
  int64_t total = 0;
  for (const Image& image : images) {
    targets.push_back(plan(image.size(), options, image.name()));
    total += targets.back().grid.patches();
  }
  const c10::InferenceMode guard;
  const auto count = static_cast<int64_t>(images.size());
  Patches result;
  with_torch_errors("preprocess", [&] {
    PatchBuffer buffer(total, traits().pixels.patch_values());
    int64_t begin = 0;
    for (size_t i = 0; i < images.size(); ++i) {
      check_cancelled(options.cancel);
      const Image& image = images[i];
      const arch::ImageTarget& target = targets[i];
      const image::RgbView view = view_of(image);
      image::write_patches({&view, 1}, target.resized, traits().pixels, arithmetic(options.resize), *pool,
                           buffer.rows(begin, target.grid.patches()));
      begin += target.grid.patches();
      result.images.push_back({.grid = target.grid,
                               .original = image.size(),
                               .resized = target.resized,
                               .name = image.name(),
                               .content_hash = image.content_hash()});
      call_back(options.progress, Progress{Progress::Stage::preprocess, static_cast<int64_t>(i) + 1, count});
    }
    result.values = from_torch(buffer.values);
  });
  return result;
}

arch::VideoTarget VisionTower::Impl::plan_frames(int64_t count, const std::function<Frame(size_t)>& frame,
                                                 const VideoOptions& options) const {
  check_stream(options.embed.stream);
  if (count == 0) throw_error(ErrorCode::invalid_argument, "video: expected at least one frame, got none");
  const Frame first = frame(0);
  for (size_t i = 1; i < static_cast<size_t>(count); ++i)
    if (const Frame other = frame(i); other.size != first.size)
      throw_error(ErrorCode::invalid_argument, "{}: expected a frame of {} x {} as the first one, got {} x {}",
                  other.name, first.size.width, first.size.height, other.size.width, other.size.height);
  return plan_video(first.size, count, options, first.name);
}

Patches VisionTower::Impl::preprocess_video(std::span<const Image> frames, const VideoOptions& options) const {
  const auto frame = [&](size_t i) { return Frame{frames[i].size(), frames[i].name()}; };
  const arch::VideoTarget plan = plan_frames(static_cast<int64_t>(frames.size()), frame, options);
  const image::PixelSpec& pixels = traits().video_pixels;
  const Grid grid = plan.target.grid;

  const c10::InferenceMode guard;
  Hasher hasher;
  Patches result;
  with_torch_errors("preprocess", [&] {
    PatchBuffer buffer(grid.patches(), pixels.patch_values());
    for (int64_t slot = 0; slot < grid.t; ++slot) {
      check_cancelled(options.embed.cancel);
      std::vector<image::RgbView> views;
      for (int64_t k = 0; k < pixels.temporal; ++k)
        views.push_back(view_of(frames[frame_at(plan, slot * pixels.temporal + k)]));
      image::write_patches(views, plan.target.resized, pixels, arithmetic(options.embed.resize), *pool,
                           buffer.rows(slot * grid.h * grid.w, grid.h * grid.w));
      call_back(options.embed.progress, Progress{Progress::Stage::preprocess, slot + 1, grid.t});
    }
    result.values = from_torch(buffer.values);
  });
  for (const int64_t index : plan.frame_indices)
    hasher.update(frames[static_cast<size_t>(index)].content_hash().to_string());
  result.images.push_back(patched_video(plan, frames[0].size(), frames[0].name(), hasher.digest()));
  return result;
}

PatchedImage patched_video(const arch::VideoTarget& plan, Size frame, const std::string& name, ContentHash content) {
  return {.grid = plan.target.grid,
          .original = frame,
          .resized = plan.target.resized,
          .name = name,
          .content_hash = content,
          .is_video = true,
          .seconds_per_slot = plan.seconds_per_slot};
}

}  // namespace oriel
