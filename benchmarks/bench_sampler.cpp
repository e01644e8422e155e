// bench_sampler: one next id from the logits of a large vocabulary, on one thread, for settings that people use.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "text/sampler.hpp"

namespace {

using oriel::SamplerSettings;

constexpr int64_t vocabulary = 152064;  // Qwen2.5's
constexpr int draws = 160;

struct Case {
  const char* name;
  SamplerSettings settings;
};

const Case cases[] = {
    {"temperature 0.8", {.temperature = 0.8}},
    {"the same, top-k 50", {.temperature = 0.8, .top_k = 50}},
    {"the same, top-p 0.9", {.temperature = 0.8, .top_p = 0.9}},
    {"the same, top-k 50, top-p 0.9", {.temperature = 0.8, .top_k = 50, .top_p = 0.9}},
    {"the same, min-p 0.05", {.temperature = 0.8, .min_p = 0.05}},
    {"the same, typical-p 0.9", {.temperature = 0.8, .typical_p = 0.9}},
    {"temperature 0.1, repetition 1.05, top-p 0.001", {.temperature = 0.1, .repetition_penalty = 1.05, .top_p = 0.001}},
    {"temperature 1, top-p 0.95, XTC",
     {.temperature = 1, .top_p = 0.95, .xtc_probability = 0.5, .xtc_threshold = 0.05}},
    {"greedy, repetition 1.05", {.repetition_penalty = 1.05}},
};

/// Normal with a deviation of 3: some thirty ids hold most of the mass at temperature 0.8.
std::vector<std::vector<float>> make_logits() {
  std::mt19937_64 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<std::vector<float>> rows(8, std::vector<float>(vocabulary));
  for (std::vector<float>& row : rows)
    for (float& logit : row) logit = normal(random);
  return rows;
}

/// Milliseconds of all draws, sorted.
std::vector<double> timed_draws(const SamplerSettings& settings, const std::vector<std::vector<float>>& rows) {
  oriel::text::Sampler sampler(settings, vocabulary, /*seed=*/7);
  std::vector<int64_t> prompt(500);
  for (size_t i = 0; i < prompt.size(); ++i) prompt[i] = static_cast<int64_t>(37 * i);
  sampler.add_prompt(prompt);
  std::vector<double> times;
  for (int i = 0; i < draws; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    const int64_t id = sampler.choose(rows[static_cast<size_t>(i) % rows.size()]).id;
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
    sampler.add_answer(id);
  }
  std::sort(times.begin(), times.end());
  return times;
}

}  // namespace

int main() {
  const std::vector<std::vector<float>> rows = make_logits();
  std::printf("| settings, %lld ids | fastest ms | median ms |\n| --- | --: | --: |\n",
              static_cast<long long>(vocabulary));
  for (const auto& [name, settings] : cases) {
    const std::vector<double> times = timed_draws(settings, rows);
    std::printf("| %s | %.2f | %.2f |\n", name, times.front(), times[draws / 2]);
  }
}
