// How much memory a call takes at its peak, counted along the way of encode (tower_encode.cpp) and of a block
// (nn/vit.cpp): whoever changes when a tensor is made or let go there changes this count too.
#include <ATen/Parallel.h>

#include <algorithm>

#include "tensor_types.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

constexpr int64_t product_workspace = int64_t{32} << 20;  // of a matrix product on a GPU (kernels/matmul.h)

/// Scratch of libtorch's attention on the CPU. For each thread a tile of scores, its sums and a tile of the result in
/// float32; for every query a sum. In a shorter dtype, the scores once more in it, and k and v as the matrix units
/// read them.
int64_t attention_scratch(const nn::VitSpec& vit, const Grid& grid, int64_t element) {
  constexpr auto wide = int64_t{sizeof(float)};
  const int64_t segment = grid.h * grid.w;
  const int64_t queries = std::min<int64_t>(segment >= 768 ? 256 : segment >= 192 ? 64 : 32, segment);
  const int64_t keys = std::min<int64_t>(512, segment);
  const int64_t tile = (queries * (keys + 2 + vit.head_dim())) * wide;
  const int64_t sums = grid.patches() * vit.heads * wide;
  if (element == wide) return at::get_num_threads() * tile + sums;
  return at::get_num_threads() * (tile + queries * keys * element) + sums + 2 * grid.patches() * vit.width * element;
}

/// Values of the tower's dtype for every patch, one number for each step that may be the peak.
struct Steps {
  int64_t gather;     ///< patches in another dtype, and these in another order
  int64_t embed;      ///< patches, positions, hidden states, their norm
  int64_t attention;  ///< the block's input, its q, k and v, and the result
  int64_t mlp;        ///< the MLP's input, its norm, the middle, and what a gated one's is made of
  int64_t features;   ///< hidden states side by side, and what they come from
};

Steps count(const arch::Traits& traits, int64_t patches, DType dtype, Device device) {
  const nn::VitSpec& vit = traits.vit;
  const bool on_cpu = device == Device::cpu();
  const auto layers = static_cast<int64_t>(vit.feature_layers.size());
  const int64_t copies = (on_cpu && dtype != DType::float32 ? 1 : 0) + (traits.footprint.order ? 1 : 0);
  const int64_t kept = (layers - 1) * vit.width;  // features of earlier blocks
  const int64_t middles = vit.gated_mlp ? ops::GatedLinear::results_held({patches, vit.mlp_width, vit.activation},
                                                                         to_scalar_type(dtype), to_torch_device(device))
                                        : 1;
  const int64_t embedding = traits.footprint.positions || vit.norm_before_blocks ? 2 : 1;
  return {.gather = copies * vit.patch_values,
          .embed = std::min<int64_t>(copies, 1) * vit.patch_values + embedding * vit.width,
          .attention = kept + 5 * vit.width,
          .mlp = kept + 2 * vit.width + middles * vit.mlp_width,
          .features = (layers == 1 ? 2 : 2 * layers) * vit.width};
}

}  // namespace

int64_t peak_bytes(const arch::Traits& traits, const Grid& grid, DType dtype, Device device) {
  const auto element = static_cast<int64_t>(size_in_bytes(dtype));
  const int64_t patches = grid.patches();
  const int64_t rows = patches / (traits.merge_size * traits.merge_size);
  const arch::Footprint& footprint = traits.footprint;
  const bool on_cpu = device == Device::cpu();
  const Steps steps = count(traits, patches, dtype, device);

  const int64_t order = footprint.order ? patches * int64_t{sizeof(int64_t)} : 0;
  const int64_t tables =
      footprint.rotary ? patches * (on_cpu ? 2 : 3) * traits.vit.head_dim() * int64_t{sizeof(float)} : 0;
  const int64_t scratch = on_cpu ? attention_scratch(traits.vit, grid, element) : 0;
  const int64_t workspace = on_cpu ? 0 : product_workspace;
  const int64_t features = patches * static_cast<int64_t>(traits.vit.feature_layers.size()) * traits.vit.width;
  const int64_t projection = (features + rows * footprint.projector_values) * element;
  const int64_t in_tower =
      std::max({patches * std::max({steps.gather, steps.embed, steps.mlp, steps.features}) * element,
                patches * steps.attention * element + scratch});
  return order + workspace + std::max(tables + in_tower, projection);
}

}  // namespace oriel
