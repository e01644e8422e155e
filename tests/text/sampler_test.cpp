#include "text/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>
#include <string>

#include "core/expect_error.hpp"
#include "core/safetensors.hpp"

namespace oriel::text {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

/// tests/data/text/sampler.safetensors, as tests/goldens/make_sampler_goldens.py writes it.
template <typename Value>
std::vector<std::vector<Value>> golden_rows(const std::string& name) {
  const auto file = SafetensorsFile::open(ORIEL_TEST_DATA "/text/sampler.safetensors");
  const TensorInfo* info = file.find(name);
  if (info == nullptr) throw std::runtime_error("sampler.safetensors has no " + name);
  const auto bytes = file.bytes(*info);
  std::vector<std::vector<Value>> rows(static_cast<size_t>(info->shape[0]));
  const size_t row_bytes = bytes.size() / rows.size();
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].resize(row_bytes / sizeof(Value));
    std::memcpy(rows[i].data(), bytes.data() + i * row_bytes, row_bytes);
  }
  return rows;
}

std::vector<int64_t> ids_of(const std::vector<Candidate>& candidates) {
  std::vector<int64_t> ids;
  for (const Candidate& candidate : candidates) ids.push_back(candidate.id);
  return ids;
}

Sampler make_sampler(const SamplerSettings& settings, size_t vocabulary, uint64_t seed = 0) {
  check_settings(settings, static_cast<int64_t>(vocabulary));
  return {settings, static_cast<int64_t>(vocabulary), seed};
}

/// What is left of `logits`, and with which probability.
std::vector<Candidate> left_of(const std::vector<float>& logits, const SamplerSettings& settings) {
  return make_sampler(settings, logits.size()).candidates(logits);
}

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

void expect_golden(const std::string& name, const SamplerSettings& settings) {
  const auto logits = golden_rows<float>("logits");
  const auto expected = golden_rows<float>(name);
  for (size_t row = 0; row < logits.size(); ++row) {
    std::vector<float> found(logits[row].size(), 0.0F);
    for (const Candidate& candidate : left_of(logits[row], settings))
      found[static_cast<size_t>(candidate.id)] = static_cast<float>(candidate.probability);
    for (size_t id = 0; id < found.size(); ++id) {
      EXPECT_EQ(found[id] > 0, expected[row][id] > 0) << name << " row " << row << " id " << id;
      // Both sides are sums of float32 exponentials: a few units in the last place.
      EXPECT_NEAR(found[id], expected[row][id], 2e-6) << name << " row " << row << " id " << id;
    }
  }
}

TEST(Sampler, TemperatureIsTransformers) { expect_golden("temperature", {.temperature = 0.7}); }
TEST(Sampler, TopKIsTransformers) { expect_golden("top_k", {.temperature = 1, .top_k = 5}); }
TEST(Sampler, TopPIsTransformers) { expect_golden("top_p", {.temperature = 1, .top_p = 0.8}); }
TEST(Sampler, MinPIsTransformers) { expect_golden("min_p", {.temperature = 1, .min_p = 0.1}); }
TEST(Sampler, TypicalIsTransformers) { expect_golden("typical", {.temperature = 1, .typical_p = 0.6}); }
TEST(Sampler, AllFiltersInTransformersOrderAreTransformers) {
  expect_golden("all", {.temperature = 1.7, .top_k = 60, .top_p = 0.95, .min_p = 0.02, .typical_p = 0.9});
}

TEST(Sampler, BiasAndRepetitionPenaltyAreTransformersBitForBit) {
  const auto logits = golden_rows<float>("logits");
  const auto history = golden_rows<int64_t>("history");
  const auto expected = golden_rows<float>("penalised.repetition");
  for (size_t row = 0; row < logits.size(); ++row) {
    Sampler sampler = make_sampler({.logit_bias = {{3, 2.5}, {7, -4.0}, {250, -INFINITY}}, .repetition_penalty = 1.3},
                                   logits[row].size());
    sampler.add_prompt(std::span(history[row]).first(25));
    for (const int64_t id : std::span(history[row]).subspan(25)) sampler.add_answer(id);
    EXPECT_EQ(sampler.penalised(logits[row]), expected[row]) << "row " << row;
  }
}

TEST(Sampler, GreedyIsTheFirstLargestLogit) {
  const std::vector<float> logits{1, 5, 2, 5, -3};
  Sampler sampler = make_sampler({}, logits.size());
  const Choice choice = sampler.choose(logits);
  EXPECT_EQ(choice.id, 1);
  EXPECT_NEAR(choice.logprob, 5 - std::log(std::exp(1.0) + 2 * std::exp(5.0) + std::exp(2.0) + std::exp(-3.0)), 1e-6);
}

