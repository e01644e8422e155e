#pragma once
// The Pixtral vision tower, which two families share: raster patches, rotary rows and columns, RMSNorm, gated MLP.
// spec/pixtral.md.
#include <map>
#include <string>

#include "arch/architecture.hpp"

namespace oriel::arch {

class PixtralTower : public Architecture {
 public:
  [[nodiscard]] ImageTarget plan(Size size, const PixelBudget& budget) const override;
  [[nodiscard]] nn::VitWeights load(WeightReader& reader) override;
  [[nodiscard]] Arrangement arrange(std::span<const Grid> grids, c10::Device device) const override;
  [[nodiscard]] Prompt prompt(const Grid& grid, Modality modality) const override;
  [[nodiscard]] int64_t prompt_length(const Grid& grid) const override;
  [[nodiscard]] Prompt reference_prompt(const Grid& grid, Modality modality) const override;

 protected:
  /// What the class takes where config.json says nothing.
  struct Defaults {
    int64_t patch;
    int64_t merge;
    int64_t image_token;
    std::vector<int64_t> feature_layers;
  };
  PixtralTower(const ModelFiles& files, std::string family, const Defaults& defaults);

  virtual void load_projector(WeightReader& reader) = 0;

 private:
  void read_vision_config(const Json& config, const Defaults& defaults);
  void read_processor(const ModelFiles& files);
  void read_special_tokens(const ModelFiles& files, const Defaults& defaults);
  [[nodiscard]] Prompt rows_with_breaks(const Grid& grid, bool break_before_end) const;

  Size limit_{1024, 1024};  ///< pictures beyond it are shrunk into it
  double rope_theta_ = 10000.0;
  int64_t image_token_ = 0;
  int64_t break_token_ = -1;
  int64_t end_token_ = -1;
  std::string tokens_unavailable_;
};

/// text_config.hidden_size, or the default of the text model's class.
[[nodiscard]] int64_t text_hidden_size(const Json& config, int64_t without_text_config);

}  // namespace oriel::arch
