// How much memory a call takes at its peak, counted along the way of encode (tower_encode.cpp) and of a block
// (nn/vit.cpp): whoever changes when a tensor is made or let go there changes this count too. On the CPU, what oneDNN's
// products hold inside is counted in float32 without AVX-512 alone: elsewhere it is some 100 kB on a processor that
// multiplies the dtype itself. For bfloat16 on one with AVX-512 but not its bfloat16 instructions they also hold
// results in float32, which takes two to three times what is counted. On a GPU, what libtorch's attention holds inside
// is not (float32, chips before Hopper).
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>

#include "core/error.hpp"
#include "ops/activation.hpp"
#include "ops/device.hpp"
#include "ops/linear.hpp"
#include "tensor_types.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

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

/// What oneDNN's products in float32 hold where it copies panels of both operands, as it does on x86 without AVX-512 if
/// there is enough to be won: of the weight [out, in], and for each thread of the rows. Seen with oneDNN 3.10: 192
/// columns deep, of 384 rows, up to a tenth of a megabyte more; with 154 rows none, by its own threshold.
int64_t product_scratch(int64_t out, int64_t in, int64_t rows, DType dtype) {
#if defined(__x86_64__)
  constexpr double copying_pays = 0.0038;
  if (dtype != DType::float32 || __builtin_cpu_supports("avx512f") != 0) return 0;
  if (out < 1 || rows < 1 || 1.0 / static_cast<double>(out) + 1.0 / static_cast<double>(rows) >= copying_pays) return 0;
  const int64_t panels = std::min<int64_t>(out, 10'000) + at::get_num_threads() * std::min<int64_t>(rows, 384);
  return panels * std::min<int64_t>(in, 192) * int64_t{sizeof(float)};
#else
  (void)out, (void)in, (void)rows, (void)dtype;
  return 0;
#endif
}

/// What the one activation without an epilogue holds in a shorter dtype on the CPU (ops/activation.hpp).
int64_t activation_scratch(const nn::VitSpec& vit, int64_t patches, DType dtype) {
  if (vit.activation != ops::Activation::quick_gelu || dtype == DType::float32) return 0;
  return std::min(patches * vit.mlp_width, ops::quick_gelu_stretch) * static_cast<int64_t>(size_in_bytes(dtype));
}

/// What is held for every feature that is made before the last one, and for all of them, in values a patch.
struct Features {
  int64_t earlier;
  int64_t all;
  explicit Features(const nn::VitSpec& vit)
      : earlier((static_cast<int64_t>(vit.feature_layers.size()) - 1) * vit.width), all(earlier + vit.width) {}
  /// Hidden states side by side, and what they come from.
  [[nodiscard]] int64_t while_made() const { return 2 * all; }
};

int64_t peak_bytes_on_cpu(const arch::Traits& traits, const Grid& grid, DType dtype) {
  const nn::VitSpec& vit = traits.vit;
  const auto element = static_cast<int64_t>(size_in_bytes(dtype));
  const int64_t patches = grid.patches();
  const int64_t rows = patches / (traits.merge_size * traits.merge_size);
  const arch::Footprint& footprint = traits.footprint;
  const Features features(vit);

  // Values for every patch, of each step that may be the peak.
  const int64_t copies = (dtype != DType::float32 ? 1 : 0) + (footprint.order ? 1 : 0);
  const int64_t middles = vit.gated_mlp ? ops::GatedLinear::results_held({patches, vit.mlp_width, vit.activation},
                                                                         to_scalar_type(dtype), at::kCPU)
                                        : 1;
  const int64_t gather = copies * vit.patch_values;  // patches in another dtype, and these in another order
  const int64_t embed = std::min<int64_t>(copies, 1) * vit.patch_values +
                        (footprint.positions || vit.norm_before_blocks ? 2 : 1) * vit.width;
  const int64_t attention = features.earlier + 5 * vit.width;  // the block's input, its q, k and v, and the result
  const int64_t mlp = features.earlier + 2 * vit.width + middles * vit.mlp_width;

  const int64_t order = footprint.order ? patches * int64_t{sizeof(int64_t)} : 0;
  const int64_t tables = footprint.rotary ? patches * 2 * vit.head_dim() * int64_t{sizeof(float)} : 0;
  const auto product = [&](int64_t out) { return product_scratch(out, vit.width, patches, dtype); };
  const int64_t in_tower =
      std::max({patches * std::max({gather, embed, features.while_made()}) * element,
                patches * attention * element + std::max(attention_scratch(vit, grid, dtype), product(3 * vit.width)),
                patches * mlp * element + std::max(activation_scratch(vit, patches, dtype), product(vit.mlp_width))});
  const int64_t projection = (patches * features.all + rows * footprint.projector_values) * element +
                             product_scratch(traits.row_width, features.all, rows, dtype);
  return order + std::max(tables + in_tower, projection);
}

int64_t padded(int64_t columns) { return round_up(columns, ops::column_multiple); }

/// The tower itself over so many rows, beside what it is given.
int64_t tower_bytes_on_gpu(const nn::VitSpec& vit, int64_t rows, DType dtype, c10::Device where) {
  constexpr int64_t workspace = ops::product_workspace_bytes;
  const int64_t value = rows * static_cast<int64_t>(size_in_bytes(dtype));  // one of every row
  const Features features(vit);
  const auto padded_copy = [](int64_t columns) { return columns == padded(columns) ? 0 : padded(columns); };

  const int64_t embed = (padded_copy(vit.patch_values) + vit.width) * value + workspace;
  const int64_t attention = (features.earlier + 5 * vit.width) * value + workspace;  // at the product of q, k and v
  const int64_t middle = vit.gated_mlp ? padded(vit.mlp_width) : vit.mlp_width;
  const int64_t around = features.earlier + 2 * vit.width;
  int64_t mlp = (around + middle + padded_copy(middle)) * value + workspace;
  // Where the gate has a kernel of its own, gate and up are held with the product's workspace, then with the result.
  if (vit.gated_mlp &&
      ops::GatedLinear::results_held({rows, vit.mlp_width, vit.activation}, to_scalar_type(dtype), where) > 1)
    mlp = std::max({mlp, (around + 2 * middle) * value + workspace, (around + 3 * middle) * value});
  return std::max({embed, attention, mlp, features.while_made() * value});
}

/// What a call on a GPU holds beside the tower itself.
struct CallBytes {
  int64_t order = 0;
  int64_t positions = 0;
  int64_t tables = 0;
  int64_t uploaded = 0;    ///< patches, where they come from elsewhere or in another dtype
  int64_t gathered = 0;    ///< patches in the tower's order
  int64_t features = 0;    ///< of all patches
  int64_t projection = 0;  ///< all from features to rows
  int64_t states = 0;      ///< hidden states of earlier blocks while a later one runs
  int64_t given_back = 0;  ///< what is made of features or states for the caller, beside them

  CallBytes(const arch::Traits& traits, int64_t patches, DType dtype, const GpuCall& call);

  [[nodiscard]] int64_t arrangement() const { return order + positions + tables; }
  /// Patches as the tower reads them.
  [[nodiscard]] int64_t given() const { return gathered > 0 ? gathered : uploaded; }
  [[nodiscard]] int64_t behind_tower() const { return features + projection; }
};

CallBytes::CallBytes(const arch::Traits& traits, int64_t patches, DType dtype, const GpuCall& call) {
  const nn::VitSpec& vit = traits.vit;
  const arch::Footprint& footprint = traits.footprint;
  const int64_t value = patches * static_cast<int64_t>(size_in_bytes(dtype));  // one of every patch
  const int64_t rows = patches / (traits.merge_size * traits.merge_size);
  if (!call.arranged) {
    order = footprint.order ? patches * int64_t{sizeof(int64_t)} : 0;
    positions = footprint.positions ? vit.width * value : 0;
    tables = footprint.rotary ? patches * 3 * vit.head_dim() * int64_t{sizeof(float)} : 0;
  }
  uploaded = call.uploads ? vit.patch_values * value : 0;
  gathered = footprint.order ? vit.patch_values * value : 0;
  features = Features(vit).all * value;
  const int64_t row_bytes = rows * traits.row_width * static_cast<int64_t>(size_in_bytes(dtype));
  if (call.layers.empty()) {
    const int64_t projector = rows * footprint.projector_values * static_cast<int64_t>(size_in_bytes(dtype)) +
                              (footprint.projector_values > 0 ? ops::product_workspace_bytes : 0);
    projection = std::max(footprint.order ? features : 0, projector);
    given_back = call.pictures > 1 && call.results_stay ? 2 * row_bytes : 0;  // all of them, and each picture's own
    return;
  }
  const std::set<int64_t> wanted(call.layers.begin(), call.layers.end());
  const int64_t last =
      std::max(*wanted.rbegin(), *std::max_element(vit.feature_layers.begin(), vit.feature_layers.end()));
  const int64_t state = vit.width * value;
  states = state * static_cast<int64_t>(std::distance(wanted.begin(), wanted.lower_bound(last)));
  projection = state * static_cast<int64_t>(wanted.size());  // beside the features, which nobody asked for
  if (footprint.order) projection += state * (call.results_stay ? static_cast<int64_t>(call.layers.size()) : 1);
}

/// Beside weights, and patches that are on the GPU in the tower's dtype.
int64_t peak_bytes_on_gpu(const arch::Traits& traits, int64_t patches, DType dtype, c10::Device where,
                          const GpuCall& call = {}) {
  const nn::VitSpec& vit = traits.vit;
  const auto element = static_cast<int64_t>(size_in_bytes(dtype));
  const arch::Footprint& footprint = traits.footprint;
  const CallBytes bytes(traits, patches, dtype, call);
  const std::optional<int64_t> graph_rows =
      call.layers.empty() ? nn::graph_rows(vit, patches, to_scalar_type(dtype), where) : std::nullopt;

  if (graph_rows) {
    const int64_t columns = vit.patch_values * element + (footprint.positions ? vit.width * element : 0) +
                            (footprint.rotary ? 3 * vit.head_dim() * int64_t{sizeof(float)} : 0);
    const int64_t room = call.graphs.room ? 0 : nn::graph_input_rows * columns;
    // What a graph makes lies in memory that was allocated with it; the copy of its features is the call's.
    const int64_t features = call.graphs.graph ? bytes.features : *graph_rows * Features(vit).all * element;
    const int64_t in_tower = call.graphs.graph ? features : tower_bytes_on_gpu(vit, *graph_rows, dtype, where);
    return bytes.arrangement() + std::max({bytes.uploaded + bytes.gathered, room + bytes.given() + in_tower,
                                           room + features + bytes.projection, room + bytes.given_back});
  }
  // What is not kept of the arrangement goes with the step that needs it.
  const bool kept = patches <= ArrangementCache::most_patches && bytes.arrangement() <= ArrangementCache::most_bytes;
  const int64_t kept_positions = kept ? bytes.positions : 0;
  const int64_t in_embed = bytes.given() + bytes.positions +
                           patches * (vit.norm_before_blocks ? 2 : 1) * vit.width * element +
                           ops::product_workspace_bytes;
  const int64_t behind_embed = kept_positions + bytes.states + tower_bytes_on_gpu(vit, patches, dtype, where);
  const int64_t gather = bytes.uploaded + bytes.gathered + bytes.positions;
  return bytes.order +
         std::max({bytes.tables + std::max({gather, in_embed, behind_embed}),
                   (kept ? bytes.tables + bytes.positions : 0) + std::max(bytes.behind_tower(), bytes.given_back)});
}

}  // namespace

