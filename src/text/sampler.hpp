#pragma once
// From logits to the next id: penalties, filters, and a draw whose sequence is the same on every machine.
#include <cstdint>
#include <map>
#include <oriel/sampler_settings.hpp>
#include <random>
#include <span>
#include <vector>

namespace oriel::text {

/// Throws invalid_argument naming the field, its range and its value.
void check_settings(const SamplerSettings& settings, int64_t vocabulary);

/// Whether the settings ask for the argmax of the raw logits and nothing else.
[[nodiscard]] bool is_plain_greedy(const SamplerSettings& settings);

/// log(sum(exp(logits))): log_softmax is a logit less it. Throws internal if the logits hold NaN or infinity.
[[nodiscard]] double log_sum_exp(std::span<const float> logits);

struct Choice {
  int64_t id = 0;
  float logprob = 0;  ///< of the raw logits
};

/// An id that can be drawn.
struct Candidate {
  int64_t id = 0;
  float score = 0;         ///< logit after penalties and temperature, the largest being 0
  double probability = 0;  ///< among the candidates
};

/// The state of one job: which ids it has seen, and its random numbers (std::mt19937_64, whose sequence the standard
/// fixes; a number of [0, 1) from the upper 53 bits of each).
class Sampler {
 public:
  /// Settings must have passed check_settings.
  Sampler(SamplerSettings settings, int64_t vocabulary, uint64_t seed);

  /// Ids outside the vocabulary have no logit to penalise; for DRY they end a match.
  void add_prompt(std::span<const int64_t> ids);
  /// Ids that the repetition penalty counts although the prompt holds others in their place.
  void add_seen(std::span<const int64_t> ids);
  void add_answer(int64_t id);

  /// The next id of logits [vocabulary], never one of `forbidden`. Throws internal for logits that are not finite,
  /// invalid_argument if no id is left.
  [[nodiscard]] Choice choose(std::span<const float> logits, std::span<const int64_t> forbidden = {});
  /// What could be drawn, by ascending id, before XTC.
  [[nodiscard]] std::vector<Candidate> candidates(std::span<const float> logits,
                                                  std::span<const int64_t> forbidden = {}) const;
  /// Logits after bias, penalties and DRY.
  [[nodiscard]] std::vector<float> penalised(std::span<const float> logits,
                                             std::span<const int64_t> forbidden = {}) const;

 private:
  void penalise(std::span<float> scores, std::span<const int64_t> forbidden) const;
  void apply_dry(std::span<float> scores) const;
  /// candidates() by way of `scores`, whose room is kept from one id to the next: pages of fresh memory cost as much as
  /// the arithmetic of a large vocabulary.
  [[nodiscard]] std::vector<Candidate> candidates(std::span<const float> logits, std::span<const int64_t> forbidden,
                                                  std::vector<float>& scores) const;
  [[nodiscard]] double uniform();
  [[nodiscard]] bool is_breaker(int64_t id) const;

  SamplerSettings settings_;
  int64_t vocabulary_;
  std::mt19937_64 random_;
  std::vector<bool> is_seen_;                 // by id, of prompt and answer; empty without a repetition penalty
  std::map<int64_t, int64_t> answer_counts_;  // empty without frequency and presence penalties
  std::vector<int64_t> history_;              // prompt and answer; empty without DRY
  std::vector<float> scores_;                 // of the last choice
};

}  // namespace oriel::text
