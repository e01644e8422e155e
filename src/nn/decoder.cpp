#include "nn/decoder.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scalar_tensor.h>

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.hpp"
#include "ops/decode.hpp"
#include "ops/norm.hpp"
#ifdef ORIEL_CUDA
#include "nn/cuda/decoder_graphs.hpp"
#endif

namespace oriel::nn {

/// What all layers of one forward share.
struct Decoder::Batch {
  std::vector<DecoderRun> runs;
  std::vector<int64_t> first;                                  ///< where each run begins among the packed tokens
  std::vector<ops::Rotary> rotaries;                           ///< one a RotarySpec, in the dtype
  std::map<int64_t, std::vector<ops::Visibility>> visibility;  ///< by window, of each run
  const KvCache* cache = nullptr;
  at::Tensor places;           ///< int64 [tokens]: slot * capacity + index of each token; undefined for one run
  bool single_tokens = false;  ///< every run is one token: they are attended together
  ops::SlotQueries queries;    ///< then
  // Of a step on the device, which has none of the above but the cache:
  std::vector<at::Tensor> turns;  ///< one a RotarySpec, of ops::token_turns
  at::Tensor device_places;       ///< int64 [2, tokens] of ops::CachedTokens
};

namespace {

at::Tensor to_tensor(const std::vector<int64_t>& values, c10::Device device) {
  at::Tensor result = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), result.mutable_data_ptr<int64_t>());
  return result.to(device);
}

void check_run(const DecoderRun& run, const KvCache* cache) {
  const bool fits = cache == nullptr ? run.begin == 0
                                     : run.slot >= 0 && run.slot < cache->shape().slots && run.begin >= 0 &&
                                           run.begin <= cache->shape().capacity - run.tokens;
  if (run.tokens < 1 || !fits)
    throw_error(ErrorCode::internal, "decoder: {} tokens from {} do not fit slot {} of the cache", run.tokens,
                run.begin, run.slot);
}

}  // namespace

Decoder::Decoder(DecoderSpec spec, DecoderWeights weights) : spec_(std::move(spec)), weights_(std::move(weights)) {
  for (DecoderLayerWeights& layer : weights_.layers)
    layer.gated = ops::GatedLinear(std::exchange(layer.gate, {}), std::exchange(layer.up, {}));
  const at::Tensor& table = weights_.embeddings;
  if (spec_.embedding_scale != 1)
    embedding_scale_ = at::scalar_tensor(spec_.embedding_scale, at::kFloat).to(table.device(), table.scalar_type());
  for (const RotarySpec& rotary : spec_.rotaries)
    turns_.push_back({rotary.frequencies.to(table.device()),
                      rotary.axes.empty() ? at::Tensor() : to_tensor(rotary.axes, table.device())});
}

at::Tensor Decoder::embed(const at::Tensor& ids) const {
  const at::Tensor rows = weights_.embeddings.index_select(0, ids.to(weights_.embeddings.device()));
  return embedding_scale_.defined() ? rows * embedding_scale_ : rows;
}

at::Tensor Decoder::forward(at::Tensor rows, const at::Tensor& positions, std::span<const DecoderRun> runs,
                            const KvCache* cache) const {
  return layers(std::move(rows), make_batch(positions, runs, cache));
}