int64_t peak_bytes(const arch::Traits& traits, const Grid& grid, DType dtype, Device device) {
  if (device.kind == Device::Kind::cuda)
    return peak_bytes_on_gpu(traits, grid.patches(), dtype, to_torch_device(device));
  return peak_bytes_on_cpu(traits, grid, dtype);
}

int64_t VisionTower::Impl::encode_bytes(const std::vector<Grid>& grids, GpuCall call) const {
  const c10::Device where = to_torch_device(device);
  const ops::DeterministicProducts deterministic_products(deterministic);  // they take other memory
  int64_t patches = 0;
  for (const Grid& grid : grids) patches += grid.patches();
  call.pictures = grids.size();
  if (call.layers.empty() && nn::graph_rows(traits().vit, patches, to_scalar_type(dtype), where) && vit)
    call.graphs = vit->graph_memory(patches, arrange(grids).input);  // which is kept for the call
  call.arranged = arrangements.holds(grids, ops::current_stream(where).id());
  return peak_bytes_on_gpu(traits(), patches, dtype, where, call);
}

// What is counted is within some percent of what is taken (ImagePlan::working_bytes): what may fit is tried. Most calls
// find their memory unused with libtorch's allocator, which is asked first, and at no cost.
void VisionTower::Impl::check_fits(std::string_view what, int64_t patches, int64_t needed) const {
  const int64_t surely_needed = needed - needed / 20;
  const int64_t available = ops::available_bytes(to_torch_device(device), surely_needed);
  if (surely_needed > available)
    throw_error(ErrorCode::out_of_memory, "{}: {} patches need {} bytes on {}, {} are free", what, patches, needed,
                to_string(device), available);
}

void VisionTower::Impl::check_patches_fit(const std::vector<Grid>& grids, int64_t patch_values, int64_t beside,
                                          const std::optional<GpuCall>& then) const {
  int64_t patches = 0;
  for (const Grid& grid : grids) patches += grid.patches();
  if (then && vit) beside = std::max(beside, encode_bytes(grids, *then));
  check_fits(then ? "encode" : "preprocess", patches,
             patches * patch_values * static_cast<int64_t>(size_in_bytes(dtype)) + beside);
}

}  // namespace oriel
