// The public face: every method says what it does in terms of Impl.
#include <oriel/torch.hpp>
#include <utility>

#include "core/error.hpp"
#include "tower_impl.hpp"

namespace oriel {

VisionTower::VisionTower(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
VisionTower::VisionTower(VisionTower&&) noexcept = default;
VisionTower& VisionTower::operator=(VisionTower&&) noexcept = default;
VisionTower::~VisionTower() = default;

ImagePlan VisionTower::plan(Size size, const PreprocessOptions& options) const {
  const arch::ImageTarget target = impl_->plan(size, options, "plan");
  const ops::DeterministicProducts deterministic_products(impl_->deterministic);  // they take other memory
  const arch::Traits& traits = impl_->traits();
  const int64_t prompt_length = impl_->architecture->prompt_length(target.grid);
  const int64_t rows = target.rows * traits.row_width * static_cast<int64_t>(size_in_bytes(impl_->dtype));
  const DType pixels = impl_->device == Device::cpu() ? DType::float32 : impl_->dtype;
  const auto pixel_size = static_cast<int64_t>(size_in_bytes(pixels));
  return {.original = size,
          .resized = target.resized,
          .grid = target.grid,
          .tokens = target.rows,
          .prompt_tokens = prompt_length > 0 ? prompt_length : target.rows,
          .pixel_bytes = target.grid.patches() * traits.pixels.patch_values() * pixel_size,
          .working_bytes = peak_bytes(traits, target.grid, impl_->dtype, impl_->device) - rows,
          .embedding_bytes = rows};
}

std::vector<Rect> VisionTower::plan_crops(Size size, const CropOptions& options) const {
  return impl_->plan_crops(size, options, "plan_crops");
}

PictureViews VisionTower::get_image_views(const Image& image, const CropOptions& crops,
                                          const EmbedOptions& options) const {
  if (!options.text_alias.empty())
    throw_error(ErrorCode::invalid_argument,
                "get_image_views: expected no text_alias, of which each view has its own, got \"{}\"",
                options.text_alias);
  std::vector<Image> views{image};
  for (const Rect& part : impl_->plan_crops(image.size(), crops, image.name())) views.push_back(image.crop(part));
  return get_image_embeddings(views, options);
}

MMEmbedding VisionTower::get_image_embeddings(const Image& image, const EmbedOptions& options) const {
  return std::move(
      impl_
          ->embed(impl_->preprocess_where_it_runs({&image, 1}, preprocess_options(options), gpu_call(options)), options)
          .front());
}

std::vector<MMEmbedding> VisionTower::get_image_embeddings(std::span<const Image> images,
                                                           const EmbedOptions& options) const {
  return impl_->embed(impl_->preprocess_where_it_runs(images, preprocess_options(options), gpu_call(options)), options);
}

std::vector<MMEmbedding> VisionTower::get_image_embeddings(std::span<const DevicePixelView> images,
                                                           const EmbedOptions& options) const {
  return impl_->embed(impl_->preprocess_on_gpu(images, preprocess_options(options), gpu_call(options)), options);
}

std::vector<MMEmbedding> VisionTower::get_image_embeddings(const Patches& patches, const EmbedOptions& options) const {
  if (options.min_pixels || options.max_pixels || options.resize != ResizeBackend::torchvision)
    throw_error(ErrorCode::invalid_argument,
                "min_pixels, max_pixels, resize: expected none for patches, which are preprocessed already");
  return impl_->embed(patches, options);
}

MMEmbedding VisionTower::get_video_embeddings(std::span<const Image> frames, const VideoOptions& options) const {
  impl_->check_has_video();
  return std::move(
      impl_->embed(impl_->preprocess_video_where_it_runs(frames, options, gpu_call(options.embed)), options.embed)
          .front());
}

MMEmbedding VisionTower::get_video_embeddings(std::span<const DevicePixelView> frames,
                                              const VideoOptions& options) const {
  impl_->check_has_video();
  return std::move(
      impl_->embed(impl_->preprocess_video_on_gpu(frames, options, gpu_call(options.embed)), options.embed).front());
}

Patches VisionTower::preprocess(std::span<const Image> images, const PreprocessOptions& options) const {
  return impl_->preprocess(images, options);
}

Patches VisionTower::preprocess(std::span<const DevicePixelView> images, const PreprocessOptions& options) const {
  return impl_->preprocess_on_gpu(images, options);
}

Patches VisionTower::preprocess_video(std::span<const Image> frames, const VideoOptions& options) const {
  impl_->check_has_video();
  return impl_->preprocess_video(frames, options);
}

Patches VisionTower::preprocess_video(std::span<const DevicePixelView> frames, const VideoOptions& options) const {
  impl_->check_has_video();
  return impl_->preprocess_video_on_gpu(frames, options);
}

std::vector<Tensor> VisionTower::encode(const Patches& patches, const EncodeOptions& options) const {
  std::vector<Tensor> result;
  for (const at::Tensor& rows : impl_->encode(patches, {}, options).rows) result.push_back(from_torch(rows));
  return result;
}

std::vector<Tensor> VisionTower::get_hidden_states(const Patches& patches, std::span<const int64_t> layers,
                                                   const EncodeOptions& options) const {
  std::vector<Tensor> result;
  if (layers.empty()) return result;
  const std::vector<int64_t> wanted(layers.begin(), layers.end());
  for (const at::Tensor& hidden : impl_->encode(patches, wanted, options).hidden_states)
    result.push_back(from_torch(hidden));
  return result;
}

const std::string& VisionTower::family() const noexcept { return impl_->traits().family; }
int64_t VisionTower::hidden_size() const noexcept { return impl_->traits().row_width; }
int64_t VisionTower::patch_size() const noexcept { return impl_->traits().pixels.patch; }
int64_t VisionTower::merge_size() const noexcept { return impl_->traits().merge_size; }
int64_t VisionTower::depth() const noexcept { return impl_->traits().vit.depth; }
int64_t VisionTower::width() const noexcept { return impl_->traits().vit.width; }
bool VisionTower::has_crops() const noexcept { return impl_->traits().has_crops; }
bool VisionTower::has_video() const noexcept { return impl_->traits().has_video; }
bool VisionTower::has_pixel_limits() const noexcept { return impl_->traits().has_pixel_limits; }
Device VisionTower::device() const noexcept { return impl_->device; }
DType VisionTower::dtype() const noexcept { return impl_->dtype; }
ContentHash VisionTower::fingerprint() const noexcept { return impl_->fingerprint; }
int64_t VisionTower::weight_bytes() const noexcept { return impl_->weight_bytes; }

PreprocessOptions preprocess_options(const EmbedOptions& options) {
  return {.min_pixels = options.min_pixels,
          .max_pixels = options.max_pixels,
          .max_tokens = options.max_tokens,
          .resize = options.resize,
          .progress = options.progress,
          .cancel = options.cancel,
          .stream = options.stream};
}

EncodeOptions encode_options(const EmbedOptions& options) {
  return {.embeddings_cpu = options.embeddings_cpu,
          .progress = options.progress,
          .cancel = options.cancel,
          .stream = options.stream};
}

GpuCall gpu_call(const EmbedOptions& options) { return {.results_stay = !options.embeddings_cpu}; }

}  // namespace oriel
