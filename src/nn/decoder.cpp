#include "nn/decoder.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "ops/causal_runs.hpp"
#include "ops/decode.hpp"
#include "ops/device.hpp"
#include "ops/norm.hpp"
#ifdef ORIEL_CUDA
#include "nn/cuda/decoder_graphs.hpp"
#endif

namespace oriel::nn {

/// Of the packed tokens of all runs, those whose results are asked for.
struct WantedTokens {
  bool are_all = true;
  int64_t count = 0;
  int64_t first = 0;  ///< where they lie side by side
  at::Tensor index;   ///< else: int64 [count], where they lie
  ops::CausalRuns runs;

  /// x [tokens, ...] -> [count, ...], aligned like any tensor, and without what is left out.
  [[nodiscard]] at::Tensor of(const at::Tensor& x) const {
    if (are_all) return x;
    return index.defined() ? x.index_select(0, index) : x.narrow(0, first, count).clone();
  }
};

/// What all layers of one forward share.
struct Decoder::Batch {
  const KvCache* cache = nullptr;
  bool single_tokens = false;  ///< every run is one token: they are attended together
  ops::CausalRuns runs;        ///< else
  WantedTokens wanted;         ///< what of them goes on behind the last layer's keys and values
  // By kernels:
  std::vector<at::Tensor> turns;  ///< one a RotarySpec, of ops::token_turns
  at::Tensor places;              ///< int64 [2, tokens] of ops::CachedTokens, where there is a cache
  // Elsewhere:
  std::vector<ops::Rotary> rotaries;  ///< one a RotarySpec, in the dtype
  at::Tensor rows;                    ///< int64 [tokens]: slot * capacity + index of each token, with a cache
  int64_t first_row = -1;             ///< the first of them, where all tokens are one run
  ops::SlotQueries queries;           ///< of single tokens
};

namespace {

at::Tensor to_tensor(const std::vector<int64_t>& values, c10::Device device) {
  at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<int64_t>());
  return ops::upload(result, device);
}

void check_run(const DecoderRun& run, const KvCache* cache) {
  const bool fits = cache == nullptr ? run.begin == 0
                                     : run.slot >= 0 && run.slot < cache->shape().slots && run.begin >= 0 &&
                                           run.begin <= cache->shape().capacity - run.tokens;
  if (run.tokens < 1 || !fits)
    throw_error(ErrorCode::internal, "decoder: {} tokens from {} do not fit slot {} of the cache", run.tokens,
                run.begin, run.slot);
  if (const int64_t wanted = run.wanted.value_or(0); wanted < 0 || wanted > run.tokens)
    throw_error(ErrorCode::internal, "decoder: {} of {} tokens are wanted", wanted, run.tokens);
}

/// int64 [tokens], of each token of the runs in order.
template <typename Of>
std::vector<int64_t> by_token(std::span<const DecoderRun> runs, const Of& of) {
  std::vector<int64_t> result;
  for (const DecoderRun& run : runs)
    for (int64_t i = run.begin; i < run.begin + run.tokens; ++i) result.push_back(of(run, i));
  return result;
}

/// int64 [2, tokens] on the CPU, as ops::CachedTokens has it on the GPU.
at::Tensor places_of(std::span<const DecoderRun> runs) {
  std::vector<int64_t> places = by_token(runs, [](const DecoderRun& run, int64_t) { return run.slot; });
  const std::vector<int64_t> lengths = by_token(runs, [](const DecoderRun&, int64_t i) { return i + 1; });
  places.insert(places.end(), lengths.begin(), lengths.end());
  return to_tensor(places, at::kCPU).view({2, -1});
}

/// Where the keys of the runs lie: in the cache, whose slots follow each other, or packed like the queries.
std::vector<ops::CausalRun> causal_runs(std::span<const DecoderRun> runs, const KvCache* cache) {
  std::vector<ops::CausalRun> result;
  int64_t tokens = 0;
  for (const DecoderRun& run : runs) {
    result.push_back({.query_begin = tokens,
                      .key_begin = cache == nullptr ? tokens : run.slot * cache->shape().capacity,
                      .queries = run.tokens,
                      .keys = run.begin + run.tokens,
                      .blocks = run.blocks});
    tokens += run.tokens;
  }
  return result;
}

/// All but the runs, which are `runs` cut down to the wanted queries.
WantedTokens wanted_tokens(std::span<const DecoderRun> all, std::vector<ops::CausalRun>& runs, c10::Device device) {
  WantedTokens wanted;
  std::vector<int64_t> index;
  std::vector<ops::CausalRun> kept;
  for (size_t i = 0; i < all.size(); ++i) {
    ops::CausalRun& run = runs[i];
    const int64_t count = all[i].wanted.value_or(run.queries);
    wanted.are_all = wanted.are_all && count == run.queries;
    for (int64_t k = run.queries - count; k < run.queries; ++k) index.push_back(run.query_begin + k);
    run.query_begin = wanted.count;
    run.queries = count;
    wanted.count += count;
    if (count > 0) kept.push_back(std::move(run));
  }
  runs = std::move(kept);
  if (index.empty()) return wanted;
  wanted.first = index.front();
  const bool side_by_side = index.back() - index.front() == wanted.count - 1;
  if (!wanted.are_all && !side_by_side) wanted.index = to_tensor(index, device);
  return wanted;
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, DecoderWeights weights) : spec_(std::move(spec)), weights_(std::move(weights)) {
  for (DecoderLayerWeights& layer : weights_.layers) {
    layer.gated = ops::GatedLinear(std::exchange(layer.gate, {}), std::exchange(layer.up, {}));
    layer.gated.expect_few_rows();
    for (const ops::Linear* linear : {&layer.qkv, &layer.proj, &layer.down}) linear->expect_few_rows();
  }
  weights_.head.expect_few_rows();
  const at::Tensor& table = weights_.embeddings;
  if (spec_.embedding_scale != 1)
    embedding_scale_ = at::scalar_tensor(spec_.embedding_scale, at::kFloat).to(table.device(), table.scalar_type());
  for (const RotarySpec& rotary : spec_.rotaries)
    turns_.push_back({rotary.frequencies.to(table.device()),
                      rotary.axes.empty() ? at::Tensor() : to_tensor(rotary.axes, table.device())});
  has_kernels_ = ops::has_decode_kernels(shape(), table.scalar_type(), table.device());
}

ops::DecodeShape Decoder::shape() const { return {spec_.heads, spec_.kv_heads, spec_.head_dim}; }

at::Tensor Decoder::embed(const at::Tensor& ids) const {
  const at::Tensor rows = weights_.embeddings.index_select(0, ops::upload(ids, weights_.embeddings.device()));
  return embedding_scale_.defined() ? rows * embedding_scale_ : rows;
}

at::Tensor Decoder::forward(at::Tensor rows, const at::Tensor& positions, std::span<const DecoderRun> runs,
                            const KvCache* cache) const {
  return layers(std::move(rows), make_batch(positions, runs, cache));
}

/// hidden [tokens, width] -> [wanted tokens, width]
at::Tensor Decoder::layers(at::Tensor hidden, const Batch& batch) const {
  for (size_t layer = 0; layer < weights_.layers.size(); ++layer) {
    // Statements of their own, so that what one half was given and needed is gone before the other begins.
    hidden = attend(std::move(hidden), batch, layer);
    if (hidden.size(0) == 0) break;
    hidden = mlp(std::move(hidden), weights_.layers[layer]);
  }
  return hidden;
}

at::Tensor Decoder::logits(const at::Tensor& hidden) const {
  return weights_.head(norm(hidden, weights_.norm)).to(at::kFloat);
}

KvCache::Shape Decoder::cache_shape(int64_t slots, int64_t capacity) const {
  return {.layers = spec_.depth(),
          .slots = slots,
          .capacity = capacity,
          .kv_heads = spec_.kv_heads,
          .head_dim = spec_.head_dim};
}

at::Tensor Decoder::step(std::span<const int64_t> ids, const at::Tensor& positions, std::span<const DecoderRun> runs,
                         KvCache& cache) const {
  if (!has_kernels_)
    return logits(forward(embed(to_tensor({ids.begin(), ids.end()}, at::kCPU)), positions, runs, &cache));
#ifdef ORIEL_CUDA
  for (const DecoderRun& run : runs) check_run(run, &cache);
  const at::Tensor own_ids = to_tensor({ids.begin(), ids.end()}, at::kCPU).unsqueeze(0);
  const at::Tensor rows = at::cat({own_ids, places_of(runs), positions});
  std::shared_ptr<DecoderGraphs>& graphs = cache.graphs();
  if (!graphs || graphs->owner() != identity_.get())
    graphs = std::make_shared<DecoderGraphs>(identity_, weights_.embeddings.device());
  return graphs->run(rows, [&](const at::Tensor& on_device) { return step_on_device(on_device, cache); });
#else
  throw_error(ErrorCode::internal, "decoder: expected no kernels in a build without CUDA");
#endif
}

at::Tensor Decoder::step_on_device(const at::Tensor& input, const KvCache& cache) const {
  Batch batch;
  batch.cache = &cache;
  batch.single_tokens = true;
  batch.places = input.narrow(0, 1, 2);
  batch.turns = turns(input.narrow(0, 3, input.size(0) - 3));
  return logits(layers(embed(input[0]), batch));
}

std::vector<at::Tensor> Decoder::turns(const at::Tensor& positions) const {
  std::vector<at::Tensor> result;
  for (const Turn& turn : turns_) result.push_back(ops::token_turns(positions, turn.frequencies, turn.axes));
  return result;
}

Decoder::Batch Decoder::make_batch(const at::Tensor& positions, std::span<const DecoderRun> runs,
                                   const KvCache* cache) const {
  const c10::Device device = weights_.embeddings.device();
  const at::ScalarType dtype = weights_.embeddings.scalar_type();
  for (const DecoderRun& run : runs) check_run(run, cache);
  Batch batch;
  batch.cache = cache;
  const auto is_one = [](const DecoderRun& run) { return run.tokens == 1; };
  batch.single_tokens = !has_kernels_ && cache != nullptr && std::all_of(runs.begin(), runs.end(), is_one);
  std::vector<ops::CausalRun> attended = causal_runs(runs, cache);
  std::vector<int64_t> windows;
  for (const DecoderLayerSpec& layer : spec_.layers) windows.push_back(layer.window);
  if (!batch.single_tokens) batch.runs = ops::make_causal_runs(attended, windows, shape(), dtype, device);
  batch.wanted = wanted_tokens(runs, attended, device);
  if (!batch.single_tokens && !batch.wanted.are_all && batch.wanted.count > 0)
    batch.wanted.runs = ops::make_causal_runs(std::move(attended), std::span(windows).last(1), shape(), dtype, device);
  if (has_kernels_) {
    const at::Tensor input = ops::upload(at::cat({places_of(runs), positions}), device);
    if (cache != nullptr) batch.places = input.narrow(0, 0, 2);
    batch.turns = turns(input.narrow(0, 2, input.size(0) - 2));
    return batch;
  }
  for (const Turn& turn : turns_) {
    const ops::Rotary wide = ops::token_rotary(positions, turn.frequencies, turn.axes);
    batch.rotaries.push_back({wide.cos.to(dtype), wide.sin.to(dtype), {}});
  }
  if (cache == nullptr) return batch;
  const int64_t capacity = cache->shape().capacity;
  batch.rows =
      to_tensor(by_token(runs, [&](const DecoderRun& run, int64_t i) { return run.slot * capacity + i; }), device);
  if (runs.size() == 1) batch.first_row = runs.front().slot * capacity + runs.front().begin;
  if (!batch.single_tokens) return batch;
  batch.queries = ops::make_slot_queries(by_token(runs, [](const DecoderRun& run, int64_t) { return run.slot; }),
                                         by_token(runs, [](const DecoderRun&, int64_t i) { return i + 1; }), device);
  return batch;
}

at::Tensor Decoder::norm(const at::Tensor& x, const at::Tensor& weight) const {
  return spec_.norm == DecoderNorm::rms_norm ? ops::rms_norm(x, weight, spec_.norm_eps)
                                             : ops::rms_norm_offset(x, weight, spec_.norm_eps);
}

at::Tensor Decoder::add_norm(const at::Tensor& residual, const at::Tensor& x, const at::Tensor& weight) const {
  return spec_.norm == DecoderNorm::rms_norm ? ops::add_rms_norm(residual, x, weight, spec_.norm_eps)
                                             : ops::add_rms_norm_offset(residual, x, weight, spec_.norm_eps);
}

at::Tensor Decoder::attend(at::Tensor hidden, const Batch& batch, size_t layer) const {
  const DecoderLayerWeights& weights = weights_.layers[layer];
  const at::Tensor qkv = weights.qkv(norm(hidden, weights.attention_norm))
                             .view({hidden.size(0), spec_.heads + 2 * spec_.kv_heads, spec_.head_dim});
  at::Tensor attended = has_kernels_ ? attention_by_kernels(qkv, batch, layer) : attention_by_ops(qkv, batch, layer);
  if (layer + 1 == weights_.layers.size()) {
    hidden = batch.wanted.of(hidden);
    if (hidden.size(0) == 0) return hidden;
    if (batch.single_tokens) attended = batch.wanted.of(attended);
  }
  if (!spec_.sandwich_norms) return weights.proj.add_to(hidden, attended);
  return add_norm(hidden, weights.proj(attended), weights.attention_out_norm);
}

at::Tensor Decoder::attention_by_kernels(const at::Tensor& qkv, const Batch& batch, size_t layer) const {
  const DecoderLayerWeights& weights = weights_.layers[layer];
  const DecoderLayerSpec& own = spec_.layers[layer];
  const LayerCache cache = batch.cache == nullptr ? LayerCache() : batch.cache->layer(static_cast<int64_t>(layer));
  const ops::CachedTokens cached{cache.keys, cache.values, batch.places};
  const ops::HeadNorms norms{weights.query_norm, weights.key_norm, spec_.norm_eps,
                             spec_.norm == DecoderNorm::rms_norm_offset};
  ops::rotate_and_store(qkv, batch.turns[static_cast<size_t>(own.rotary)],
                        spec_.query_key_norms ? norms : ops::HeadNorms(), spec_.heads, cached);
  if (batch.single_tokens) return ops::decode_attention(qkv, spec_.heads, cached, own.window, spec_.attention_scale);
  const int64_t rotated = spec_.heads + spec_.kv_heads;
  return attend_runs(qkv.narrow(1, 0, spec_.heads), qkv.narrow(1, spec_.heads, spec_.kv_heads),
                     qkv.narrow(1, rotated, spec_.kv_heads), batch, layer);
}

at::Tensor Decoder::attention_by_ops(const at::Tensor& qkv, const Batch& batch, size_t layer) const {
  const DecoderLayerWeights& weights = weights_.layers[layer];
  const ops::Rotary& rotary = batch.rotaries[static_cast<size_t>(spec_.layers[layer].rotary)];
  const int64_t rotated = spec_.heads + spec_.kv_heads;
  const at::Tensor v = qkv.narrow(1, rotated, spec_.kv_heads);
  at::Tensor q = qkv.narrow(1, 0, spec_.heads);
  at::Tensor k = qkv.narrow(1, spec_.heads, spec_.kv_heads);
  if (spec_.query_key_norms) {
    const auto by_head = [&](const at::Tensor& x, const at::Tensor& weight) {
      return norm(x.reshape({-1, spec_.head_dim}), weight).view(x.sizes());
    };
    q = by_head(q, weights.query_norm);
    k = by_head(k, weights.key_norm);
    ops::rotate_in_place(q, rotary, ops::RotaryPrecision::working);
    ops::rotate_in_place(k, rotary, ops::RotaryPrecision::working);
  } else {
    ops::rotate_in_place(qkv.narrow(1, 0, rotated), rotary, ops::RotaryPrecision::working);
  }
  if (batch.cache == nullptr) return attend_runs(q, k, v, batch, layer);
  const LayerCache cache = batch.cache->layer(static_cast<int64_t>(layer));
  const auto store = [&](const at::Tensor& all, const at::Tensor& fresh) {
    const at::Tensor rows = all.flatten(0, 1);
    if (batch.first_row >= 0)
      rows.narrow(0, batch.first_row, fresh.size(0)).copy_(fresh);
    else
      rows.index_copy_(0, batch.rows, fresh);
  };
  store(cache.keys, k);
  store(cache.values, v);
  if (!batch.single_tokens) return attend_runs(q, k, v, batch, layer);
  return ops::slot_attention(q, cache.keys, cache.values, batch.queries, spec_.layers[layer].window,
                             spec_.attention_scale);
}

at::Tensor Decoder::attend_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Batch& batch,
                                size_t layer) const {
  const bool is_cut = layer + 1 == weights_.layers.size() && !batch.wanted.are_all;
  if (is_cut && batch.wanted.count == 0) return {};
  const at::Tensor queries = is_cut ? batch.wanted.of(q) : q;
  const ops::CausalRuns& runs = is_cut ? batch.wanted.runs : batch.runs;
  const int64_t window = spec_.layers[layer].window;
  if (batch.cache == nullptr) return ops::causal_attention(queries, k, v, runs, window, spec_.attention_scale);
  const LayerCache cache = batch.cache->layer(static_cast<int64_t>(layer));
  return ops::causal_attention(queries, cache.keys.flatten(0, 1), cache.values.flatten(0, 1), runs, window,
                               spec_.attention_scale);
}

at::Tensor Decoder::mlp(at::Tensor hidden, const DecoderLayerWeights& weights) const {
  at::Tensor normed = norm(hidden, weights.mlp_norm);
  const at::Tensor middle = weights.gated(normed, spec_.activation);
  normed.reset();
  if (!spec_.sandwich_norms) return weights.down.add_to(hidden, middle);
  return add_norm(hidden, weights.down(middle), weights.mlp_out_norm);
}

}  // namespace oriel::nn
