// From patches to rows, and from rows to embeddings.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <oriel/torch.hpp>

#include "core/error.hpp"
#include "core/json.hpp"
#include "ops/device.hpp"
#include "ops/rows.hpp"
#include "tensor_types.hpp"
#include "torch_errors.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

std::vector<Grid> checked_grids(const Patches& patches, int64_t patch_values, Device device, DType dtype) {
  std::vector<Grid> grids;
  int64_t total = 0;
  for (const PatchedImage& image : patches.images) {
    if (image.grid.t < 1 || image.grid.h < 1 || image.grid.w < 1)
      throw_error(ErrorCode::invalid_argument, "{}: expected a grid of positive sides, got [{}, {}, {}]", image.name,
                  image.grid.t, image.grid.h, image.grid.w);
    const int64_t count =
        checked_multiply(checked_multiply(image.grid.t, image.grid.h, "grid", ErrorCode::invalid_argument),
                         image.grid.w, "grid", ErrorCode::invalid_argument);
    total = checked_add(total, count, "grids", ErrorCode::invalid_argument);
    grids.push_back(image.grid);
  }
  const Tensor& values = patches.values;
  const bool on_host = values.defined() && values.device() == Device::cpu() && values.dtype() == DType::float32;
  const bool on_device =
      values.defined() && values.device() == device && (values.dtype() == DType::float32 || values.dtype() == dtype);
  if (!(on_host || on_device) || values.shape() != std::vector{total, patch_values})
    throw_error(
        ErrorCode::invalid_argument, "patches: expected float32 [{}, {}] in host memory{} for the grids given, got {}",
        total, patch_values,
        device == Device::cpu() ? "" : fmt::format(", or that or {} on {},", to_string(dtype), to_string(device)),
        values.defined() ? fmt::format("{} tensor of {} elements on {}", to_string(values.dtype()),
                                       values.element_count(), to_string(values.device()))
                         : "an empty tensor");
  return grids;
}

std::vector<int64_t> resolved_layers(std::span<const int64_t> layers, int64_t depth) {
  std::vector<int64_t> resolved;
  for (const int64_t layer : layers) {
    resolved.push_back(layer < 0 ? layer + depth + 1 : layer);
    if (resolved.back() < 0 || resolved.back() > depth)
      throw_error(ErrorCode::invalid_argument, "layers: expected {} to {}, got {}", -depth - 1, depth, layer);
  }
  return resolved;
}

/// Puts rows that are in the tower's order back into the processor's.
at::Tensor undo_order(at::Tensor x, const at::Tensor& order) {
  return order.defined() ? ops::scatter_rows(x, order) : x;
}

/// The reference's rows: special tokens' own rows between those of the tower.
at::Tensor bake_special_rows(const at::Tensor& rows, const arch::Prompt& prompt, const TokenRows& token_rows) {
  std::vector<int64_t> specials;
  std::vector<int64_t> places;
  int64_t next_row = 0;
  for (const int64_t token : prompt.tokens) {
    if (token == prompt.placeholder) {
      places.push_back(next_row++);
    } else {
      places.push_back(rows.size(0) + static_cast<int64_t>(specials.size()));
      specials.push_back(token);
    }
  }
  const Tensor given = token_rows(specials);
  const std::vector<int64_t> expected{static_cast<int64_t>(specials.size()), rows.size(1)};
  if (!given.defined() || given.shape() != expected)
    throw_error(ErrorCode::invalid_argument, "token_rows: expected rows [{}, {}], got {}", expected[0], expected[1],
                given.defined() ? fmt::format("{} elements", given.element_count()) : "an empty tensor");
  return with_torch_errors("layout exllamav2", [&] {
    const at::Tensor index = at::empty({static_cast<int64_t>(places.size())}, at::kLong);
    std::copy(places.begin(), places.end(), index.mutable_data_ptr<int64_t>());
    const at::Tensor special_rows = ops::upload(to_torch(given).to(rows.scalar_type()), rows.device());
    return at::cat({rows, special_rows}).index_select(0, ops::upload(index, rows.device()));
  });
}

}  // namespace