/// hidden [tokens, width]
at::Tensor Decoder::layers(at::Tensor hidden, const Batch& batch) const {
  for (size_t layer = 0; layer < weights_.layers.size(); ++layer) {
    // Statements of their own, so that what one half was given and needed is gone before the other begins.
    hidden = attend(std::move(hidden), batch, layer);
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
  const at::Tensor& table = weights_.embeddings;
  const ops::DecodeShape shape{spec_.heads, spec_.kv_heads, spec_.head_dim};
  if (!ops::has_decode_kernels(shape, table.scalar_type(), table.device()))
    return logits(forward(embed(to_tensor({ids.begin(), ids.end()}, at::kCPU)), positions, runs, &cache));
#ifdef ORIEL_CUDA
  const auto tokens = static_cast<int64_t>(runs.size());
  std::vector<int64_t> input(ids.begin(), ids.end());
  for (const DecoderRun& run : runs) {
    check_run(run, &cache);
    input.push_back(run.slot);
  }
  for (const DecoderRun& run : runs) input.push_back(run.begin + run.tokens);
  const at::Tensor rows = at::cat({to_tensor(input, at::kCPU).view({3, tokens}), positions});
  std::shared_ptr<DecoderGraphs>& graphs = cache.graphs();
  if (!graphs || graphs->owner() != this) graphs = std::make_shared<DecoderGraphs>(this, table.device());
  return graphs->run(rows, [&](const at::Tensor& on_device) { return step_on_device(on_device, cache); });
#else
  throw_error(ErrorCode::internal, "decoder: expected no kernels in a build without CUDA");
#endif
}

at::Tensor Decoder::step_on_device(const at::Tensor& input, const KvCache& cache) const {
  Batch batch;
  batch.cache = &cache;
  batch.device_places = input.narrow(0, 1, 2);
  const at::Tensor positions = input.narrow(0, 3, input.size(0) - 3);
  for (const Turn& turn : turns_) batch.turns.push_back(ops::token_turns(positions, turn.frequencies, turn.axes));
  return logits(layers(embed(input[0]), batch));
}

Decoder::Batch Decoder::make_batch(const at::Tensor& positions, std::span<const DecoderRun> runs,
                                   const KvCache* cache) const {
  const c10::Device device = weights_.embeddings.device();
  const at::ScalarType dtype = weights_.embeddings.scalar_type();
  Batch batch;
  batch.runs.assign(runs.begin(), runs.end());
  batch.cache = cache;
  std::vector<int64_t> places, slots, lengths;
  int64_t tokens = 0;
  for (const DecoderRun& run : runs) {
    check_run(run, cache);
    batch.first.push_back(tokens);
    tokens += run.tokens;
    slots.push_back(run.slot);
    lengths.push_back(run.begin + run.tokens);
    for (int64_t i = run.begin; cache != nullptr && i < run.begin + run.tokens; ++i)
      places.push_back(run.slot * cache->shape().capacity + i);
  }
  for (const Turn& turn : turns_) {
    const ops::Rotary wide = ops::token_rotary(positions, turn.frequencies, turn.axes);
    batch.rotaries.push_back({wide.cos.to(dtype), wide.sin.to(dtype), {}});
  }
  batch.single_tokens = cache != nullptr && tokens == static_cast<int64_t>(runs.size());
  if (cache != nullptr && runs.size() > 1) batch.places = to_tensor(places, device);
  if (batch.single_tokens) {
    batch.queries = ops::make_slot_queries(std::move(slots), std::move(lengths), device);
    return batch;
  }
  for (const DecoderLayerSpec& layer : spec_.layers) {
    std::vector<ops::Visibility>& seen = batch.visibility[layer.window];
    if (!seen.empty()) continue;
    for (const DecoderRun& run : runs)
      seen.push_back(ops::make_visibility(run.begin, run.tokens, layer.window, run.blocks, device));
  }
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
  const at::Tensor attended =
      batch.device_places.defined() ? attention_on_device(qkv, batch, layer) : rotate_and_attend(qkv, batch, layer);
  if (!spec_.sandwich_norms) return weights.proj.add_to(hidden, attended);
  return add_norm(hidden, weights.proj(attended), weights.attention_out_norm);
}

at::Tensor Decoder::rotate_and_attend(const at::Tensor& qkv, const Batch& batch, size_t layer) const {
  const DecoderLayerWeights& weights = weights_.layers[layer];
  const ops::Rotary& rotary = batch.rotaries[static_cast<size_t>(spec_.layers[layer].rotary)];
  const int64_t rotated = spec_.heads + spec_.kv_heads;
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
  return attention(q, k, qkv.narrow(1, rotated, spec_.kv_heads), batch, layer);
}

at::Tensor Decoder::attention_on_device(const at::Tensor& qkv, const Batch& batch, size_t layer) const {
  const DecoderLayerWeights& weights = weights_.layers[layer];
  const LayerCache cache = batch.cache->layer(static_cast<int64_t>(layer));
  const ops::CachedTokens cached{cache.keys, cache.values, batch.device_places};
  const ops::HeadNorms norms{weights.query_norm, weights.key_norm, spec_.norm_eps,
                             spec_.norm == DecoderNorm::rms_norm_offset};
  const auto turns = static_cast<size_t>(spec_.layers[layer].rotary);
  ops::rotate_and_store(qkv, batch.turns[turns], spec_.query_key_norms ? norms : ops::HeadNorms(), spec_.heads, cached);
  return ops::decode_attention(qkv, spec_.heads, cached, spec_.layers[layer].window, spec_.attention_scale);
}

/// q [tokens, heads, head_dim], k and v [tokens, kv_heads, head_dim] -> [tokens, heads * head_dim].
at::Tensor Decoder::attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Batch& batch,
                              size_t layer) const {
  const int64_t window = spec_.layers[layer].window;
  LayerCache cached;
  if (batch.cache != nullptr) {
    cached = batch.cache->layer(static_cast<int64_t>(layer));
    const auto store = [&](const at::Tensor& all, const at::Tensor& fresh) {
      const DecoderRun& run = batch.runs.front();
      if (batch.places.defined())
        all.view({-1, spec_.kv_heads, spec_.head_dim}).index_copy_(0, batch.places, fresh);
      else
        all.select(0, run.slot).narrow(0, run.begin, run.tokens).copy_(fresh);
    };
    store(cached.keys, k);
    store(cached.values, v);
  }
  if (batch.single_tokens)
    return ops::slot_attention(q, cached.keys, cached.values, batch.queries, window, spec_.attention_scale);

  const std::vector<ops::Visibility>& visibility = batch.visibility.at(window);
  const auto attend_run = [&](size_t i) {
    const DecoderRun& run = batch.runs[i];
    const auto own = [&](const at::Tensor& x) { return x.narrow(0, batch.first[i], run.tokens); };
    const auto known = [&](const at::Tensor& all, const at::Tensor& fresh) {
      return batch.cache == nullptr ? own(fresh) : all.select(0, run.slot);
    };
    return ops::causal_attention(own(q), known(cached.keys, k), known(cached.values, v), visibility[i],
                                 spec_.attention_scale);
  };
  if (batch.runs.size() == 1) return attend_run(0);
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  for (size_t i = 0; i < batch.runs.size(); ++i)
    out.narrow(0, batch.first[i], batch.runs[i].tokens).copy_(attend_run(i));
  return out;
}

at::Tensor Decoder::mlp(at::Tensor hidden, const DecoderLayerWeights& weights) const {
  at::Tensor normed = norm(hidden, weights.mlp_norm);
  const at::Tensor middle = weights.gated(normed, spec_.activation);
  normed.reset();
  if (!spec_.sandwich_norms) return weights.down.add_to(hidden, middle);
  return add_norm(hidden, weights.down(middle), weights.mlp_out_norm);
}

}  // namespace oriel::nn
