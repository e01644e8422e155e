// Qwen2-VL: LayerNorm, a plain MLP with quick GELU, every block attends over the whole slot. spec/qwen_vl.md 5.
#include <cmath>

#include "arch/qwen_vision.hpp"

namespace oriel::arch {
namespace {

class Qwen2VL final : public QwenVision {
 public:
  explicit Qwen2VL(const ModelFiles& files) : QwenVision(files, "Qwen2-VL", nn::NormKind::layer_norm) {
    // hidden_size is the width of the output here; embed_dim is the tower's.
    const Json vision = files.config["vision_config"];
    const int64_t width = vision["embed_dim"].integer_in_or(1, 1 << 16, 1280);
    const int64_t ratio = vision["mlp_ratio"].integer_in_or(1, 64, 4);
    set_sizes(vision, width, width * ratio, /*gated=*/false, "quick_gelu",
              vision["hidden_size"].integer_in_or(1, 1 << 16, 3584));
  }

 private:
  nn::BlockWeights load_mlp(WeightReader& reader, const std::string& block) const override {
    const nn::VitSpec& vit = traits_.vit;
    nn::BlockWeights weights;
    weights.up = reader.linear(block + "mlp.fc1", vit.mlp_width, vit.width, /*bias=*/true);
    weights.down = reader.linear(block + "mlp.fc2", vit.width, vit.mlp_width, /*bias=*/true);
    return weights;
  }
};

}  // namespace

std::unique_ptr<Architecture> make_qwen2_vl(const ModelFiles& files) { return std::make_unique<Qwen2VL>(files); }

}  // namespace oriel::arch
