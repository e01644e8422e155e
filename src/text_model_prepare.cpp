// Ids to rows, positions and blocks.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <oriel/torch.hpp>
#include <utility>

#include "core/error.hpp"
#include "core/json.hpp"
#include "tensor_types.hpp"
#include "text_model_impl.hpp"
#include "torch_errors.hpp"

namespace oriel {
namespace {

std::string quoted(const MMEmbedding& embedding) { return fmt::format("\"{}\"", embedding.text_alias()); }

void check_embedding(const MMEmbedding& embedding, const arch::TextTraits& traits) {
  if (embedding.hidden_size() != traits.decoder.width)
    throw_error(ErrorCode::invalid_argument, "embedding {}: expected rows of {} columns, got {}", quoted(embedding),
                traits.decoder.width, embedding.hidden_size());
  // Models of two families may agree in width and placeholder.
  const std::string& family = embedding.info().model_family;
  if (!family.empty() && family != traits.family)
    throw_error(ErrorCode::invalid_argument, "embedding {}: expected rows made for this {} model, got ones made for {}",
                quoted(embedding), traits.family, quote_json(family));
  const int64_t placeholder = embedding.info().placeholder_id;
  const auto& known = traits.placeholder_tokens;
  if (placeholder >= 0 && std::find(known.begin(), known.end(), placeholder) == known.end())
    throw_error(ErrorCode::invalid_argument,
                "embedding {}: expected rows made for this {} model, with placeholder id {}, got {}", quoted(embedding),
                traits.family, fmt::join(known, " or "), placeholder);
}

/// Neighbouring ids of one embedding in a prompt.
struct Stretch {
  const MMEmbedding* embedding;
  int64_t begin;  ///< among the ids
  int64_t row;    ///< of the first id
  int64_t count;
};

/// Where the rows of embeddings stand. Throws for embeddings that don't fit and ids that nobody has.
std::vector<Stretch> find_stretches(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings,
                                    const arch::TextTraits& traits) {
  std::vector<const MMEmbedding*> by_id;
  for (const MMEmbedding& embedding : embeddings) {
    check_embedding(embedding, traits);
    by_id.push_back(&embedding);
  }
  std::sort(by_id.begin(), by_id.end(), [](const auto* a, const auto* b) { return a->first_id() < b->first_id(); });

  std::vector<Stretch> result;
  for (size_t i = 0; i < ids.size(); ++i) {
    const int64_t id = ids[i];
    if (id >= 0 && id < traits.decoder.vocabulary) continue;
    const auto token = static_cast<int64_t>(i);
    auto place = std::upper_bound(by_id.begin(), by_id.end(), id,
                                  [](int64_t wanted, const MMEmbedding* e) { return wanted < e->first_id(); });
    if (place == by_id.begin() || id - (*--place)->first_id() >= (*place)->length())
      throw_error(ErrorCode::invalid_argument,
                  "id {} at {}: expected one of the vocabulary, 0 to {}, or of the {} embeddings given", id, i,
                  traits.decoder.vocabulary - 1, embeddings.size());
    const int64_t row = id - (*place)->first_id();
    const bool goes_on = !result.empty() && result.back().embedding == *place &&
                         result.back().begin + result.back().count == token &&
                         result.back().row + result.back().count == row;
    if (goes_on)
      ++result.back().count;
    else
      result.push_back({*place, token, row, 1});
  }
  return result;
}

/// The part of a stretch that has places on a grid; rows of special tokens (TokenLayout::exllamav2) are text.
std::vector<arch::VisionRun> vision_runs(const std::vector<Stretch>& stretches) {
  std::vector<arch::VisionRun> runs;
  for (const Stretch& stretch : stretches) {
    const MMEmbedding& embedding = *stretch.embedding;
    const int64_t first = embedding.info().pre_tokens;
    const int64_t last = embedding.length() - embedding.info().post_tokens;
    const int64_t begin = std::max(stretch.row, first);
    const int64_t end = std::min(stretch.row + stretch.count, last);
    if (begin >= end) continue;
    const int64_t token = stretch.begin + begin - stretch.row;
    runs.push_back({.tokens = {token, token + end - begin},
                    .first_row = begin - first,
                    .all_rows = last - first,
                    .grid = embedding.grid(),
                    .seconds_per_slot = embedding.info().seconds_per_slot,
                    .name = quoted(embedding)});
  }
  return runs;
}

at::Tensor to_tensor(std::span<const int64_t> values) {
  at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<int64_t>());
  return result;
}

}  // namespace

TextModel::Impl::Prompt TextModel::Impl::prepare(std::span<const int64_t> ids,
                                                 std::span<const MMEmbedding> embeddings) const {
  if (ids.empty()) throw_error(ErrorCode::invalid_argument, "prompt: expected at least one id, got none");
  const auto tokens = static_cast<int64_t>(ids.size());
  if (tokens > traits().max_positions)
    throw_error(ErrorCode::limit_exceeded, "prompt: expected at most {} ids (max_position_embeddings), got {}",
                traits().max_positions, tokens);
  const c10::InferenceMode guard;
  return with_torch_errors("prompt", [&] {
    const std::vector<arch::VisionRun> runs = vision_runs(find_stretches(ids, embeddings, traits()));
    return Prompt{.ids = {ids.begin(), ids.end()},
                  .positions = architecture->positions(tokens, runs),
                  .blocks = architecture->blocks(ids, runs),
                  .embeddings = {embeddings.begin(), embeddings.end()}};
  });
}

at::Tensor TextModel::Impl::rows(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings) const {
  const std::vector<Stretch> stretches = find_stretches(ids, embeddings, traits());
  std::vector<int64_t> known(ids.begin(), ids.end());
  for (const Stretch& stretch : stretches)
    std::fill_n(known.begin() + stretch.begin, stretch.count, 0);  // any id: the row is overwritten
  const c10::InferenceMode guard;
  const c10::DeviceGuard device_guard(to_torch_device(device));
  return with_torch_errors("prompt", [&] {
    const at::Tensor result = decoder->embed(to_tensor(known));
    for (const Stretch& stretch : stretches)
      result.narrow(0, stretch.begin, stretch.count)
          .copy_(to_torch(stretch.embedding->embeddings()).narrow(0, stretch.row, stretch.count));
    return result;
  });
}

TextModel::Impl::Run TextModel::Impl::prefill(const Prompt& prompt, int64_t slot, int64_t begin, int64_t end,
                                              Logits logits) const {
  const std::span ids = std::span(prompt.ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  return {.slot = slot,
          .begin = begin,
          .ids = {},
          .rows = rows(ids, prompt.embeddings),
          .positions = prompt.positions.narrow(1, begin, end - begin),
          .blocks = prompt.blocks,
          .logits = logits};
}

TextModel::Impl::Run TextModel::Impl::next(const Prompt& prompt, int64_t slot, int64_t generated, int64_t id) {
  const c10::InferenceMode guard;
  return {.slot = slot,
          .begin = prompt.size() + generated,
          .ids = {id},
          .rows = {},
          .positions = prompt.positions.narrow(1, prompt.size() - 1, 1) + (generated + 1),
          .blocks = {},
          .logits = Logits::last};
}

int64_t TextModel::Impl::cut_before(const Prompt& prompt, int64_t begin, int64_t wanted) {
  for (const nn::TokenRange& block : prompt.blocks)
    if (block.begin < wanted && wanted < block.end) return block.begin > begin ? block.begin : block.end;
  return wanted;
}

}  // namespace oriel
