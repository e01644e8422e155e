// Mistral-Small-3.1 and 3.2: the Pixtral tower, a norm, a merger of 2 x 2 patches, two linear layers.
// spec/pixtral.md 4.
#include <ATen/ops/cat.h>

#include <cmath>
#include <vector>

#include "arch/pixtral_tower.hpp"
#include "core/error.hpp"
#include "ops/activation.hpp"
#include "ops/norm.hpp"
#include "ops/patch_merge.hpp"

namespace oriel::arch {
namespace {

class Mistral3 final : public PixtralTower {
 public:
  explicit Mistral3(const ModelFiles& files)
      : PixtralTower(files, "Mistral3", {.patch = 14, .merge = 2, .image_token = 10, .feature_layers = {-1}}),
        activation_(ops::parse_activation(files.config["projector_hidden_act"].string_or("gelu"),
                                          files.config["projector_hidden_act"].where())),
        bias_(files.config["multimodal_projector_bias"].boolean_or(false)) {
    if (traits_.vit.feature_layers.size() != 1)
      throw_error(ErrorCode::unsupported_model, "{}: expected one layer, got {}",
                  files.config["vision_feature_layer"].where(), files.config["vision_feature_layer"].dump());
    const Json text = files.config["text_config"];
    norm_eps_ = text["rms_norm_eps"].number_or(text.has_value() ? 1e-6 : 1e-5);
    if (!std::isfinite(norm_eps_) || norm_eps_ < 0)
      throw_error(ErrorCode::malformed_model, "{}: expected a small positive number, got {}",
                  text["rms_norm_eps"].where(), text["rms_norm_eps"].dump());
    traits_.row_width = text_hidden_size(files.config, 5120);
    // The features' norm, the merged patches of each picture and of all; and what each layer makes of them.
    const int64_t merged = traits_.vit.width * traits_.merge_size * traits_.merge_size;
    traits_.footprint = {.rotary = true, .projector_values = 3 * merged + traits_.vit.width + 2 * traits_.row_width};
  }

  at::Tensor project(const at::Tensor& features, std::span<const Grid> grids) const override {
    const at::Tensor normed = ops::rms_norm(features, norm_, norm_eps_);
    std::vector<at::Tensor> merged;
    int64_t begin = 0;
    for (const Grid& grid : grids) {
      merged.push_back(
          ops::merge_raster_patches(normed.narrow(0, begin, grid.patches()), grid.h, grid.w, traits_.merge_size));
      begin += grid.patches();
    }
    return second_(first_(merge_(at::cat(merged)), activation_));
  }

 private:
  void load_projector(WeightReader& reader) override {
    const int64_t width = traits_.vit.width;
    norm_ = reader.tensor("multi_modal_projector.norm.weight", {width});
    merge_ = reader.linear("multi_modal_projector.patch_merger.merging_layer", width,
                           width * traits_.merge_size * traits_.merge_size, /*bias=*/false);
    first_ = reader.linear("multi_modal_projector.linear_1", traits_.row_width, width, bias_);
    second_ = reader.linear("multi_modal_projector.linear_2", traits_.row_width, traits_.row_width, bias_);
  }

  ops::Activation activation_;
  bool bias_;
  double norm_eps_ = 1e-5;
  at::Tensor norm_;
  ops::Linear merge_, first_, second_;
};

}  // namespace

std::unique_ptr<Architecture> make_mistral3(const ModelFiles& files) { return std::make_unique<Mistral3>(files); }

}  // namespace oriel::arch
