// Gemma 3: a SigLIP tower, average pooling to a fixed number of rows, a norm, a matrix. spec/siglip.md 4 and 7.
#include <algorithm>
#include <cmath>

#include "arch/siglip_tower.hpp"
#include "core/error.hpp"
#include "ops/norm.hpp"
#include "ops/patch_merge.hpp"

namespace oriel::arch {
namespace {

class Gemma3 final : public SiglipTower {
 public:
  explicit Gemma3(const ModelFiles& files)
      : SiglipTower(files, files.config["vision_config"], "Gemma 3", "vision_tower.",
                    {.filter = image::Filter::bilinear, .integer_size_is_square = true}) {
    const Json& config = files.config;
    traits_.names = {.prefixes = {{"model.vision_tower.", "vision_tower."},
                                  {"model.multi_modal_projector.", "multi_modal_projector."},
                                  {"vision_tower.vision_model.", "vision_tower."}},
                     .wanted = {"vision_tower.", "multi_modal_projector."}};
    traits_.row_width = config["text_config"]["hidden_size"].integer_in_or(1, 1 << 16, 2304);

    const Json tokens = config["mm_tokens_per_image"];
    const int64_t wanted = tokens.integer_in_or(1, 1 << 20, 256);
    const auto side = static_cast<int64_t>(std::sqrt(static_cast<double>(wanted)));
    pool_ = grid_side() / side;
    if (pool_ < 1 || (grid_side() / pool_) * (grid_side() / pool_) != wanted)
      throw_error(ErrorCode::malformed_model, "{}: expected a square number that pools {} x {} patches evenly, got {}",
                  tokens.where(), grid_side(), grid_side(), wanted);
    traits_.merge_size = pool_;
    traits_.footprint = {.positions = true, .projector_values = 4 * traits_.vit.width + traits_.row_width};

    start_token_ = special_token(config, "boi_token_index", "boi_token_id", 255999);
    end_token_ = special_token(config, "eoi_token_index", "eoi_token_id", 256000);
    image_token_ = special_token(config, "image_token_index", "image_token_id", 262144);
    expect_distinct(config, image_token_, "image_token_index", {start_token_, end_token_});
    traits_.has_crops = true;
    traits_.placeholders = {{.token = "<start_of_image>",
                             .around = "\n\n",
                             .row = "<image_soft_token>",
                             .crops = {.introduction = "Here is the original image ",
                                       .transition = " and here are some crops to help you see better ",
                                       .separator = " "}}};
    if (const Json length = files.processor["image_seq_length"]; length.has_value() && length.integer() != wanted)
      throw_error(ErrorCode::malformed_model, "{}: expected mm_tokens_per_image {} of config.json, got {}",
                  length.where(), wanted, length.integer());
  }

  /// Pan and scan: a long picture is cut across its long side, into crops that are about square.
  std::vector<Rect> plan_crops(Size size, const CropOptions& options) const override {
    const bool wide = size.width >= size.height;
    const int64_t length = std::max(size.width, size.height);
    const int64_t breadth = std::min(size.width, size.height);
    const double ratio = static_cast<double>(length) / static_cast<double>(breadth);
    if (ratio < options.min_ratio) return {};
    const int64_t wanted = std::min(static_cast<int64_t>(std::floor(ratio + 0.5)), length / options.min_side);
    const int64_t count = std::min(std::max<int64_t>(wanted, 2), options.max_crops);
    const int64_t side = (length + count - 1) / count;  // the last crop may be shorter
    if (std::min(side, breadth) < options.min_side) return {};
    if (side * (count - 1) >= length)
      throw_error(ErrorCode::unsupported_image, "a picture of {} x {} pixels: can't be cut into {} crops of {} pixels",
                  size.width, size.height, count, side);
    std::vector<Rect> crops;
    for (int64_t begin = 0; begin < length; begin += side) {
      const int64_t extent = std::min(side, length - begin);
      crops.push_back(wide ? Rect{begin, 0, {extent, breadth}} : Rect{0, begin, {breadth, extent}});
    }
    return crops;
  }

  at::Tensor project(const at::Tensor& features, std::span<const Grid>) const override {
    const at::Tensor pooled = ops::average_pool(features, grid_side(), pool_);
    return matrix_(ops::rms_norm_offset(pooled, norm_, traits_.vit.norm_eps));
  }

  Prompt prompt(const Grid& grid, Modality) const override {
    return bracketed_prompt(start_token_, image_token_, rows(grid), end_token_);
  }

 private:
  static int64_t special_token(const Json& config, const char* key, const char* alias, int64_t fallback) {
    return config[key].has_value() ? config[key].integer() : config[alias].integer_or(fallback);
  }

  void load_projector(WeightReader& reader) override {
    norm_ = reader.tensor("multi_modal_projector.mm_soft_emb_norm.weight", {traits_.vit.width});
    // Stored [in, out], unlike the weight of a linear layer.
    const at::Tensor matrix =
        reader.tensor("multi_modal_projector.mm_input_projection_weight", {traits_.vit.width, traits_.row_width});
    if (matrix.defined()) matrix_ = ops::Linear(matrix.t().contiguous(), {});
  }

  int64_t pool_ = 1;
  int64_t start_token_ = 0, end_token_ = 0, image_token_ = 0;
  at::Tensor norm_;
  ops::Linear matrix_;
};

}  // namespace

std::unique_ptr<Architecture> make_gemma3(const ModelFiles& files) { return std::make_unique<Gemma3>(files); }

}  // namespace oriel::arch
