#include "text/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "core/error.hpp"

namespace oriel::text {
namespace {

constexpr float forbidden_score = -std::numeric_limits<float>::infinity();
constexpr size_t longest_dry_match = 50;  // the original's bound on the time that one id takes

void check(bool is_in_range, std::string_view field, std::string_view range, double value) {
  if (!is_in_range)
    throw_error(ErrorCode::invalid_argument, "SamplerSettings::{}: expected {}, got {}", field, range, value);
}

void check_bias(const SamplerSettings& settings, int64_t vocabulary) {
  for (const auto& [id, bias] : settings.logit_bias) {
    if (id < 0 || id >= vocabulary)
      throw_error(ErrorCode::invalid_argument, "SamplerSettings::logit_bias: expected ids of 0 to {}, got {}",
                  vocabulary - 1, id);
    if (std::isnan(bias) || bias == std::numeric_limits<double>::infinity())
      throw_error(ErrorCode::invalid_argument,
                  "SamplerSettings::logit_bias: expected a finite number or -infinity for id {}, got {}", id, bias);
  }
}

size_t argmax(std::span<const float> scores) {
  return static_cast<size_t>(std::max_element(scores.begin(), scores.end()) - scores.begin());
}

[[noreturn]] void throw_nothing_left() {
  throw_error(ErrorCode::invalid_argument,
              "sampler: expected an id that may follow, but logit_bias and min_new_tokens forbid all of them");
}

/// Softmax over what is left.
void set_probabilities(std::vector<Candidate>& candidates) {
  float largest = forbidden_score;
  for (const Candidate& candidate : candidates) largest = std::max(largest, candidate.score);
  double sum = 0;
  for (Candidate& candidate : candidates) {
    candidate.probability = std::exp(candidate.score - largest);
    sum += candidate.probability;
  }
  for (Candidate& candidate : candidates) candidate.probability /= sum;
}

/// Takes candidates by falling `rank` (of equal ones the lower id) until their sum reaches `mass`, at least one; they
/// stay in order of id. A heap, since few of a large vocabulary are taken as a rule.
template <typename Rank>
std::vector<Candidate> keep_mass(std::span<const Candidate> candidates, double mass, const Rank& rank) {
  std::vector<std::pair<double, size_t>> heap;  // rank, and how far from the end
  heap.reserve(candidates.size());
  for (size_t i = 0; i < candidates.size(); ++i) heap.emplace_back(rank(candidates[i]), candidates.size() - 1 - i);
  std::make_heap(heap.begin(), heap.end());
  std::vector<Candidate> kept;
  for (double sum = 0; !heap.empty() && (kept.empty() || sum < mass); heap.pop_back()) {
    std::pop_heap(heap.begin(), heap.end());
    kept.push_back(candidates[candidates.size() - 1 - heap.back().second]);
    sum += kept.back().probability;
  }
  std::sort(kept.begin(), kept.end(), [](const Candidate& a, const Candidate& b) { return a.id < b.id; });
  return kept;
}

/// TopKLogitsWarper: what equals the k-th is kept too.
void keep_top_k(std::vector<Candidate>& candidates, int64_t k) {
  if (k == 0 || std::cmp_greater_equal(k, candidates.size())) return;
  std::vector<float> scores;
  scores.reserve(candidates.size());
  for (const Candidate& candidate : candidates) scores.push_back(candidate.score);
  std::nth_element(scores.begin(), scores.begin() + (k - 1), scores.end(), std::greater<>());
  const float last = scores[static_cast<size_t>(k - 1)];
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.score < last; });
}

/// TopPLogitsWarper: an id goes if the more probable ones reach p without it.
void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1) return;
  set_probabilities(candidates);
  candidates = keep_mass(candidates, p, [](const Candidate& candidate) { return candidate.score; });
}

/// MinPLogitsWarper.
void keep_min_p(std::vector<Candidate>& candidates, double p) {
  if (p <= 0) return;
  set_probabilities(candidates);
  double largest = 0;
  for (const Candidate& candidate : candidates) largest = std::max(largest, candidate.probability);
  std::erase_if(candidates, [&](const Candidate& candidate) { return candidate.probability < p * largest; });
}