TEST(Sampler, GreedyKeepsToPenaltiesAndToWhatIsForbidden) {
  const std::vector<float> logits{1, 5, 2, 4, -3};
  const std::vector<int64_t> forbidden{1, 1'000'000'000};
  EXPECT_EQ(make_sampler({}, 5).choose(logits, forbidden).id, 3);
  EXPECT_EQ(make_sampler({.logit_bias = {{2, 10}}}, 5).choose(logits).id, 2);
  Sampler repeating = make_sampler({.repetition_penalty = 2}, 5);
  repeating.add_prompt(forbidden);
  EXPECT_EQ(repeating.choose(logits).id, 3);
}

TEST(Sampler, LogProbabilitiesAreOfRawLogits) {
  const std::vector<float> logits = logs({0.5, 0.25, 0.25});
  Sampler sampler = make_sampler({.temperature = 0.1, .logit_bias = {{0, -INFINITY}}, .top_k = 1}, 3);
  EXPECT_NEAR(sampler.choose(logits).logprob, std::log(0.25), 1e-6);
}

TEST(Sampler, FrequencyCountsAndPresenceDoesNot) {
  Sampler sampler = make_sampler({.frequency_penalty = 0.5, .presence_penalty = 2}, 4);
  const std::vector<int64_t> prompt{0, 0};
  sampler.add_prompt(prompt);
  for (const int64_t id : {1, 1, 1, 2}) sampler.add_answer(id);
  EXPECT_EQ(sampler.penalised(std::vector<float>{0, 0, 0, 0}), (std::vector<float>{0, -3.5F, -2.5F, 0}));
}

TEST(Sampler, DryPenalisesWhatWouldContinueARepetition) {
  // "1 2 3" has been followed by 4 and ends the history again; "3" alone has also been followed by 5.
  const std::vector<int64_t> history{1, 2, 3, 4, 9, 3, 5, 1, 2, 3};
  Sampler sampler = make_sampler({.dry_multiplier = 2, .dry_base = 3, .dry_allowed_length = 1}, 10);
  sampler.add_prompt(std::span(history).first(6));
  for (const int64_t id : std::span(history).subspan(6)) sampler.add_answer(id);
  std::vector<float> expected(10, 0.0F);
  expected[4] = -2 * 3 * 3;  // a match of three
  expected[5] = -2;          // of one
  EXPECT_EQ(sampler.penalised(std::vector<float>(10, 0.0F)), expected);
}

TEST(Sampler, DryStopsAtBreakersAndAtEmbeddings) {
  const auto penalty_of_4 = [](const std::vector<int64_t>& history, const std::vector<int64_t>& breakers) {
    Sampler sampler =
        make_sampler({.dry_multiplier = 1, .dry_base = 2, .dry_allowed_length = 1, .dry_breakers = breakers}, 10);
    sampler.add_prompt(history);
    return -sampler.penalised(std::vector<float>(10, 0.0F))[4];
  };
  EXPECT_EQ(penalty_of_4({1, 2, 3, 4, 1, 2, 3}, {}), 4);
  EXPECT_EQ(penalty_of_4({1, 2, 3, 4, 1, 2, 3}, {1}), 2);
  EXPECT_EQ(penalty_of_4({1, 2, 3, 4, 1, 2, 3}, {3}), 0);
  EXPECT_EQ(penalty_of_4({1, 2, 3, 4, 1, 2, 3}, {4}), 0);
  EXPECT_EQ(penalty_of_4({1'000'000'000, 2, 3, 4, 1'000'000'000, 2, 3}, {}), 2);
}

TEST(Sampler, DryBoundsTheLengthOfAMatch) {
  Sampler sampler = make_sampler({.dry_multiplier = 1, .dry_base = 1.5, .dry_allowed_length = 49}, 3);
  sampler.add_prompt(std::vector<int64_t>(300, 1));
  EXPECT_EQ(sampler.penalised(std::vector<float>(3, 0.0F))[1], -1.5F);
}

TEST(Sampler, XtcKeepsTheLeastProbableAboveTheThreshold) {
  const std::vector<float> logits = logs({0.4, 0.3, 0.2, 0.06, 0.04});
  Sampler always = make_sampler({.temperature = 1, .xtc_probability = 1, .xtc_threshold = 0.1}, 5, 3);
  Sampler never = make_sampler({.temperature = 1, .xtc_probability = 0, .xtc_threshold = 0.1}, 5, 3);
  std::set<int64_t> drawn_always;
  std::set<int64_t> drawn_never;
  for (int i = 0; i < 500; ++i) {
    drawn_always.insert(always.choose(logits).id);
    drawn_never.insert(never.choose(logits).id);
  }
  EXPECT_EQ(drawn_always, (std::set<int64_t>{2, 3, 4}));
  EXPECT_EQ(drawn_never, (std::set<int64_t>{0, 1, 2, 3, 4}));
}

TEST(Sampler, XtcLeavesASingleChoiceAlone) {
  Sampler sampler = make_sampler({.temperature = 1, .xtc_probability = 1, .xtc_threshold = 0.5}, 2);
  const std::vector<float> logits = logs({0.999999, 0.000001});
  for (int i = 0; i < 50; ++i) EXPECT_EQ(sampler.choose(logits).id, 0);
}

TEST(Sampler, DrawsAreAsFrequentAsTheProbabilitiesSay) {
  const std::vector<double> probabilities{0.5, 0.3, 0.15, 0.05};
  const std::vector<float> logits = logs(probabilities);
  Sampler sampler = make_sampler({.temperature = 1}, 4, 42);
  std::vector<int> counts(4);
  constexpr int draws = 20000;
  for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(sampler.choose(logits).id)];
  // Five standard deviations.
  for (size_t id = 0; id < 4; ++id)
    EXPECT_NEAR(counts[id], draws * probabilities[id],
                5 * std::sqrt(draws * probabilities[id] * (1 - probabilities[id])));
}

