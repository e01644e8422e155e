// Pixtral-12B (llava with a Pixtral tower): two linear layers from the tower's features to the text model's width.
// spec/pixtral.md.
#include "arch/pixtral_tower.hpp"
#include "core/error.hpp"
#include "ops/activation.hpp"

namespace oriel::arch {
namespace {

class Pixtral final : public PixtralTower {
 public:
  explicit Pixtral(const ModelFiles& files)
      : PixtralTower(files, "Pixtral", {.patch = 16, .merge = 1, .image_token = 32000, .feature_layers = {-2}}),
        activation_(ops::parse_activation(files.config["projector_hidden_act"].string_or("gelu"),
                                          files.config["projector_hidden_act"].where())),
        bias_(files.config["multimodal_projector_bias"].boolean_or(true)) {
    const Json vision_type = files.config["vision_config"]["model_type"];
    if (!vision_type.has_value())
      throw_error(ErrorCode::unsupported_model, "{}: expected \"pixtral\", found nothing (which means a CLIP tower)",
                  vision_type.where());
    const Json strategy = files.config["vision_feature_select_strategy"];
    if (strategy.string_or("default") != "full")
      throw_error(ErrorCode::unsupported_model,
                  "{}: expected \"full\" (a Pixtral tower has no class token to drop), got {}", strategy.where(),
                  strategy.is_absent() ? "nothing, which means \"default\"" : strategy.dump());
    traits_.row_width = text_hidden_size(files.config, 4096);
    traits_.footprint = {.rotary = true, .projector_values = 2 * traits_.row_width};
  }

  at::Tensor project(const at::Tensor& features, std::span<const Grid>) const override {
    return second_(first_(features, activation_));
  }

 private:
  void load_projector(WeightReader& reader) override {
    const int64_t in = traits_.vit.width * static_cast<int64_t>(traits_.vit.feature_layers.size());
    first_ = reader.linear("multi_modal_projector.linear_1", traits_.row_width, in, bias_);
    second_ = reader.linear("multi_modal_projector.linear_2", traits_.row_width, traits_.row_width, bias_);
  }

  ops::Activation activation_;
  bool bias_;
  ops::Linear first_, second_;
};

}  // namespace

std::unique_ptr<Architecture> make_pixtral(const ModelFiles& files) { return std::make_unique<Pixtral>(files); }

}  // namespace oriel::arch