/// TypicalLogitsWarper (Meister et al., "Locally Typical Sampling"): those whose surprise is nearest to the entropy.
void keep_typical(std::vector<Candidate>& candidates, double mass) {
  if (mass >= 1) return;
  set_probabilities(candidates);
  std::erase_if(candidates, [](const Candidate& candidate) { return candidate.probability == 0; });
  double entropy = 0;
  for (const Candidate& candidate : candidates) entropy -= candidate.probability * std::log(candidate.probability);
  candidates = keep_mass(candidates, mass, [&](const Candidate& candidate) {
    return -std::abs(-std::log(candidate.probability) - entropy);
  });
}

/// XTC: of the candidates with at least `threshold`, all but the least probable go.
void exclude_top_choices(std::vector<Candidate>& candidates, double threshold) {
  set_probabilities(candidates);
  const Candidate* least = nullptr;
  for (const Candidate& candidate : candidates)
    if (candidate.probability >= threshold && (least == nullptr || candidate.probability <= least->probability))
      least = &candidate;
  if (least == nullptr) return;
  const int64_t kept = least->id;
  std::erase_if(candidates,
                [&](const Candidate& candidate) { return candidate.probability >= threshold && candidate.id != kept; });
}

}  // namespace

void check_settings(const SamplerSettings& settings, int64_t vocabulary) {
  const SamplerSettings& s = settings;
  const auto is_finite = [](double value) { return std::isfinite(value); };
  const auto in = [](double value, double low, double high) { return value >= low && value <= high; };
  check(is_finite(s.temperature) && s.temperature >= 0, "temperature", "a finite number from 0", s.temperature);
  check(is_finite(s.repetition_penalty) && s.repetition_penalty > 0, "repetition_penalty", "a finite number above 0",
        s.repetition_penalty);
  check(is_finite(s.frequency_penalty), "frequency_penalty", "a finite number", s.frequency_penalty);
  check(is_finite(s.presence_penalty), "presence_penalty", "a finite number", s.presence_penalty);
  check(is_finite(s.dry_multiplier) && s.dry_multiplier >= 0, "dry_multiplier", "a finite number from 0",
        s.dry_multiplier);
  check(is_finite(s.dry_base) && s.dry_base >= 1, "dry_base", "a finite number from 1", s.dry_base);
  check(s.dry_allowed_length >= 1, "dry_allowed_length", "1 or more", static_cast<double>(s.dry_allowed_length));
  check(s.top_k >= 0, "top_k", "0 or more", static_cast<double>(s.top_k));
  check(s.top_p > 0 && s.top_p <= 1, "top_p", "a number above 0 and up to 1", s.top_p);
  check(s.min_p >= 0 && s.min_p < 1, "min_p", "a number from 0 and below 1", s.min_p);
  check(s.typical_p > 0 && s.typical_p <= 1, "typical_p", "a number above 0 and up to 1", s.typical_p);
  check(in(s.xtc_probability, 0, 1), "xtc_probability", "a number from 0 to 1", s.xtc_probability);
  check(in(s.xtc_threshold, 0, 1), "xtc_threshold", "a number from 0 to 1", s.xtc_threshold);
  check_bias(settings, vocabulary);
}

bool is_plain_greedy(const SamplerSettings& settings) {
  return settings.temperature == 0 && settings.logit_bias.empty() && settings.repetition_penalty == 1 &&
         settings.frequency_penalty == 0 && settings.presence_penalty == 0 && settings.dry_multiplier == 0;
}

double log_sum_exp(std::span<const float> logits) {
  float largest = forbidden_score;
  for (const float logit : logits) largest = std::max(largest, logit);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  // NaN and infinity anywhere, and an empty row, show in the sum.
  if (!std::isfinite(sum) || sum == 0)
    throw_error(ErrorCode::internal, "logits: expected finite numbers, got NaN or infinity");
  return largest + std::log(sum);
}

Sampler::Sampler(SamplerSettings settings, int64_t vocabulary, uint64_t seed)
    : settings_(std::move(settings)), vocabulary_(vocabulary), random_(seed) {
  if (settings_.repetition_penalty != 1) is_seen_.resize(static_cast<size_t>(vocabulary));
}

void Sampler::add_prompt(std::span<const int64_t> ids) {
  add_seen(ids);
  if (settings_.dry_multiplier > 0) history_.insert(history_.end(), ids.begin(), ids.end());
}

void Sampler::add_seen(std::span<const int64_t> ids) {
  if (is_seen_.empty()) return;
  for (const int64_t id : ids)
    if (id >= 0 && id < vocabulary_) is_seen_[static_cast<size_t>(id)] = true;
}

void Sampler::add_answer(int64_t id) {
  add_prompt({&id, 1});
  if (settings_.frequency_penalty != 0 || settings_.presence_penalty != 0) ++answer_counts_[id];
}

