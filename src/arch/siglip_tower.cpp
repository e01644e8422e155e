#include "arch/siglip_tower.hpp"

#include <fmt/format.h>

#include <cmath>

#include "arch/processor_config.hpp"
#include "core/error.hpp"

namespace oriel::arch {

SiglipTower::SiglipTower(const ModelFiles& files, const Json& vision, std::string family, std::string prefix,
                         const Defaults& defaults)
    : prefix_(std::move(prefix)) {
  constexpr int64_t widest = 1 << 16;
  traits_.family = std::move(family);
  expect_three_channels(vision["num_channels"]);

  nn::VitSpec& vit = traits_.vit;
  vit.width = vision["hidden_size"].integer_in_or(1, widest, 768);
  vit.mlp_width = vision["intermediate_size"].integer_in_or(1, widest * 16, 3072);
  vit.depth = vision["num_hidden_layers"].integer_in_or(1, 1000, 12);
  vit.heads = vision["num_attention_heads"].integer_in_or(1, widest, 12);
  if (vit.width % vit.heads != 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a multiple of num_attention_heads {}, got {}",
                vision["hidden_size"].where(), vit.heads, vit.width);
  vit.norm = nn::NormKind::layer_norm;
  vit.norm_eps = vision["layer_norm_eps"].number_or(1e-6);
  if (!std::isfinite(vit.norm_eps) || vit.norm_eps < 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a small positive number, got {}",
                vision["layer_norm_eps"].where(), vision["layer_norm_eps"].dump());
  vit.norm_after_blocks = true;
  vit.activation =
      ops::parse_activation(vision["hidden_act"].string_or("gelu_pytorch_tanh"), vision["hidden_act"].where());
  vit.feature_layers = {vit.depth};

  image_side_ = read_square_side(vision["image_size"], 224);
  traits_.pixels.patch = read_square_side(vision["patch_size"], 16);
  grid_side_ = image_side_ / traits_.pixels.patch;
  if (grid_side_ < 1)
    throw_error(ErrorCode::malformed_model, "{}: expected at least patch_size {}, got {}", vision["image_size"].where(),
                traits_.pixels.patch, image_side_);
  vit.patch_values = traits_.pixels.patch_values();

  traits_.pixels.filter = defaults.filter;
  traits_.pixels.mean = half_mean;
  traits_.pixels.std = half_mean;
  traits_.pixels = read_pixel_spec(files.image_processor, traits_.pixels);
  const Json size = files.image_processor["size"];
  const Size target = read_fixed_size(size, {224, 224}, defaults.integer_size_is_square);
  if (traits_.pixels.do_resize && target != Size{image_side_, image_side_})
    throw_error(ErrorCode::malformed_model,
                "{}: expected {} x {} as vision_config.image_size of config.json says, got {} x {}", size.where(),
                image_side_, image_side_, target.width, target.height);
}

ImageTarget SiglipTower::plan(Size size, const PixelBudget&) const {
  const Size target{image_side_, image_side_};
  if (!traits_.pixels.do_resize && size != target)
    throw_error(ErrorCode::unsupported_image, "a picture of {} x {} pixels: expected {} x {}, since do_resize is false",
                size.width, size.height, image_side_, image_side_);
  const Grid grid{1, grid_side_, grid_side_};
  return {target, grid, rows(grid)};
}

nn::VitWeights SiglipTower::load(WeightReader& reader) {
  const nn::VitSpec& vit = traits_.vit;
  const int64_t patch = traits_.pixels.patch;
  nn::VitWeights weights;
  weights.patch = reader.linear(prefix_ + "embeddings.patch_embedding", {vit.width, 3, patch, patch}, /*bias=*/true);
  positions_ = reader.tensor(prefix_ + "embeddings.position_embedding.weight", {grid_side_ * grid_side_, vit.width});
  for (int64_t i = 0; i < vit.depth; ++i) {
    const std::string layer = fmt::format("{}encoder.layers.{}.", prefix_, i);
    const std::string attention = layer + "self_attn.";
    weights.blocks.push_back({
        .norm1 = reader.norm(layer + "layer_norm1", vit.width, vit.norm),
        .norm2 = reader.norm(layer + "layer_norm2", vit.width, vit.norm),
        .qkv = reader.linear({attention + "q_proj", attention + "k_proj", attention + "v_proj"}, vit.width, vit.width,
                             /*bias=*/true),
        .proj = reader.linear(attention + "out_proj", vit.width, vit.width, /*bias=*/true),
        .gate = {},
        .up = reader.linear(layer + "mlp.fc1", vit.mlp_width, vit.width, /*bias=*/true),
        .down = reader.linear(layer + "mlp.fc2", vit.width, vit.mlp_width, /*bias=*/true),
    });
  }
  reader.expect_nothing_under(fmt::format("{}encoder.layers.{}.", prefix_, vit.depth),
                              fmt::format("a block beyond num_hidden_layers = {}", vit.depth));
  weights.after_blocks = reader.norm(prefix_ + "post_layernorm", vit.width, vit.norm);
  load_projector(reader);
  return weights;
}

Arrangement SiglipTower::arrange(std::span<const Grid> grids, c10::Device) const {
  for (const Grid& grid : grids)
    if (grid != Grid{1, grid_side_, grid_side_})
      throw_error(ErrorCode::invalid_argument, "grid [{}, {}, {}]: expected [1, {}, {}]", grid.t, grid.h, grid.w,
                  grid_side_, grid_side_);
  return {.order = {},
          .positions = positions_.repeat({static_cast<int64_t>(grids.size()), 1}),
          .rotary = {},
          .cu_seqlens = segment_bounds(grids),
          .cu_window_seqlens = {},
          .longest_window = 0};
}

}  // namespace oriel::arch
