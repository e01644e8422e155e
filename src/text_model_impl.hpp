#pragma once
// What a TextModel holds, and what the generator calls.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <oriel/text_model.hpp>
#include <span>
#include <string>
#include <vector>

#include "arch/text_architecture.hpp"
#include "nn/decoder.hpp"
#include "nn/kv_cache.hpp"

namespace oriel {

/// A prompt whose ids are all known, with everything that the model makes of them but rows. A value.
struct TextPrompt {
  std::vector<int64_t> ids;
  at::Tensor positions;                 ///< int64 [axes, n], on the CPU
  std::vector<nn::TokenRange> blocks;   ///< ranges of tokens that see each other in both directions, in order
  std::vector<MMEmbedding> embeddings;  ///< those given
  [[nodiscard]] int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

/// Which tokens of a run get logits.
enum class WantedLogits { none, last, all };

/// Neighbouring tokens of one sequence: a chunk of a prompt, or one new token.
struct TextRun {
  int64_t slot = 0;                    ///< of the cache
  int64_t begin = 0;                   ///< the first token's index: so many tokens the slot holds already
  std::vector<int64_t> ids;            ///< of the vocabulary, or
  at::Tensor rows;                     ///< [tokens, hidden] instead, if defined
  at::Tensor positions;                ///< int64 [axes, tokens], on the CPU
  std::vector<nn::TokenRange> blocks;  ///< of the sequence
  WantedLogits logits = WantedLogits::last;
  [[nodiscard]] int64_t tokens() const { return positions.size(1); }
};

/// Methods are safe from many threads, but a cache is of one thread at a time.
struct TextModel::Impl {
  std::unique_ptr<arch::TextArchitecture> architecture;
  std::optional<nn::Decoder> decoder;
  Device device;
  DType dtype = DType::float32;
  ContentHash fingerprint;
  int64_t weight_bytes = 0;
  std::vector<int64_t> stop_ids;
  double repetition_penalty = 1;

  using Prompt = TextPrompt;
  using Logits = WantedLogits;
  using Run = TextRun;

  /// Checks everything about a prompt: invalid_argument for one that is empty or holds an id that neither the
  /// vocabulary nor `embeddings` has, or rows that this model can't read; limit_exceeded for more ids than
  /// max_positions.
  [[nodiscard]] Prompt prepare(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings) const;
  /// [n, hidden] on the model's device; the same errors but for places and number.
  [[nodiscard]] at::Tensor rows(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings) const;

  /// Tokens [begin, end) of a prompt.
  [[nodiscard]] Run prefill(const Prompt& prompt, int64_t slot, int64_t begin, int64_t end, Logits logits) const;
  /// The new token number `generated` (from 0) behind a prompt, at the position where transformers' generate puts it:
  /// spec/text.md 3.
  [[nodiscard]] static Run next(const Prompt& prompt, int64_t slot, int64_t generated, int64_t id);

  /// The largest cut of a prompt in (begin, wanted] that lies inside no block; where there is none, the end of the
  /// block that is in the way. begin < wanted <= prompt.size(), and begin lies inside no block.
  [[nodiscard]] static int64_t cut_before(const Prompt& prompt, int64_t begin, int64_t wanted);

  /// Room for `slots` sequences of up to `capacity` tokens each. Throws out_of_memory, limit_exceeded.
  [[nodiscard]] nn::KvCache make_cache(int64_t slots, int64_t capacity) const;

  /// Runs all layers over all tokens of all runs, packed, and writes their keys and values to the cache. Logits
  /// float32 [wanted tokens, vocabulary] on the model's device, in the order of the runs; undefined if none are wanted.
  /// A slot may stand in one run only. A sequence's result depends on what runs beside it by rounding alone.
  [[nodiscard]] at::Tensor forward(std::span<const Run> runs, nn::KvCache& cache) const;
  /// The same for one whole prompt without a cache: logits of all tokens.
  [[nodiscard]] at::Tensor forward(const Prompt& prompt) const;

  [[nodiscard]] const arch::TextTraits& traits() const { return architecture->traits(); }
  void load_weights(const arch::ModelFiles& files, const TextLoadOptions& options);
  void read_generation_settings(const arch::ModelFiles& files);
};

/// The inside of a text model, for the generator and for tests.
struct TextModelAccess {
  using Impl = TextModel::Impl;
  [[nodiscard]] static const std::shared_ptr<const Impl>& get(const TextModel& model) { return model.impl_; }
};

}  // namespace oriel