Choice Sampler::choose(std::span<const float> logits, std::span<const int64_t> forbidden) {
  const double log_sum = log_sum_exp(logits);
  const auto choice = [&](int64_t id) {
    return Choice{id, static_cast<float>(logits[static_cast<size_t>(id)] - log_sum)};
  };
  if (settings_.temperature == 0) {
    const std::vector<float> scores = penalised(logits, forbidden);
    const size_t best = argmax(scores);
    if (scores[best] == forbidden_score) throw_nothing_left();
    return choice(static_cast<int64_t>(best));
  }
  std::vector<Candidate> left = candidates(logits, forbidden);
  if (settings_.xtc_probability > 0 && uniform() < settings_.xtc_probability)
    exclude_top_choices(left, settings_.xtc_threshold);
  set_probabilities(left);
  const double target = uniform();
  double sum = 0;
  int64_t drawn = -1;
  for (const Candidate& candidate : left) {
    if (candidate.probability == 0) continue;
    drawn = candidate.id;
    sum += candidate.probability;
    if (sum > target) break;
  }
  return choice(drawn);
}

std::vector<Candidate> Sampler::candidates(std::span<const float> logits, std::span<const int64_t> forbidden) const {
  const std::vector<float> scores = penalised(logits, forbidden);
  const float largest = scores[argmax(scores)];
  if (largest == forbidden_score) throw_nothing_left();
  const auto temperature = static_cast<float>(settings_.temperature);
  std::vector<Candidate> left;
  left.reserve(scores.size());
  for (size_t id = 0; id < scores.size(); ++id)
    if (scores[id] != forbidden_score)
      left.push_back({static_cast<int64_t>(id), scores[id] == largest ? 0 : (scores[id] - largest) / temperature, 0});
  keep_top_k(left, settings_.top_k);
  keep_top_p(left, settings_.top_p);
  keep_min_p(left, settings_.min_p);
  keep_typical(left, settings_.typical_p);
  set_probabilities(left);
  return left;
}

std::vector<float> Sampler::penalised(std::span<const float> logits, std::span<const int64_t> forbidden) const {
  std::vector<float> scores(logits.begin(), logits.end());
  for (const auto& [id, bias] : settings_.logit_bias) scores[static_cast<size_t>(id)] += static_cast<float>(bias);
  const auto penalty = static_cast<float>(settings_.repetition_penalty);
  for (size_t id = 0; id < is_seen_.size(); ++id)
    if (is_seen_[id]) scores[id] = scores[id] < 0 ? scores[id] * penalty : scores[id] / penalty;
  for (const auto& [id, count] : answer_counts_)
    scores[static_cast<size_t>(id)] -=
        static_cast<float>(settings_.frequency_penalty * static_cast<double>(count) + settings_.presence_penalty);
  if (settings_.dry_multiplier > 0) apply_dry(scores);
  for (const int64_t id : forbidden)
    if (id >= 0 && id < vocabulary_) scores[static_cast<size_t>(id)] = forbidden_score;
  return scores;
}

void Sampler::apply_dry(std::vector<float>& scores) const {
  const size_t length = history_.size();
  if (length < 2 || is_breaker(history_.back())) return;
  std::map<int64_t, size_t> longest_match;  // of the ids that would continue a repetition
  for (size_t i = 0; i + 1 < length; ++i) {
    const int64_t next = history_[i + 1];
    if (history_[i] != history_.back() || is_breaker(next)) continue;
    size_t match = 1;
    while (match < longest_dry_match && match <= i && history_[i - match] == history_[length - 1 - match] &&
           !is_breaker(history_[i - match]))
      ++match;
    size_t& longest = longest_match[next];
    longest = std::max(longest, match);
  }
  for (const auto& [id, match] : longest_match) {
    const int64_t excess = static_cast<int64_t>(match) - settings_.dry_allowed_length;
    if (excess < 0) continue;
    const double penalty = settings_.dry_multiplier * std::pow(settings_.dry_base, static_cast<double>(excess));
    scores[static_cast<size_t>(id)] -= static_cast<float>(penalty);
  }
}

double Sampler::uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

bool Sampler::is_breaker(int64_t id) const {
  return id < 0 || id >= vocabulary_ ||
         std::find(settings_.dry_breakers.begin(), settings_.dry_breakers.end(), id) != settings_.dry_breakers.end();
}

}  // namespace oriel::text
