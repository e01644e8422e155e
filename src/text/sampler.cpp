#include "text/sampler.hpp"

#include <algorithm>
#include <array>
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

/// Of settings that change scores: so far from float's largest number that no sum of them becomes infinite.
constexpr double largest_setting = 1e6;
constexpr double largest_dry_penalty = 1e30;

void check_bias(const SamplerSettings& settings, int64_t vocabulary) {
  for (const auto& [id, bias] : settings.logit_bias) {
    if (id < 0 || id >= vocabulary)
      throw_error(ErrorCode::invalid_argument, "SamplerSettings::logit_bias: expected ids of 0 to {}, got {}",
                  vocabulary - 1, id);
    if (bias != -std::numeric_limits<double>::infinity() && !(std::abs(bias) <= largest_setting))
      throw_error(ErrorCode::invalid_argument,
                  "SamplerSettings::logit_bias: expected -infinity or a number from -1e+06 to 1e+06 for id {}, got {}",
                  id, bias);
  }
}

/// In lanes, since each comparison of one chain would wait for the one before.
float largest_of(std::span<const float> scores) {
  std::array<float, 16> lanes;
  lanes.fill(forbidden_score);
  size_t i = 0;
  for (; i + lanes.size() <= scores.size(); i += lanes.size())
    for (size_t lane = 0; lane < lanes.size(); ++lane)
      lanes[lane] = lanes[lane] < scores[i + lane] ? scores[i + lane] : lanes[lane];
  float largest = *std::max_element(lanes.begin(), lanes.end());
  for (; i < scores.size(); ++i) largest = std::max(largest, scores[i]);
  return largest;
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
/// stay in order of id. A part of what is in question at a time is either kept or all that is left, unsorted: first a
/// small one, since few of many are kept as a rule, then halves.
template <typename Rank>
void keep_mass(std::vector<Candidate>& candidates, double mass, const Rank& rank) {
  struct Entry {
    double rank;
    size_t place;
  };
  std::vector<Entry> entries;
  entries.reserve(candidates.size());
  for (const Candidate& candidate : candidates) entries.push_back({rank(candidate), entries.size()});
  const auto is_before = [](const Entry& a, const Entry& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.place < b.place;
  };
  double sum = 0;  // of what stands before `begin`
  auto begin = entries.begin();
  auto end = entries.end();
  for (std::ptrdiff_t part = 16; end - begin > 16; part = 2) {
    const auto middle = begin + (end - begin) / part;
    std::nth_element(begin, middle, end, is_before);
    double upper = 0;
    for (auto entry = begin; entry != middle; ++entry) upper += candidates[entry->place].probability;
    if (sum + upper >= mass) {
      end = middle;
    } else {
      sum += upper;
      begin = middle;
    }
  }
  std::sort(begin, end, is_before);
  while (begin != end && (begin == entries.begin() || sum < mass)) sum += candidates[(begin++)->place].probability;

  std::vector<bool> is_kept(candidates.size());
  for (auto entry = entries.begin(); entry != begin; ++entry) is_kept[entry->place] = true;
  size_t kept = 0;
  for (size_t i = 0; i < candidates.size(); ++i)
    if (is_kept[i]) candidates[kept++] = candidates[i];
  candidates.resize(kept);
}

/// The k-th largest, in one pass: what is below the k-th largest so far is only compared.
float kth_largest(std::span<const float> scores, size_t k) {
  std::vector<float> best;
  best.reserve(2 * k + 64);
  float least = forbidden_score;
  const auto keep_k = [&] {
    std::nth_element(best.begin(), best.begin() + static_cast<std::ptrdiff_t>(k - 1), best.end(), std::greater<>());
    best.resize(k);
    least = best.back();
  };
  for (const float score : scores) {
    if (score <= least && best.size() >= k) continue;
    best.push_back(score);
    if (best.size() == best.capacity()) keep_k();
  }
  keep_k();
  return least;
}

/// The ids of scores from `least` on, none of them forbidden.
std::vector<Candidate> gather(std::span<const float> scores, float least) {
  std::vector<Candidate> result;
  if (least == forbidden_score) result.reserve(scores.size());
  for (size_t id = 0; id < scores.size(); ++id)
    if (scores[id] >= least && scores[id] != forbidden_score)
      result.push_back({static_cast<int64_t>(id), scores[id], 0});
  return result;
}

/// TopKLogitsWarper: what equals the k-th is kept too.
std::vector<Candidate> top_k(std::span<const float> scores, int64_t k) {
  const bool keeps_all = k == 0 || std::cmp_greater_equal(k, scores.size());
  return gather(scores, keeps_all ? forbidden_score : kth_largest(scores, static_cast<size_t>(k)));
}

double sum_of_exponentials(std::span<const float> scores) {
  double sum = 0;
  for (const float score : scores) sum += std::exp(score);
  return sum;
}

double by_score(const Candidate& candidate) { return candidate.score; }

/// TopPLogitsWarper over a whole vocabulary, whose largest score is 0. Only what may be kept is looked at closely:
/// scores down to a bound, which falls until they hold the mass.
std::vector<Candidate> top_p(std::span<const float> scores, double p) {
  const double sum = sum_of_exponentials(scores);
  for (float least = -4;; least = least > -100 ? 2 * least : forbidden_score) {  // below, exp gives zeros
    std::vector<Candidate> left = gather(scores, least);
    double mass = 0;
    for (Candidate& candidate : left) mass += candidate.probability = std::exp(candidate.score) / sum;
    if (mass < p && least != forbidden_score) continue;
    keep_mass(left, p, by_score);
    return left;
  }
}

/// TopPLogitsWarper: an id goes if the more probable ones reach p without it.
void keep_top_p(std::vector<Candidate>& candidates, double p) {
  if (p >= 1) return;
  set_probabilities(candidates);
  keep_mass(candidates, p, by_score);
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
  std::vector<double> logs;
  logs.reserve(candidates.size());
  double entropy = 0;
  for (const Candidate& candidate : candidates) {
    logs.push_back(std::log(candidate.probability));
    entropy -= candidate.probability * logs.back();
  }
  keep_mass(candidates, mass, [&](const Candidate& candidate) {
    return -std::abs(-logs[static_cast<size_t>(&candidate - candidates.data())] - entropy);
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
  const auto in = [](double value, double low, double high) { return value >= low && value <= high; };
  check(in(s.temperature, 0, largest_setting), "temperature", "a number from 0 to 1e+06", s.temperature);
  check(in(s.repetition_penalty, 1 / largest_setting, largest_setting), "repetition_penalty",
        "a number from 1e-06 to 1e+06", s.repetition_penalty);
  check(in(s.frequency_penalty, -largest_setting, largest_setting), "frequency_penalty",
        "a number from -1e+06 to 1e+06", s.frequency_penalty);
  check(in(s.presence_penalty, -largest_setting, largest_setting), "presence_penalty", "a number from -1e+06 to 1e+06",
        s.presence_penalty);
  check(in(s.dry_multiplier, 0, largest_setting), "dry_multiplier", "a number from 0 to 1e+06", s.dry_multiplier);
  check(in(s.dry_base, 1, largest_setting), "dry_base", "a number from 1 to 1e+06", s.dry_base);
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
  const float largest = largest_of(logits);
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
    scores_.assign(logits.begin(), logits.end());
    penalise(scores_, forbidden);
    const size_t best = argmax(scores_);
    if (scores_[best] == forbidden_score) throw_nothing_left();
    return choice(static_cast<int64_t>(best));
  }
  std::vector<Candidate> left = candidates(logits, forbidden, scores_);
  if (settings_.xtc_probability > 0 && uniform() < settings_.xtc_probability) {
    exclude_top_choices(left, settings_.xtc_threshold);
    set_probabilities(left);
  }
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
  std::vector<float> scores;
  return candidates(logits, forbidden, scores);
}

std::vector<Candidate> Sampler::candidates(std::span<const float> logits, std::span<const int64_t> forbidden,
                                           std::vector<float>& scores) const {
  scores.assign(logits.begin(), logits.end());
  penalise(scores, forbidden);
  const float largest = largest_of(scores);
  if (largest == forbidden_score) throw_nothing_left();
  const auto temperature = static_cast<float>(settings_.temperature);
  for (float& score : scores) score = score == largest ? 0 : (score - largest) / temperature;

  const bool is_cut_by_p = settings_.top_k == 0 && settings_.top_p < 1;
  std::vector<Candidate> left = is_cut_by_p ? top_p(scores, settings_.top_p) : top_k(scores, settings_.top_k);
  if (!is_cut_by_p) keep_top_p(left, settings_.top_p);
  keep_min_p(left, settings_.min_p);
  keep_typical(left, settings_.typical_p);
  set_probabilities(left);
  return left;
}

std::vector<float> Sampler::penalised(std::span<const float> logits, std::span<const int64_t> forbidden) const {
  std::vector<float> scores(logits.begin(), logits.end());
  penalise(scores, forbidden);
  return scores;
}

void Sampler::penalise(std::span<float> scores, std::span<const int64_t> forbidden) const {
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
}

void Sampler::apply_dry(std::span<float> scores) const {
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
    scores[static_cast<size_t>(id)] -= static_cast<float>(std::min(penalty, largest_dry_penalty));
  }
}

double Sampler::uniform() { return static_cast<double>(random_() >> 11) * 0x1p-53; }

bool Sampler::is_breaker(int64_t id) const {
  return id < 0 || id >= vocabulary_ ||
         std::find(settings_.dry_breakers.begin(), settings_.dry_breakers.end(), id) != settings_.dry_breakers.end();
}

}  // namespace oriel::text
