#include "attention.h"

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "attention_plan.h"
#include "core/error.hpp"
#include "ops/cuda/launch.hpp"

namespace oriel::ops::cuda {
namespace {

/// Which kernel serves a layer. It depends on the layer and the chip alone: two kernels round differently, and a
/// picture's rows may not depend on what else is in the call.
enum class Path {
  window,  ///< oriel's kernel for segments of at most 64 rows
  hopper,  ///< oriel's kernel for sm_90, where the build has it
  flash,   ///< libtorch's flash attention
  plain,   ///< ops::attention
};

bool is_short(int64_t longest_possible) {
  return longest_possible > 0 && longest_possible <= kernels::kAttentionWindow;
}

Path path_of(const AttentionShape& shape, c10::Device device) {
  const Chip chip = chip_of(device);
  if (chip.major < 8) return Path::plain;
  const bool known_dim = !shape.by_flash && kernels::attention_has_head_dim(shape.head_dim);
  if (known_dim && is_short(shape.longest_possible)) return Path::window;
  kernels::AttentionInputs inputs;
  inputs.heads = static_cast<int32_t>(shape.heads);
  inputs.head_dim = static_cast<int32_t>(shape.head_dim);
  inputs.token_stride = 3 * shape.heads * shape.head_dim;
  if (chip.has_sm90_code && known_dim && kernels::attention_sm90_supports(inputs, chip.major, chip.minor))
    return Path::hopper;
  return shape.head_dim % 8 == 0 && shape.head_dim <= 256 ? Path::flash : Path::plain;
}

Path path_of(const at::Tensor& qkv, const Segments& segments) {
  return path_of({qkv.size(2), qkv.size(3), segments.longest_possible, segments.by_flash}, qkv.device());
}

kernels::AttentionInputs inputs_of(const at::Tensor& qkv, const at::Tensor& out, double scale, bool query_scaled) {
  return {.qkv = qkv.const_data_ptr(),
          .out = out.mutable_data_ptr(),
          .token_stride = qkv.stride(0),
          .tokens = static_cast<int32_t>(qkv.size(0)),
          .heads = static_cast<int32_t>(qkv.size(2)),
          .head_dim = static_cast<int32_t>(qkv.size(3)),
          .element = element_of(qkv),
          .scale = static_cast<float>(scale),
          .q_prescaled = query_scaled};
}

at::Tensor flash(const at::Tensor& qkv, const Segments& segments, double scale) {
  return std::get<0>(at::_flash_attention_forward(qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2),
                                                  segments.cu_seqlens, segments.cu_seqlens, segments.longest,
                                                  segments.longest, /*dropout_p=*/0.0, /*is_causal=*/false,
                                                  /*return_debug_mask=*/false, scale))
      .reshape({qkv.size(0), qkv.size(2) * qkv.size(3)});
}

/// The plan for a grid of `blocks`, of which the last ones may have nothing to do, in `size` bytes.
std::vector<std::byte> widened(const kernels::AttentionPlan& plan, int32_t blocks, size_t size) {
  std::vector<std::byte> result(size);
  const auto offset = static_cast<size_t>(kernels::attention_tiles_offset(blocks));
  const auto old_offset = static_cast<size_t>(kernels::attention_tiles_offset(plan.blocks));
  std::vector<int32_t> first_tile(static_cast<size_t>(blocks) + 1);
  if (plan.blocks > 0) std::memcpy(first_tile.data(), plan.bytes.data(), sizeof(int32_t) * (plan.blocks + size_t{1}));
  std::fill(first_tile.begin() + plan.blocks, first_tile.end(), first_tile[static_cast<size_t>(plan.blocks)]);
  std::memcpy(result.data(), first_tile.data(), sizeof(int32_t) * first_tile.size());
  const size_t tiles = plan.blocks > 0 ? plan.bytes.size() - old_offset : 0;
  if (offset + tiles > size)
    throw_error(ErrorCode::internal, "attention: a plan of {} bytes in room for {}", offset + tiles, size);
  if (tiles > 0) std::memcpy(result.data() + offset, plan.bytes.data() + old_offset, tiles);
  return result;
}

}  // namespace

bool has_fixed_launches(const AttentionShape& shape, c10::Device device) {
  AttentionShape whole = shape;
  whole.longest_possible = 0;
  return path_of(shape, device) != Path::plain && path_of(whole, device) != Path::plain;
}

void place(Segments& segments, const AttentionShape& shape, c10::Device device, bool fixed_layout) {
  if (segments.bounds.back() > std::numeric_limits<int32_t>::max())
    throw_error(ErrorCode::limit_exceeded, "attention: expected at most {} patches in a call, got {}",
                std::numeric_limits<int32_t>::max(), segments.bounds.back());
  const std::vector<int32_t> bounds(segments.bounds.begin(), segments.bounds.end());
  segments.cu_seqlens = to_device(bounds.data(), static_cast<int64_t>(bounds.size()), at::kInt, device);
  if (path_of({shape.heads, shape.head_dim, segments.longest_possible, segments.by_flash}, device) != Path::hopper)
    return;
  const int processors = chip_of(device).processors;
  const auto heads = static_cast<int>(shape.heads);
  const auto head_dim = static_cast<int>(shape.head_dim);
  kernels::AttentionPlan plan = kernels::plan_attention(bounds, heads, head_dim, processors);
  if (fixed_layout) {
    const size_t room = kernels::attention_plan_bytes(segments.bounds.back(), static_cast<int64_t>(bounds.size()) - 1,
                                                      heads, head_dim, processors);
    plan.bytes = widened(plan, processors, room + static_cast<size_t>(kernels::attention_tiles_offset(processors)));
    plan.blocks = processors;
  }
  segments.plan = to_device(plan.bytes.data(), static_cast<int64_t>(plan.bytes.size()), at::kByte, device);
  segments.plan_blocks = plan.blocks;
}

bool wants_scaled_query(const at::Tensor& qkv, const Segments& segments) {
  const Path path = path_of(qkv, segments);
  return path == Path::window || path == Path::hopper;
}

at::Tensor attention(const at::Tensor& qkv, const Segments& segments, double scale, bool query_scaled) {
  const Path path = path_of(qkv, segments);
  const double own_scale = query_scaled ? std::log(2.0) : scale;
  if (path == Path::flash) return flash(qkv, segments, own_scale);
  if (path == Path::plain)
    return ops::attention(qkv.select(1, 0), qkv.select(1, 1), qkv.select(1, 2), segments.bounds, own_scale);
  const at::Tensor out = at::empty({qkv.size(0), qkv.size(2) * qkv.size(3)}, qkv.options());
  if (path == Path::window) {
    kernels::AttentionWindowParams params;
    static_cast<kernels::AttentionInputs&>(params) = inputs_of(qkv, out, scale, query_scaled);
    params.cu_seqlens = segments.cu_seqlens.const_data_ptr<int32_t>();
    params.windows = static_cast<int32_t>(segments.bounds.size()) - 1;
    params.longest = static_cast<int32_t>(segments.longest);
    check(kernels::attention_window(params, stream_of(qkv)), "attention_window");
  } else {
    kernels::AttentionSm90Params params;
    static_cast<kernels::AttentionInputs&>(params) = inputs_of(qkv, out, scale, query_scaled);
    params.plan = segments.plan.const_data_ptr();
    params.blocks = segments.plan_blocks;
    check(kernels::attention_sm90(params, stream_of(qkv)), "attention_sm90");
  }
  return out;
}

}  // namespace oriel::ops::cuda
