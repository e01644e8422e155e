#pragma once
// What the Qwen2-VL and Qwen2.5-VL towers share: sizes in pixels budgets, merge-block order, rotary positions, temporal
// slots, the merger. spec/qwen_vl.md 2 to 6.
#include <string>

#include "arch/architecture.hpp"

namespace oriel::arch {

class QwenVision : public Architecture {
 public:
  [[nodiscard]] ImageTarget plan(Size size, const PixelBudget& budget) const override;
  [[nodiscard]] VideoTarget plan_video(const VideoRequest& request) const override;
  [[nodiscard]] nn::VitWeights load(WeightReader& reader) override;
  [[nodiscard]] Arrangement arrange(std::span<const Grid> grids, c10::Device device) const override;
  [[nodiscard]] at::Tensor project(const at::Tensor& features, std::span<const Grid> grids) const override;
  [[nodiscard]] Prompt prompt(const Grid& grid, Modality modality) const override;

 protected:
  /// `norm` is the kind of every norm of the tower and of the merger.
  QwenVision(const ModelFiles& files, std::string family, nn::NormKind norm);

  /// The family's own keys of vision_config: width, mlp_width, activation, gated_mlp, row_width.
  void set_sizes(const Json& vision, int64_t width, int64_t mlp_width, bool gated, std::string_view activation,
                 int64_t row_width);
  [[nodiscard]] virtual nn::BlockWeights load_mlp(WeightReader& reader, const std::string& block) const = 0;

 private:
  struct PixelLimits {
    int64_t min;
    int64_t max;
  };
  struct SamplingDefaults {
    bool enabled = false;
    std::optional<int64_t> frames;
    std::optional<double> fps;
    int64_t min_frames = 4;
    int64_t max_frames = 768;
  };
  void read_processors(const ModelFiles& files);
  void read_special_tokens(const Json& config);
  [[nodiscard]] static PixelLimits read_limits(const Json& processor, PixelLimits defaults);
  [[nodiscard]] Size resized(Size size, PixelLimits limits, const PixelBudget& budget, bool do_resize) const;
  [[nodiscard]] std::vector<int64_t> sample(const VideoRequest& request) const;

  PixelLimits image_limits_{};
  PixelLimits video_limits_{};
  SamplingDefaults sampling_;
  int64_t max_video_tokens_ = 128000;
  bool cap_pixels_per_frame_ = false;
  double rope_theta_ = 10000.0;
  int64_t start_token_ = 0, end_token_ = 0, image_token_ = 0, video_token_ = 0;
  nn::NormWeights merger_norm_;
  ops::Linear merger_first_, merger_second_;
};

}  // namespace oriel::arch