TEST(Sampler, ASeedGivesTheSameIdsEverywhere) {
  const std::vector<float> logits(1000, 0.0F);
  Sampler sampler = make_sampler({.temperature = 1}, 1000, 7);
  std::vector<int64_t> ids;
  for (int i = 0; i < 6; ++i) ids.push_back(sampler.choose(logits).id);
  // floor(1000 * u) of the numbers that the standard's mt19937_64 gives for seed 7.
  EXPECT_EQ(ids, (std::vector<int64_t>{754, 949, 117, 891, 141, 55}));
  Sampler other = make_sampler({.temperature = 1}, 1000, 8);
  EXPECT_NE(other.choose(logits).id, ids[0]);
}

TEST(Sampler, TiesAtTheEdgeOfTopKAreKept) {
  EXPECT_EQ(ids_of(left_of({3, 1, 2, 2, 0}, {.temperature = 1, .top_k = 2})), (std::vector<int64_t>{0, 2, 3}));
}

/// What is left if every id is sorted by falling probability and taken until the sum reaches p.
std::vector<int64_t> sorted_top_p(const std::vector<float>& logits, double p) {
  std::vector<Candidate> all = left_of(logits, {.temperature = 1});
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.score > b.score; });
  std::vector<int64_t> ids;
  double sum = 0;
  for (size_t i = 0; i < all.size() && sum < p; ++i) {
    ids.push_back(all[i].id);
    sum += all[i].probability;
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

TEST(Sampler, LargeVocabulariesAreCutAsIfTheyWereSorted) {
  std::mt19937_64 random(5);
  constexpr size_t vocabulary = 20000;
  for (const float spread : {0.0F, 0.5F, 3.0F, 20.0F, 150.0F}) {
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> logits(vocabulary);
    // Of few different values, so that there are ties.
    for (float& logit : logits) logit = spread * std::round(normal(random) * 50) / 50;
    for (const double p : {1e-9, 0.05, 0.5, 0.9, 0.999, 1 - 1e-12})
      EXPECT_EQ(ids_of(left_of(logits, {.temperature = 1, .top_p = p})), sorted_top_p(logits, p))
          << "spread " << spread << " p " << p;
    std::vector<float> sorted = logits;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    for (const int64_t k : {1, 2, 63, 64, 1000, 19999, 20000, 30000}) {
      const float least = sorted[std::min(static_cast<size_t>(k), vocabulary) - 1];
      std::vector<int64_t> expected;
      for (size_t id = 0; id < vocabulary; ++id)
        if (logits[id] >= least) expected.push_back(static_cast<int64_t>(id));
      EXPECT_EQ(ids_of(left_of(logits, {.temperature = 1, .top_k = k})), expected) << "spread " << spread << " k " << k;
    }
  }
}

TEST(Sampler, ForbiddenIdsAreNoneOfTheTopK) {
  std::vector<float> logits(100, -infinity);
  logits[7] = 1;
  logits[9] = 2;
  Sampler sampler = make_sampler({.temperature = 1, .top_k = 3}, 100);
  EXPECT_EQ(ids_of(sampler.candidates(logits)), (std::vector<int64_t>{7, 9}));
  EXPECT_EQ(ids_of(sampler.candidates(logits, std::vector<int64_t>{9})), (std::vector<int64_t>{7}));
}

TEST(Sampler, SmallTemperaturesDoNotOverflow) {
  EXPECT_EQ(ids_of(left_of({3, 1, 2}, {.temperature = 1e-300, .top_p = 0.9})), (std::vector<int64_t>{0}));
}

TEST(Sampler, LogitsThatAreNotFiniteAreAnError) {
  const std::string text = "logits: expected finite numbers, got NaN or infinity";
  for (const float bad : {std::nanf(""), infinity}) {
    for (const double temperature : {0.0, 1.0}) {
      for (const size_t place : {size_t{0}, size_t{2}}) {
        std::vector<float> logits{1, 2, 3};
        logits[place] = bad;
        expect_error(ErrorCode::internal, text,
                     [&] { (void)make_sampler({.temperature = temperature}, 3).choose(logits); });
      }
    }
  }
  expect_error(ErrorCode::internal, text, [&] {
    (void)make_sampler({}, 2).choose(std::vector<float>{-infinity, -infinity});
  });
}

TEST(Sampler, ForbiddingEveryIdIsAnError) {
  const std::vector<int64_t> all{0, 1};
  for (const double temperature : {0.0, 1.0})
    expect_error(ErrorCode::invalid_argument,
                 "sampler: expected an id that may follow, but logit_bias and min_new_tokens forbid all of them", [&] {
                   (void)make_sampler({.temperature = temperature}, 2).choose(std::vector<float>{1, 2}, all);
                 });
}

TEST(Sampler, SettingsOutOfRangeAreNamed) {
  const auto refused = [](const SamplerSettings& settings, const std::string& text) {
    expect_error(ErrorCode::invalid_argument, "SamplerSettings::" + text, [&] { check_settings(settings, 10); });
  };
  const double nan = std::nan("");
  refused({.temperature = -1}, "temperature: expected a number from 0 to 1e+06, got -1");
  refused({.temperature = nan}, "temperature: expected a number from 0 to 1e+06, got nan");
  refused({.repetition_penalty = 0}, "repetition_penalty: expected a number from 1e-06 to 1e+06, got 0");
  refused({.frequency_penalty = INFINITY}, "frequency_penalty: expected a number from -1e+06 to 1e+06, got inf");
  refused({.presence_penalty = nan}, "presence_penalty: expected a number from -1e+06 to 1e+06, got nan");
  refused({.dry_multiplier = -0.5}, "dry_multiplier: expected a number from 0 to 1e+06, got -0.5");
  refused({.dry_base = 0.5}, "dry_base: expected a number from 1 to 1e+06, got 0.5");
  refused({.dry_allowed_length = 0}, "dry_allowed_length: expected 1 or more, got 0");
  refused({.top_k = -1}, "top_k: expected 0 or more, got -1");
  refused({.top_p = 0}, "top_p: expected a number above 0 and up to 1, got 0");
  refused({.top_p = 1.5}, "top_p: expected a number above 0 and up to 1, got 1.5");
  refused({.min_p = 1}, "min_p: expected a number from 0 and below 1, got 1");
  refused({.typical_p = nan}, "typical_p: expected a number above 0 and up to 1, got nan");
  refused({.xtc_probability = 2}, "xtc_probability: expected a number from 0 to 1, got 2");
  refused({.xtc_threshold = -1}, "xtc_threshold: expected a number from 0 to 1, got -1");
  refused({.logit_bias = {{10, 1}}}, "logit_bias: expected ids of 0 to 9, got 10");
  refused({.logit_bias = {{-1, 1}}}, "logit_bias: expected ids of 0 to 9, got -1");
  refused({.repetition_penalty = 1e-46}, "repetition_penalty: expected a number from 1e-06 to 1e+06, got 1e-46");
  refused({.logit_bias = {{4, INFINITY}}},
          "logit_bias: expected -infinity or a number from -1e+06 to 1e+06 for id 4, got inf");
  refused({.logit_bias = {{4, 1e39}}},
          "logit_bias: expected -infinity or a number from -1e+06 to 1e+06 for id 4, got 1e+39");
}

}  // namespace
}  // namespace oriel::text
