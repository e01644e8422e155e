// Runs of several sequences through the decoder.
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.hpp"
#include "tensor_types.hpp"
#include "text_model_impl.hpp"
#include "torch_errors.hpp"

namespace oriel {
namespace {

using Run = TextRun;
using Logits = WantedLogits;

at::Tensor join(const std::vector<at::Tensor>& parts, int64_t dimension) {
  return parts.size() == 1 ? parts.front() : at::cat(parts, dimension);
}

/// The rows of all runs; ids of neighbouring runs are looked up at once.
at::Tensor packed_rows(std::span<const Run> runs, const nn::Decoder& decoder) {
  std::vector<at::Tensor> parts;
  std::vector<int64_t> ids;
  const auto look_up = [&] {
    if (ids.empty()) return;
    at::Tensor tensor = at::empty({static_cast<int64_t>(ids.size())}, at::kLong);
    std::copy(ids.begin(), ids.end(), tensor.mutable_data_ptr<int64_t>());
    parts.push_back(decoder.embed(tensor));
    ids.clear();
  };
  for (const Run& run : runs) {
    if (!run.rows.defined()) {
      ids.insert(ids.end(), run.ids.begin(), run.ids.end());
      continue;
    }
    look_up();
    parts.push_back(run.rows);
  }
  look_up();
  return join(parts, 0);
}

bool is_new_token(const Run& run) {
  return !run.rows.defined() && run.tokens() == 1 && run.ids.size() == 1 && run.logits == Logits::last;
}

std::optional<int64_t> wanted(Logits logits) {
  if (logits == Logits::all) return std::nullopt;
  return logits == Logits::last ? 1 : 0;
}

}  // namespace

nn::KvCache TextModel::Impl::make_cache(int64_t slots, int64_t capacity) const {
  const c10::InferenceMode guard;
  return with_torch_errors("KV cache", [&] {
    return nn::KvCache(decoder->cache_shape(slots, capacity), to_scalar_type(dtype), to_torch_device(device));
  });
}

at::Tensor TextModel::Impl::forward(std::span<const Run> runs, nn::KvCache& cache) const {
  if (runs.empty()) return {};
  const c10::InferenceMode guard;
  const c10::DeviceGuard device_guard(to_torch_device(device));
  return with_torch_errors("forward", [&]() -> at::Tensor {
    std::vector<at::Tensor> positions;
    std::vector<nn::DecoderRun> shapes;
    for (const Run& run : runs) {
      positions.push_back(run.positions);
      shapes.push_back({.slot = run.slot,
                        .begin = run.begin,
                        .tokens = run.tokens(),
                        .blocks = run.blocks,
                        .wanted = wanted(run.logits)});
    }
    if (std::ranges::all_of(runs, is_new_token)) {
      std::vector<int64_t> ids;
      for (const Run& run : runs) ids.push_back(run.ids.front());
      return decoder->step(ids, join(positions, 1), shapes, cache);
    }
    const at::Tensor hidden = decoder->forward(packed_rows(runs, *decoder), join(positions, 1), shapes, &cache);
    return hidden.size(0) > 0 ? decoder->logits(hidden) : at::Tensor();
  });
}

at::Tensor TextModel::Impl::forward(const Prompt& prompt) const {
  const c10::InferenceMode guard;
  const c10::DeviceGuard device_guard(to_torch_device(device));
  return with_torch_errors("forward", [&] {
    const nn::DecoderRun whole{.slot = 0, .begin = 0, .tokens = prompt.size(), .blocks = prompt.blocks};
    const at::Tensor hidden =
        decoder->forward(rows(prompt.ids, prompt.embeddings), prompt.positions, {&whole, 1}, nullptr);
    return decoder->logits(hidden);
  });
}

}  // namespace oriel
