// Qwen2.5-VL: RMSNorm, a gated MLP with biases, and windows in all blocks but a few. spec/qwen_vl.md 6.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "arch/qwen_vision.hpp"
#include "core/error.hpp"
#include "ops/device.hpp"

namespace oriel::arch {
namespace {

class Qwen25VL final : public QwenVision {
 public:
  explicit Qwen25VL(const ModelFiles& files) : QwenVision(files, "Qwen2.5-VL", nn::NormKind::rms_norm) {
    const Json vision = files.config["vision_config"];
    set_sizes(vision, vision["hidden_size"].integer_in_or(1, 1 << 16, 3584),
              vision["intermediate_size"].integer_in_or(1, 1 << 20, 3420), /*gated=*/true, "silu",
              vision["out_hidden_size"].integer_in_or(1, 1 << 16, 3584));
    traits_.footprint.order = true;
    read_windows(vision);
  }

  // Patches are put into window order once, in front of the tower; the tower undoes nothing, the caller does.
  Arrangement arrange(std::span<const Grid> grids, c10::Device device) const override {
    Arrangement result = QwenVision::arrange(grids, device);
    const WindowOrder windows = order_windows(grids);
    const auto patches = static_cast<int64_t>(windows.order.size());
    result.order = at::empty({patches}, at::kLong);
    std::copy(windows.order.begin(), windows.order.end(), result.order.mutable_data_ptr<int64_t>());
    result.order = ops::upload(result.order, device);
    result.rotary = ops::reorder(result.rotary, result.order);
    result.cu_window_seqlens = windows.bounds;
    const int64_t side = window_cells_ * traits_.merge_size;
    result.longest_window = side * side;
    return result;
  }

 private:
  struct WindowOrder {
    std::vector<int64_t> order;   ///< patch in the processor's order, for every place of the tower's
    std::vector<int64_t> bounds;  ///< where windows begin, in patches
  };

  void read_windows(const Json& vision) {
    const int64_t window = vision["window_size"].integer_in_or(1, 1 << 20, 112);
    window_cells_ = window / traits_.merge_size / traits_.pixels.patch;
    if (window_cells_ < 1)
      throw_error(ErrorCode::malformed_model, "{}: expected at least one merged patch of {} pixels, got {}",
                  vision["window_size"].where(), traits_.merge_size * traits_.pixels.patch, window);
    const Json full = vision["fullatt_block_indexes"];
    const std::vector<int64_t> whole = full.is_absent() ? std::vector<int64_t>{7, 15, 23, 31} : full.integers();
    traits_.vit.windowed.assign(static_cast<size_t>(traits_.vit.depth), true);
    for (const int64_t index : whole)
      if (index >= 0 && index < traits_.vit.depth) traits_.vit.windowed[static_cast<size_t>(index)] = false;
  }

  /// Windows of window_cells x window_cells merged cells inside each temporal slot, smaller at the right and lower
  /// edge; cells in raster order inside a window, the patches of a cell together.
  WindowOrder order_windows(std::span<const Grid> grids) const {
    const int64_t cell_patches = traits_.merge_size * traits_.merge_size;
    WindowOrder result{.order = {}, .bounds = {0}};
    int64_t first_cell = 0;
    const auto add_window = [&](int64_t columns, int64_t top, int64_t bottom, int64_t left, int64_t right) {
      for (int64_t y = top; y < bottom; ++y)
        for (int64_t x = left; x < right; ++x)
          for (int64_t patch = 0; patch < cell_patches; ++patch)
            result.order.push_back((first_cell + y * columns + x) * cell_patches + patch);
      result.bounds.push_back(static_cast<int64_t>(result.order.size()));
    };
    for (const Grid& grid : grids) {
      const int64_t rows = grid.h / traits_.merge_size;
      const int64_t columns = grid.w / traits_.merge_size;
      for (int64_t t = 0; t < grid.t; ++t, first_cell += rows * columns)
        for (int64_t top = 0; top < rows; top += window_cells_)
          for (int64_t left = 0; left < columns; left += window_cells_)
            add_window(columns, top, std::min(top + window_cells_, rows), left,
                       std::min(left + window_cells_, columns));
    }
    return result;
  }

  nn::BlockWeights load_mlp(WeightReader& reader, const std::string& block) const override {
    const nn::VitSpec& vit = traits_.vit;
    nn::BlockWeights weights;
    weights.gate = reader.linear(block + "mlp.gate_proj", vit.mlp_width, vit.width, /*bias=*/true);
    weights.up = reader.linear(block + "mlp.up_proj", vit.mlp_width, vit.width, /*bias=*/true);
    weights.down = reader.linear(block + "mlp.down_proj", vit.width, vit.mlp_width, /*bias=*/true);
    return weights;
  }

  int64_t window_cells_ = 0;
};

}  // namespace

std::unique_ptr<Architecture> make_qwen2_5_vl(const ModelFiles& files) { return std::make_unique<Qwen25VL>(files); }

}  // namespace oriel::arch
