#include "arch/qwen_vision.hpp"

#include <ATen/ops/arange.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "arch/processor_config.hpp"
#include "core/error.hpp"
#include "ops/device.hpp"

namespace oriel::arch {
namespace {

constexpr int64_t widest = 1 << 16;
constexpr int64_t most_pixels = int64_t{1} << 40;

double real(int64_t value) { return static_cast<double>(value); }

/// The size that transformers' smart_resize chooses, in doubles and in its order of operations; rounding is half to
/// even.
Size smart_resize(Size size, int64_t factor, int64_t min_pixels, int64_t max_pixels) {
  const double f = real(factor);
  const auto to_factor = [&](double units) { return static_cast<int64_t>(units) * factor; };
  const double height = real(size.height);
  const double width = real(size.width);
  Size target{to_factor(std::nearbyint(width / f)), to_factor(std::nearbyint(height / f))};
  if (target.height * target.width > max_pixels) {
    const double beta = std::sqrt(real(size.height * size.width) / real(max_pixels));
    target = {std::max(factor, to_factor(std::floor(width / beta / f))),
              std::max(factor, to_factor(std::floor(height / beta / f)))};
  } else if (target.height * target.width < min_pixels) {
    const double beta = std::sqrt(real(min_pixels) / real(size.height * size.width));
    target = {to_factor(std::ceil(width * beta / f)), to_factor(std::ceil(height * beta / f))};
  }
  return target;
}

}  // namespace

QwenVision::QwenVision(const ModelFiles& files, std::string family, nn::NormKind norm) {
  const Json vision = files.config["vision_config"];
  traits_.family = std::move(family);
  traits_.names = {.prefixes = {{"model.visual.", "visual."}}, .wanted = {"visual."}};
  traits_.has_pixel_limits = true;
  traits_.has_video = true;
  expect_three_channels(vision["in_channels"]);

  nn::VitSpec& vit = traits_.vit;
  vit.depth = vision["depth"].integer_in_or(1, 1000, 32);
  const Json heads = vision["num_attention_heads"];  // the alias wins where both are there
  vit.heads = (heads.is_absent() ? vision["num_heads"] : heads).integer_in_or(1, widest, 16);
  vit.norm = norm;
  vit.norm_eps = 1e-6;
  vit.rotary = ops::RotaryPrecision::float32;
  vit.feature_layers = {vit.depth};
  rope_theta_ = read_rope_theta(vision, 10000.0);

  traits_.merge_size = vision["spatial_merge_size"].integer_in_or(1, 64, 2);
  image::PixelSpec& pixels = traits_.pixels;
  pixels.patch = read_square_side(vision["patch_size"], 14);
  pixels.temporal = read_square_side(vision["temporal_patch_size"], 2);
  pixels.merge = traits_.merge_size;
  pixels.filter = image::Filter::bicubic;
  pixels.mean = clip_mean;
  pixels.std = clip_std;
  vit.patch_values = pixels.patch_values();
  read_processors(files);
  read_special_tokens(files.config);
}

void QwenVision::set_sizes(const Json& vision, int64_t width, int64_t mlp_width, bool gated,
                           std::string_view activation, int64_t row_width) {
  nn::VitSpec& vit = traits_.vit;
  vit.width = width;
  vit.mlp_width = mlp_width;
  vit.gated_mlp = gated;
  vit.activation = ops::parse_activation(vision["hidden_act"].string_or(activation), vision["hidden_act"].where());
  traits_.row_width = row_width;
  traits_.footprint = {.rotary = true,
                       .projector_values = 2 * width * traits_.merge_size * traits_.merge_size + row_width};
  if (width % vit.heads != 0 || vit.head_dim() % 4 != 0)
    throw_error(ErrorCode::malformed_model, "{}: expected the width {} to be num_heads {} times a multiple of 4",
                vision.where(), width, vit.heads);
}

void QwenVision::read_processors(const ModelFiles& files) {
  const auto read = [&](const Json& processor) {
    if (processor["do_resize"].is_null())
      throw_error(ErrorCode::malformed_model, "{}: expected true or false, got null", processor["do_resize"].where());
    expect_same(processor["patch_size"], traits_.pixels.patch, "vision_config.patch_size");
    expect_same(processor["temporal_patch_size"], traits_.pixels.temporal, "vision_config.temporal_patch_size");
    expect_same(processor["merge_size"], traits_.merge_size, "vision_config.spatial_merge_size");
    return read_pixel_spec(processor, traits_.pixels);
  };
  const image::PixelSpec video = read(files.video_processor);
  traits_.pixels = read(files.image_processor);
  traits_.video_pixels = video;
  image_limits_ = read_limits(files.image_processor, {56 * 56, 28 * 28 * 1280});
  video_limits_ = read_limits(files.video_processor, {128 * 28 * 28, 28 * 28 * 768});

  const Json& processor = files.video_processor;
  sampling_.enabled = processor["do_sample_frames"].has_value() && processor["do_sample_frames"].boolean();
  if (processor["num_frames"].has_value()) sampling_.frames = processor["num_frames"].integer_in(1, 1 << 20);
  if (const Json fps = processor["fps"]; fps.has_value()) {
    sampling_.fps = fps.number();
    if (!(*sampling_.fps > 0 && *sampling_.fps < 1e6))
      throw_error(ErrorCode::malformed_model, "{}: expected a positive number of frames per second, got {}",
                  fps.where(), fps.dump());
  }
  sampling_.min_frames = processor["min_frames"].integer_in_or(1, 1 << 20, 4);
  sampling_.max_frames = processor["max_frames"].integer_in_or(1, 1 << 20, 768);
  max_video_tokens_ = processor["max_video_tokens"].integer_in_or(1, 1 << 30, 128000);
  const int64_t unit = traits_.pixels.patch * traits_.merge_size;
  const std::string what = processor["max_video_tokens"].where() + ": pixels of all frames";
  (void)checked_multiply(checked_multiply(max_video_tokens_, unit * unit, what, ErrorCode::malformed_model),
                         traits_.pixels.temporal, what, ErrorCode::malformed_model);
  const Json cap = processor["cap_pixels_per_frame"];
  cap_pixels_per_frame_ = cap.has_value() && cap.boolean();
}

// shortest_edge and longest_edge are numbers of pixels; the older keys min_pixels and max_pixels replace them.
QwenVision::PixelLimits QwenVision::read_limits(const Json& processor, PixelLimits defaults) {
  const Json size = processor["size"];
  if (size.has_value() && !size.is_object())
    throw_error(ErrorCode::unsupported_model, "{}: expected {{\"shortest_edge\", \"longest_edge\"}} in pixels, got {}",
                size.where(), size.dump());
  const auto read = [&](const char* key, const char* edge, int64_t fallback) {
    if (processor[key].has_value()) return processor[key].integer_in(1, most_pixels);
    if (!size.has_value()) return fallback;
    if (!size[edge].has_value())
      throw_error(ErrorCode::malformed_model, "{}: expected {} or {}, found neither", size.where(), edge, key);
    return size[edge].integer_in(1, most_pixels);
  };
  return {read("min_pixels", "shortest_edge", defaults.min), read("max_pixels", "longest_edge", defaults.max)};
}

void QwenVision::read_special_tokens(const Json& config) {
  traits_.placeholders = {{.token = "<|image_pad|>", .opening = "<|vision_start|>", .closing = "<|vision_end|>"},
                          {.modality = Modality::video,
                           .token = "<|video_pad|>",
                           .opening = "<|vision_start|>",
                           .closing = "<|vision_end|>"}};
  start_token_ = config["vision_start_token_id"].integer_or(151652);
  end_token_ = config["vision_end_token_id"].integer_or(151653);
  image_token_ = config["image_token_id"].integer_or(151655);
  video_token_ = config["video_token_id"].integer_or(151656);
  expect_distinct(config, image_token_, "image_token_id", {start_token_, end_token_});
  expect_distinct(config, video_token_, "video_token_id", {start_token_, end_token_});
}

Size QwenVision::resized(Size size, PixelLimits limits, const PixelBudget& budget, bool do_resize) const {
  const int64_t unit = traits_.pixels.patch * traits_.merge_size;
  if (!do_resize) {
    if (size.width % unit == 0 && size.height % unit == 0) return size;
    throw_error(ErrorCode::unsupported_image,
                "a picture of {} x {} pixels: expected sides of a multiple of {} pixels, since do_resize is false",
                size.width, size.height, unit);
  }
  const int64_t longer = std::max(size.width, size.height);
  const int64_t shorter = std::min(size.width, size.height);
  if (real(longer) / real(shorter) > 200)
    throw_error(ErrorCode::unsupported_image, "a picture of {} x {} pixels: expected an aspect ratio of at most 200",
                size.width, size.height);
  return smart_resize(size, unit, budget.min_pixels.value_or(limits.min), budget.max_pixels.value_or(limits.max));
}

ImageTarget QwenVision::plan(Size size, const PixelBudget& budget) const {
  const Size target = resized(size, image_limits_, budget, traits_.pixels.do_resize);
  const Grid grid{1, target.height / traits_.pixels.patch, target.width / traits_.pixels.patch};
  return {target, grid, rows(grid)};
}

VideoTarget QwenVision::plan_video(const VideoRequest& request) const {
  VideoTarget result;
  result.frame_indices = sample(request);
  const auto kept = static_cast<int64_t>(result.frame_indices.size());
  const int64_t temporal = traits_.pixels.temporal;

  PixelLimits limits = video_limits_;
  PixelBudget budget = request.budget;
  if (request.cap_pixels_per_frame || cap_pixels_per_frame_) {
    const int64_t unit = traits_.pixels.patch * traits_.merge_size;
    const int64_t shortest = budget.min_pixels.value_or(limits.min);
    const double most = real(most_pixels);  // keeps what a file claims within 64 bits
    const auto total = static_cast<int64_t>(std::min(real(max_video_tokens_) * real(unit * unit) * 0.9, most));
    const auto floor = static_cast<int64_t>(std::min(real(shortest) * 1.05, most));
    budget.max_pixels = std::max(std::min(budget.max_pixels.value_or(limits.max), total * temporal / kept), floor);
  }
  const Size target = resized(request.frame, limits, budget, traits_.video_pixels.do_resize);
  const Grid grid{(kept + temporal - 1) / temporal, target.height / traits_.pixels.patch,
                  target.width / traits_.pixels.patch};
  result.target = {target, grid, rows(grid)};
  const double kept_fps = real(kept) / real(request.frames) * request.fps;
  result.seconds_per_slot = real(temporal) / kept_fps;
  return result;
}

// transformers' rule: a number of frames is rounded to whole slots; a rate is bounded and floored to whole slots.
std::vector<int64_t> QwenVision::sample(const VideoRequest& request) const {
  const int64_t total = request.frames;
  const double slots = real(traits_.pixels.temporal);
  const bool by_call = request.sample_frames || request.sample_fps;
  const auto frames = by_call ? request.sample_frames : sampling_.enabled ? sampling_.frames : std::nullopt;
  const auto fps = by_call ? request.sample_fps : sampling_.enabled ? sampling_.fps : std::nullopt;
  double wanted = real(total);
  if (frames) {
    wanted = std::nearbyint(real(*frames) / slots) * slots;
  } else if (fps) {
    const double most = std::floor(real(std::min(sampling_.max_frames, total)) / slots) * slots;
    const double by_rate = real(total) / request.fps * *fps;
    wanted = std::min({std::max(by_rate, real(sampling_.min_frames)), most, real(total)});
    wanted = std::floor(wanted / slots) * slots;
  }
  if (wanted > real(total) || wanted < 1)
    throw_error(ErrorCode::invalid_argument, "video: expected to sample 1 to {} frames, got {}", total, wanted);
  std::vector<int64_t> indices;
  // arange in float32, truncated: the same rounding as transformers, whatever the step.
  const at::Tensor steps = (frames || fps) ? at::arange(0, total, real(total) / wanted, at::kFloat).to(at::kLong)
                                           : at::arange(total, at::kLong);
  for (int64_t i = 0; i < steps.size(0); ++i) indices.push_back(steps[i].item<int64_t>());
  // Rounding can add a step that ends at `total` itself, a frame that does not exist: transformers raises there.
  while (!indices.empty() && indices.back() >= total) indices.pop_back();
  return indices;
}

nn::VitWeights QwenVision::load(WeightReader& reader) {
  const nn::VitSpec& vit = traits_.vit;
  const int64_t patch = traits_.pixels.patch;
  nn::VitWeights weights;
  weights.patch = reader.linear("visual.patch_embed.proj", {vit.width, 3, traits_.pixels.temporal, patch, patch},
                                /*bias=*/false);
  for (int64_t i = 0; i < vit.depth; ++i) {
    const std::string name = fmt::format("visual.blocks.{}.", i);
    nn::BlockWeights block = load_mlp(reader, name);
    block.norm1 = reader.norm(name + "norm1", vit.width, vit.norm);
    block.norm2 = reader.norm(name + "norm2", vit.width, vit.norm);
    block.qkv = reader.linear(name + "attn.qkv", 3 * vit.width, vit.width, /*bias=*/true);
    block.proj = reader.linear(name + "attn.proj", vit.width, vit.width, /*bias=*/true);
    weights.blocks.push_back(std::move(block));
  }
  reader.expect_nothing_under(fmt::format("visual.blocks.{}.", vit.depth),
                              fmt::format("a block beyond vision_config.depth = {}", vit.depth));
  const int64_t merged = vit.width * traits_.merge_size * traits_.merge_size;
  merger_norm_ = reader.norm("visual.merger.ln_q", vit.width, vit.norm);
  merger_first_ = reader.linear("visual.merger.mlp.0", merged, merged, /*bias=*/true);
  merger_second_ = reader.linear("visual.merger.mlp.2", traits_.row_width, merged, /*bias=*/true);
  return weights;
}

Arrangement QwenVision::arrange(std::span<const Grid> grids, c10::Device device) const {
  for (const Grid& grid : grids)
    if (grid.h % traits_.merge_size != 0 || grid.w % traits_.merge_size != 0)
      throw_error(ErrorCode::invalid_argument, "grid [{}, {}, {}]: expected rows and columns that are multiples of {}",
                  grid.t, grid.h, grid.w, traits_.merge_size);
  const PatchCoordinates at = patch_coordinates(grids, traits_.merge_size);
  const at::Tensor frequencies = ops::inverse_frequencies(rope_theta_, traits_.vit.head_dim() / 2);
  return {.order = {},
          .positions = {},
          .rotary = ops::axial_rotary(ops::upload(at.rows, device), ops::upload(at.columns, device), frequencies,
                                      frequencies),
          .cu_seqlens = segment_bounds(grids),
          .cu_window_seqlens = {},
          .longest_window = 0};
}

// The patches of one merge block are neighbours in the processor's order, so that merging is a view.
at::Tensor QwenVision::project(const at::Tensor& features, std::span<const Grid>) const {
  const nn::VitSpec& vit = traits_.vit;
  const at::Tensor normed = nn::norm(features, merger_norm_, vit);
  const at::Tensor merged = normed.reshape({-1, vit.width * traits_.merge_size * traits_.merge_size});
  return merger_second_(merger_first_(merged, ops::Activation::gelu_erf));
}

Prompt QwenVision::prompt(const Grid& grid, Modality modality) const {
  return bracketed_prompt(start_token_, modality == Modality::image ? image_token_ : video_token_, rows(grid),
                          end_token_);
}

}  // namespace oriel::arch