PlacedArrangement VisionTower::Impl::arrange(const std::vector<Grid>& grids) const {
  const c10::Device where = to_torch_device(device);
  const auto make = [&] {
    arch::Arrangement arrangement = architecture->arrange(grids, where);
    const auto segments = [&](std::vector<int64_t> bounds, int64_t longest_possible) {
      const nn::VitSpec& spec = traits().vit;
      return ops::make_segments(std::move(bounds), {spec.heads, spec.head_dim(), longest_possible}, where);
    };
    return PlacedArrangement{
        .order = std::move(arrangement.order),
        .input = {.patches = {},
                  .positions = std::move(arrangement.positions),
                  .rotary = std::move(arrangement.rotary),
                  .segments = segments(std::move(arrangement.cu_seqlens), 0),
                  .window_segments = segments(std::move(arrangement.cu_window_seqlens), arrangement.longest_window)}};
  };
  if (where.is_cpu()) return make();
  return *arrangements.get(grids, ops::current_stream(where).id(), make);
}

void VisionTower::Impl::check_has_weights() const {
  if (!vit) throw_error(ErrorCode::invalid_argument, "encode: the tower was loaded without weights");
}

VisionTower::Impl::Encoded VisionTower::Impl::encode_one_by_one(const Patches& patches, const std::vector<Grid>& grids,
                                                                const std::vector<int64_t>& layers,
                                                                const EncodeOptions& options) const {
  Encoded result;
  std::vector<std::vector<at::Tensor>> hidden(layers.size());
  int64_t begin = 0;
  for (size_t i = 0; i < grids.size(); ++i) {
    const int64_t end = begin + grids[i].patches();
    Encoded one = encode_checked({patches.values.rows(begin, end), {patches.images[i]}}, {grids[i]}, layers, options);
    begin = end;
    result.rows.insert(result.rows.end(), one.rows.begin(), one.rows.end());
    for (size_t k = 0; k < one.hidden_states.size(); ++k) hidden[k].push_back(one.hidden_states[k]);
  }
  for (const auto& states : hidden) result.hidden_states.push_back(at::cat(states));
  return result;
}

VisionTower::Impl::Encoded VisionTower::Impl::encode(const Patches& patches, const std::vector<int64_t>& layers,
                                                     const EncodeOptions& options) const {
  check_has_weights();
  check_stream(options.stream);
  if (patches.images.empty()) return {};
  return encode_checked(patches, checked_grids(patches, traits().vit.patch_values, device, dtype), layers, options);
}

VisionTower::Impl::Encoded VisionTower::Impl::encode_checked(const Patches& patches, const std::vector<Grid>& grids,
                                                             const std::vector<int64_t>& layers,
                                                             const EncodeOptions& options) const {
  const std::vector<int64_t> wanted = resolved_layers(layers, traits().vit.depth);
  if (deterministic && device.kind == Device::Kind::cpu && grids.size() > 1)
    return encode_one_by_one(patches, grids, layers, options);
  const c10::InferenceMode guard;
  const ops::DeterministicProducts deterministic_products(deterministic);
  Encoded encoded = with_torch_errors("encode", [&]() -> Encoded {
    const c10::Device where = to_torch_device(device);
    const c10::DeviceGuard device_guard(where);
    const ops::CallersStream on_stream(options.stream, where);
    if (where.is_cuda()) {
      const bool there = patches.values.device() == device && patches.values.dtype() == dtype;
      check_fits("encode", patches.values.shape()[0],
                 encode_bytes(grids, {.uploads = !there, .results_stay = !options.embeddings_cpu, .layers = wanted}));
    }
    PlacedArrangement placed = arrange(grids);
    at::Tensor values = ops::upload(to_torch(patches.values).to(to_scalar_type(dtype)), where);
    if (placed.order.defined()) values = ops::gather_rows(values, placed.order);
    nn::VitInput input = std::move(placed.input);
    input.patches = std::move(values);
    const auto report = [&](int64_t block, int64_t blocks) {
      check_cancelled(options.cancel);
      call_back(options.progress, Progress{Progress::Stage::encode, block, blocks});
    };
    int64_t total = 0;
    nn::VitOutput output =
        vit->forward(std::move(input), wanted, [&](int64_t block, int64_t blocks) { report(block, total = blocks); });
    report(total, total);

    const auto finish = [&](const at::Tensor& x) { return options.embeddings_cpu ? x.to(at::kCPU) : x; };
    Encoded result;
    if (!wanted.empty()) {
      for (const at::Tensor& hidden : output.hidden_states)
        result.hidden_states.push_back(finish(undo_order(hidden, placed.order)));
      return result;
    }
    at::Tensor features = undo_order(std::move(output.features), placed.order);
    const at::Tensor rows = finish(architecture->project(std::move(features), grids));
    int64_t begin = 0;
    for (const Grid& grid : grids) {
      const int64_t count = architecture->rows(grid);
      // Each picture owns its rows, so that dropping one embedding frees its memory.
      const at::Tensor own = rows.narrow(0, begin, count);
      result.rows.push_back(grids.size() == 1 ? own : own.clone());
      begin += count;
    }
    return result;
  });
  if (tuning) tuning->save_if_new();
  return encoded;
}

