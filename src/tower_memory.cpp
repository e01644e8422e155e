// How much memory a call takes at its peak, counted along the way of encode (tower_encode.cpp) and of a block
// (nn/vit.cpp): whoever changes when a tensor is made or let go there changes this count too. What oneDNN's products
// hold inside is not counted: some 100 kB on a processor that multiplies the dtype itself. For bfloat16 on one
// with AVX-512 but not its bfloat16 instructions they also hold results in float32, which takes two to three times what
// is counted.
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>

#include "ops/activation.hpp"
#include "tensor_types.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

constexpr int64_t product_workspace = int64_t{32} << 20;  // of a matrix product on a GPU (kernels/matmul.h)

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// What libtorch's attention holds on the CPU where it packs k and v for the processor's matrix units (AMX): both of
/// every head once more, k with its tokens and v with its columns rounded up to tiles, and tokens beyond one tile of
/// keys with room for a tile more.
int64_t packed_keys_values(const nn::VitSpec& vit, const Grid& grid, int64_t keys) {
  constexpr int64_t tile = 64;
  const int64_t segment = grid.h * grid.w;
  if (segment < tile) return 0;
  const int64_t last = round_up((segment - 1) % keys + 1, tile);
  const int64_t k_tokens = segment < 512 ? last : (segment + keys - 1) / keys * keys + last;
  return grid.t * vit.heads * (k_tokens * vit.head_dim() + round_up(segment, 2) * round_up(vit.head_dim(), tile));
}

/// Scratch of libtorch's attention on the CPU. For each thread a tile of scores, its sums and a tile of the result in
/// float32; for every query a sum. In a shorter dtype, the scores once more in it. Without matrix units k and v are
/// read where they lie, whatever the instruction set.
int64_t attention_scratch(const nn::VitSpec& vit, const Grid& grid, DType dtype) {
  constexpr auto wide = int64_t{sizeof(float)};
  const auto element = static_cast<int64_t>(size_in_bytes(dtype));
  const int64_t segment = grid.h * grid.w;
  const int64_t queries = std::min<int64_t>(segment >= 768 ? 256 : segment >= 192 ? 64 : 32, segment);
  const int64_t keys = std::min<int64_t>(512, segment);
  const int64_t tile = (queries * (keys + 2 + vit.head_dim())) * wide;
  const int64_t sums = grid.patches() * vit.heads * wide;
  if (dtype == DType::float32) return at::get_num_threads() * tile + sums;
  const bool packs = at::native::cpublas::could_pack(to_scalar_type(dtype));
  return at::get_num_threads() * (tile + queries * keys * element) + sums +
         (packs ? packed_keys_values(vit, grid, keys) * element : 0);
}

/// What the one activation without an epilogue holds in a shorter dtype on the CPU (ops/activation.hpp).
int64_t activation_scratch(const nn::VitSpec& vit, int64_t patches, DType dtype) {
  if (vit.activation != ops::Activation::quick_gelu || dtype == DType::float32) return 0;
  return std::min(patches * vit.mlp_width, ops::quick_gelu_stretch) * static_cast<int64_t>(size_in_bytes(dtype));
}

/// Values of the tower's dtype for every patch, one number for each step that may be the peak.
struct Steps {
  int64_t gather;     ///< patches in another dtype, and these in another order
  int64_t embed;      ///< patches, positions, hidden states, their norm
  int64_t attention;  ///< the block's input, its q, k and v, and the result
  int64_t mlp;  ///< the MLP's input, its norm, the middle, and of a gated one the gate (on a GPU with up beside it)
  int64_t features;  ///< hidden states side by side, and what they come from
};

Steps count(const arch::Traits& traits, DType dtype, bool on_cpu) {
  const nn::VitSpec& vit = traits.vit;
  const auto layers = static_cast<int64_t>(vit.feature_layers.size());
  const int64_t copies = (on_cpu && dtype != DType::float32 ? 1 : 0) + (traits.footprint.order ? 1 : 0);
  const int64_t kept = (layers - 1) * vit.width;  // features of earlier blocks
  const int64_t embedding = traits.footprint.positions || vit.norm_before_blocks ? 2 : 1;
  return {.gather = copies * vit.patch_values,
          .embed = std::min<int64_t>(copies, 1) * vit.patch_values + embedding * vit.width,
          .attention = kept + 5 * vit.width,
          .mlp = kept + 2 * vit.width + (vit.gated_mlp ? (on_cpu ? 2 : 3) : 1) * vit.mlp_width,
          .features = (layers == 1 ? 2 : 2 * layers) * vit.width};
}

}  // namespace

int64_t peak_bytes(const arch::Traits& traits, const Grid& grid, DType dtype, Device device) {
  const auto element = static_cast<int64_t>(size_in_bytes(dtype));
  const int64_t patches = grid.patches();
  const int64_t rows = patches / (traits.merge_size * traits.merge_size);
  const arch::Footprint& footprint = traits.footprint;
  const bool on_cpu = device == Device::cpu();
  const Steps steps = count(traits, dtype, on_cpu);

  const int64_t order = footprint.order ? patches * int64_t{sizeof(int64_t)} : 0;
  const int64_t tables =
      footprint.rotary ? patches * (on_cpu ? 2 : 3) * traits.vit.head_dim() * int64_t{sizeof(float)} : 0;
  const int64_t attention = on_cpu ? attention_scratch(traits.vit, grid, dtype) : 0;
  const int64_t activation = on_cpu ? activation_scratch(traits.vit, patches, dtype) : 0;
  const int64_t workspace = on_cpu ? 0 : product_workspace;
  const int64_t features = patches * static_cast<int64_t>(traits.vit.feature_layers.size()) * traits.vit.width;
  const int64_t projection = (features + rows * footprint.projector_values) * element;
  const int64_t in_tower =
      std::max({patches * std::max({steps.gather, steps.embed, steps.features}) * element,
                patches * steps.attention * element + attention, patches * steps.mlp * element + activation});
  return order + workspace + std::max(tables + in_tower, projection);
}

}  // namespace oriel
