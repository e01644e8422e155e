#pragma once
// The SigLIP tower: a fixed square, learned positions, LayerNorm, tanh GELU. spec/siglip.md 1 to 3.
#include <string>

#include "arch/architecture.hpp"

namespace oriel::arch {

class SiglipTower : public Architecture {
 public:
  [[nodiscard]] ImageTarget plan(Size size, const PixelBudget& budget) const override;
  [[nodiscard]] nn::VitWeights load(WeightReader& reader) override;
  [[nodiscard]] Arrangement arrange(std::span<const Grid> grids, c10::Device device) const override;

 protected:
  /// What the image processor's class takes where its file says nothing.
  struct Defaults {
    image::Filter filter;
    bool integer_size_is_square;
  };
  /// `prefix` stands in front of the tower's tensor names once they are canonical.
  SiglipTower(const ModelFiles& files, const Json& vision, std::string family, std::string prefix,
              const Defaults& defaults);

  virtual void load_projector(WeightReader& reader) = 0;

  /// Patches along each side.
  [[nodiscard]] int64_t grid_side() const { return grid_side_; }

 private:
  std::string prefix_;
  int64_t image_side_ = 0;
  int64_t grid_side_ = 0;
  at::Tensor positions_;  ///< [grid_side^2, width]
};

}  // namespace oriel::arch