std::vector<MMEmbedding> VisionTower::Impl::embed(const Patches& patches, const EmbedOptions& options) const {
  if (!options.text_alias.empty() && patches.images.size() != 1)
    throw_error(ErrorCode::invalid_argument, "text_alias: expected none for {} pictures at once, got \"{}\"",
                patches.images.size(), options.text_alias);
  if (!is_utf8(options.text_alias))
    throw_error(ErrorCode::invalid_argument, "text_alias: expected UTF-8, got other bytes");
  check_stream(options.stream);
  if (patches.images.empty()) return {};
  const std::vector<Grid> grids = checked_grids(patches, traits().vit.patch_values, device, dtype);
  for (const PatchedImage& image : patches.images)
    check_tokens(architecture->rows(image.grid), options.max_tokens, image.name);
  const bool baked = options.layout == TokenLayout::exllamav2;
  if (baked && !options.token_rows)
    throw_error(ErrorCode::invalid_argument, "layout exllamav2: expected token_rows, got none");
  check_has_weights();
  const std::vector<at::Tensor> rows = encode_checked(patches, grids, {}, encode_options(options)).rows;

  std::vector<MMEmbedding> result;
  for (size_t i = 0; i < rows.size(); ++i) {
    const PatchedImage& image = patches.images[i];
    const auto modality = image.is_video ? arch::Modality::video : arch::Modality::image;
    const arch::Prompt prompt =
        baked ? architecture->reference_prompt(image.grid, modality) : architecture->prompt(image.grid, modality);
    MMEmbeddingInfo info{.text_alias = options.text_alias,
                         .grid = image.grid,
                         .merge_size = traits().merge_size,
                         .original_size = image.original,
                         .preprocessed_size = image.resized,
                         .seconds_per_slot = image.seconds_per_slot,
                         .content_hash = image.content_hash,
                         .model_fingerprint = fingerprint,
                         .model_family = traits().family};
    at::Tensor own = rows[i];
    if (baked && !prompt.unavailable.empty())
      throw_error(ErrorCode::unavailable, "layout exllamav2: {}", prompt.unavailable);
    if (baked && !prompt.tokens.empty()) {
      const c10::InferenceMode guard;
      const ops::CallersStream on_stream(options.embeddings_cpu ? nullptr : options.stream, own.device());
      own = bake_special_rows(own, prompt, options.token_rows);
      info.pre_tokens = prompt.pre_tokens;
      info.post_tokens = prompt.post_tokens;
    } else if (!baked) {
      if (prompt.unavailable.empty()) info.placeholder_tokens = prompt.tokens;
      info.placeholder_id = prompt.placeholder;
      info.tokens_unavailable = prompt.unavailable;
    }
    result.push_back(MMEmbedding::from_rows(from_torch(own), std::move(info)));
  }
  return result;
}

}  // namespace oriel
