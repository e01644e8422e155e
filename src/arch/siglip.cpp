// A plain SigLIP tower: rows are the last hidden state after the final norm, one a patch. No pooling head, no text
// side. spec/siglip.md 3.
#include "arch/siglip_tower.hpp"

namespace oriel::arch {
namespace {

class Siglip final : public SiglipTower {
 public:
  explicit Siglip(const ModelFiles& files)
      : SiglipTower(files, vision_config(files), "SigLIP", "",
                    {.filter = image::Filter::bicubic, .integer_size_is_square = false}) {
    traits_.names = {.prefixes = {{"vision_model.", ""}}, .wanted = {"embeddings.", "encoder.", "post_layernorm."}};
    traits_.row_width = traits_.vit.width;
    traits_.footprint = {.positions = true};
  }

  at::Tensor project(const at::Tensor& features, std::span<const Grid>) const override { return features; }
  Prompt prompt(const Grid&, Modality) const override { return {}; }
  int64_t prompt_length(const Grid&) const override { return 0; }

 private:
  /// The vision half of a two-tower model, or a file that is the vision config itself.
  static Json vision_config(const ModelFiles& files) {
    return files.model_type() == "siglip" ? files.config["vision_config"] : files.config;
  }

  void load_projector(WeightReader&) override {}
};

}  // namespace

std::unique_ptr<Architecture> make_siglip(const ModelFiles& files) { return std::make_unique<Siglip>(files); }

}  // namespace oriel::arch
