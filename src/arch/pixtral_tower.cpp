#include "arch/pixtral_tower.hpp"

#include <ATen/TensorIndexing.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "arch/processor_config.hpp"
#include "core/error.hpp"
#include "ops/device.hpp"

namespace oriel::arch {
namespace {

constexpr int64_t most_layers = 1000;
constexpr int64_t widest = 1 << 16;

/// hidden_states indices, from one integer or a list; negative ones count from the end.
std::vector<int64_t> read_feature_layers(const Json& value, const std::vector<int64_t>& fallback, int64_t depth) {
  std::vector<int64_t> layers = fallback;
  if (value.is_array())
    layers = value.integers();
  else if (value.has_value())
    layers = {value.integer()};
  for (int64_t& layer : layers) {
    const int64_t resolved = layer < 0 ? layer + depth + 1 : layer;
    if (resolved < 0 || resolved > depth)
      throw_error(ErrorCode::malformed_model, "{}: expected {} to {}, got {}", value.where(), -depth - 1, depth, layer);
    layer = resolved;
  }
  if (layers.empty()) throw_error(ErrorCode::malformed_model, "{}: expected at least one layer, got []", value.where());
  return layers;
}

}  // namespace

PixtralTower::PixtralTower(const ModelFiles& files, std::string family, const Defaults& defaults) {
  traits_.family = std::move(family);
  traits_.names = {.prefixes = {{"model.vision_tower.", "vision_tower."},
                                {"model.multi_modal_projector.", "multi_modal_projector."}},
                   .wanted = {"vision_tower.", "multi_modal_projector."}};
  read_vision_config(files.config, defaults);
  read_processor(files);
  read_special_tokens(files, defaults);
}

void PixtralTower::read_vision_config(const Json& config, const Defaults& defaults) {
  const Json vision = config["vision_config"];
  const Json type = vision["model_type"];
  if (type.has_value() && type.string() != "pixtral")
    throw_error(ErrorCode::unsupported_model, "{}: expected \"pixtral\", got {}", type.where(), type.dump());
  expect_three_channels(vision["num_channels"]);

  nn::VitSpec& vit = traits_.vit;
  vit.width = vision["hidden_size"].integer_in_or(1, widest, 1024);
  vit.heads = vision["num_attention_heads"].integer_in_or(1, widest, 16);
  vit.mlp_width = vision["intermediate_size"].integer_in_or(1, widest * 16, 4096);
  vit.depth = vision["num_hidden_layers"].integer_in_or(1, most_layers, 24);
  if (vit.width % vit.heads != 0 || vit.head_dim() % 4 != 0)
    throw_error(ErrorCode::malformed_model,
                "{}: expected hidden_size {} to be num_attention_heads {} times a multiple of 4",
                vision["hidden_size"].where(), vit.width, vit.heads);
  if (const Json head_dim = vision["head_dim"]; head_dim.has_value() && head_dim.integer() != vit.head_dim())
    throw_error(ErrorCode::malformed_model, "{}: expected hidden_size / num_attention_heads = {}, got {}",
                head_dim.where(), vit.head_dim(), head_dim.integer());
  vit.norm = nn::NormKind::rms_norm;
  vit.norm_eps = 1e-5;
  vit.norm_before_blocks = true;
  vit.gated_mlp = true;
  vit.activation = ops::parse_activation(vision["hidden_act"].string_or("gelu"), vision["hidden_act"].where());
  vit.rotary = ops::RotaryPrecision::working;
  vit.feature_layers = read_feature_layers(config["vision_feature_layer"], defaults.feature_layers, vit.depth);
  rope_theta_ = read_rope_theta(vision, 10000.0);

  traits_.pixels.patch = read_square_side(vision["patch_size"], vision.has_value() ? 16 : defaults.patch);
  traits_.merge_size = config["spatial_merge_size"].integer_in_or(1, 64, defaults.merge);
  vit.patch_values = traits_.pixels.patch_values();
}

void PixtralTower::read_processor(const ModelFiles& files) {
  traits_.pixels.filter = image::Filter::bicubic;
  traits_.pixels.mean = clip_mean;
  traits_.pixels.std = clip_std;
  traits_.pixels = read_pixel_spec(files.image_processor, traits_.pixels);
  // The processor's own patch and merge size, not the image processor's, align the sides (spec/pixtral.md 1).
  expect_same(files.processor["patch_size"], traits_.pixels.patch, "vision_config.patch_size");
  expect_same(files.processor["spatial_merge_size"], traits_.merge_size, "spatial_merge_size");
  const Json size = files.image_processor["size"];
  if (size["longest_edge"].has_value()) {
    const int64_t longest = size["longest_edge"].integer_in(1, widest);
    limit_ = {longest, longest};
  } else {
    limit_ = read_fixed_size(size, limit_, /*integer_is_square=*/true);
  }
}

void PixtralTower::read_special_tokens(const ModelFiles& files, const Defaults& defaults) {
  const Json index = files.config["image_token_index"];
  const Json id = files.config["image_token_id"];
  image_token_ = index.has_value() ? index.integer() : id.integer_or(defaults.image_token);
  traits_.placeholders = {{.token = files.processor["image_token"].string_or("[IMG]")}};
  if (traits_.placeholders[0].token.empty())
    throw_error(ErrorCode::malformed_model, "{}: expected a token, found an empty text",
                files.processor["image_token"].where());
  const auto tokens = files.added_tokens();
  const auto find = [&](const char* key, const char* fallback) -> int64_t {
    const std::string content = files.processor[key].string_or(fallback);
    const auto place = tokens.find(content);
    if (place != tokens.end()) return place->second;
    if (tokens_unavailable_.empty())
      tokens_unavailable_ = fmt::format("{}: no added token \"{}\" in tokenizer.json or tokenizer_config.json",
                                        files.directory.string(), content);
    return -1;
  };
  break_token_ = find("image_break_token", "[IMG_BREAK]");
  end_token_ = find("image_end_token", "[IMG_END]");
  expect_distinct(files.config, image_token_, "image_token_index", {break_token_, end_token_});
}

// Sides are floored after the division by the double ratio, then rounded up to whole rows of tokens: spec/pixtral.md 2.
ImageTarget PixtralTower::plan(Size size, const PixelBudget&) const {
  const int64_t patch = traits_.pixels.patch;
  const int64_t unit = patch * traits_.merge_size;
  Size target = size;
  if (traits_.pixels.do_resize) {
    const double ratio = std::max(static_cast<double>(size.height) / static_cast<double>(limit_.height),
                                  static_cast<double>(size.width) / static_cast<double>(limit_.width));
    const auto fit = [&](int64_t side) {
      const int64_t fitted = ratio > 1 ? static_cast<int64_t>(std::floor(static_cast<double>(side) / ratio)) : side;
      return fitted == 0 ? 0 : ((fitted - 1) / unit + 1) * unit;
    };
    target = {fit(size.width), fit(size.height)};
  }
  const Grid grid{1, target.height / patch, target.width / patch};
  if (grid.h < traits_.merge_size || grid.w < traits_.merge_size)
    throw_error(ErrorCode::unsupported_image,
                "a picture of {} x {} pixels: shrunk into {} x {}, a side falls below one pixel or one token",
                size.width, size.height, limit_.width, limit_.height);
  if (grid.h % traits_.merge_size != 0 || grid.w % traits_.merge_size != 0)
    throw_error(ErrorCode::unsupported_image, "a picture of {} x {} pixels: expected sides of a multiple of {} pixels",
                size.width, size.height, unit);
  return {target, grid, rows(grid)};
}

nn::VitWeights PixtralTower::load(WeightReader& reader) {
  const nn::VitSpec& vit = traits_.vit;
  const int64_t patch = traits_.pixels.patch;
  nn::VitWeights weights;
  weights.patch = reader.linear("vision_tower.patch_conv", {vit.width, 3, patch, patch}, /*bias=*/false);
  weights.before_blocks = reader.norm("vision_tower.ln_pre", vit.width, vit.norm);
  for (int64_t i = 0; i < vit.depth; ++i) {
    const std::string layer = fmt::format("vision_tower.transformer.layers.{}.", i);
    const std::string attention = layer + "attention.";
    const std::string mlp = layer + "feed_forward.";
    weights.blocks.push_back({
        .norm1 = reader.norm(layer + "attention_norm", vit.width, vit.norm),
        .norm2 = reader.norm(layer + "ffn_norm", vit.width, vit.norm),
        .qkv = reader.linear({attention + "q_proj", attention + "k_proj", attention + "v_proj"}, vit.width, vit.width,
                             /*bias=*/false),
        .proj = reader.linear(attention + "o_proj", vit.width, vit.width, /*bias=*/false),
        .gate = reader.linear(mlp + "gate_proj", vit.mlp_width, vit.width, /*bias=*/false),
        .up = reader.linear(mlp + "up_proj", vit.mlp_width, vit.width, /*bias=*/false),
        .down = reader.linear(mlp + "down_proj", vit.width, vit.mlp_width, /*bias=*/false),
    });
  }
  reader.expect_nothing_under(fmt::format("vision_tower.transformer.layers.{}.", vit.depth),
                              fmt::format("a block beyond vision_config.num_hidden_layers = {}", vit.depth));
  load_projector(reader);
  return weights;
}

Arrangement PixtralTower::arrange(std::span<const Grid> grids, c10::Device device) const {
  for (const Grid& grid : grids)
    if (grid.t != 1 || grid.h % traits_.merge_size != 0 || grid.w % traits_.merge_size != 0)
      throw_error(ErrorCode::invalid_argument,
                  "grid [{}, {}, {}]: expected t = 1 and rows and columns that are multiples of {}", grid.t, grid.h,
                  grid.w, traits_.merge_size);
  const PatchCoordinates at = patch_coordinates(grids, 1);
  const at::Tensor frequencies = ops::inverse_frequencies(rope_theta_, traits_.vit.head_dim());
  // Even entries turn with the row, odd ones with the column: spec/pixtral.md 3.
  using at::indexing::None;
  using at::indexing::Slice;
  const at::Tensor of_rows = frequencies.index({Slice(0, None, 2)});
  const at::Tensor of_columns = frequencies.index({Slice(1, None, 2)});
  return {
      .order = {},
      .positions = {},
      .rotary = ops::axial_rotary(ops::upload(at.rows, device), ops::upload(at.columns, device), of_rows, of_columns),
      .cu_seqlens = segment_bounds(grids),
      .cu_window_seqlens = {},
      .longest_window = 0};
}

Prompt PixtralTower::prompt(const Grid& grid, Modality) const { return rows_with_breaks(grid, false); }

int64_t PixtralTower::prompt_length(const Grid& grid) const { return rows(grid) + grid.h / traits_.merge_size; }

Prompt PixtralTower::reference_prompt(const Grid& grid, Modality) const { return rows_with_breaks(grid, true); }

// Every row of image tokens ends with a BREAK; the last BREAK gives way to END (transformers) or is followed by it
// (ExLlamaV2): spec/pixtral.md 5, spec/reference_api.md 16.2.
Prompt PixtralTower::rows_with_breaks(const Grid& grid, bool break_before_end) const {
  Prompt prompt{.tokens = {}, .placeholder = image_token_, .unavailable = tokens_unavailable_};
  const int64_t columns = grid.w / traits_.merge_size;
  for (int64_t row = 0; row < grid.h / traits_.merge_size; ++row) {
    prompt.tokens.insert(prompt.tokens.end(), static_cast<size_t>(columns), image_token_);
    prompt.tokens.push_back(break_token_);
  }
  if (!break_before_end) prompt.tokens.pop_back();
  prompt.tokens.push_back(end_token_);
  return prompt;
}

int64_t text_hidden_size(const Json& config, int64_t without_text_config) {
  const Json text = config["text_config"];
  const Json hidden = text["hidden_size"];
  if (hidden.has_value()) return hidden.integer_in(1, widest);
  if (!text.has_value()) return without_text_config;
  const std::string type = text["model_type"].string_or("");
  if (type.empty() || type == "mistral" || type == "llama") return 4096;  // the classes' own default
  throw_error(ErrorCode::malformed_model, "{}: expected the width of the text model, found nothing", hidden.where());
}

}  // namespace oriel::arch
