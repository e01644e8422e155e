#pragma once
#include <cstdint>
#include <map>
#include <vector>

namespace oriel {

/// How the next token is chosen from the logits. The default is greedy: the plain argmax, the lowest id on a tie.
///
/// Everything applies in the order of the members from logit_bias on: what changes logits first, then temperature, then
/// what drops ids, then the draw. Where transformers' generate has a setting, it means the same here. Ids of embeddings
/// count as the placeholder of their prompt (repetition_penalty) and end a match (DRY).
struct SamplerSettings {
  double temperature = 0;  ///< logits are divided by it; 0: greedy, and nothing from top_k on matters

  std::map<int64_t, double> logit_bias = {};  ///< added; -infinity forbids an id
  double repetition_penalty = 1;  ///< of ids in prompt or answer: logits divided by it if positive, else multiplied
  double frequency_penalty = 0;   ///< subtracted for each time the id is in the answer
  double presence_penalty = 0;    ///< subtracted once if the id is in the answer
  /// DRY: an id that would continue a repetition of `match` ids loses multiplier * base^(match - allowed_length), if
  /// the match is at least allowed_length long. 0: off. Source: text-generation-webui, pull request 5677.
  double dry_multiplier = 0;
  double dry_base = 1.75;
  int64_t dry_allowed_length = 2;
  std::vector<int64_t> dry_breakers = {};  ///< ids that end a match

  int64_t top_k = 0;     ///< keep the k most probable; 0: all
  double top_p = 1;      ///< keep the most probable up to this sum, in (0, 1]
  double min_p = 0;      ///< drop what is less probable than this times the most probable, in [0, 1)
  double typical_p = 1;  ///< keep what surprises most typically up to this sum, in (0, 1]
  /// XTC: with this probability, of the ids with at least the threshold's probability all but the least probable are
  /// dropped. Source: text-generation-webui, pull request 6335.
  double xtc_probability = 0;
  double xtc_threshold = 0.1;  ///< in [0, 1]
};

}  // namespace oriel
