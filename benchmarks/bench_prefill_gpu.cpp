// bench_prefill_gpu: what reading a prompt on a GPU consists of. Times prompts of random ids to their first token,
// reads the clock and the power while they follow one another, then records every kernel of some of them and prints the
// time of all kernels by name, and the longest gaps between them.
#include <algorithm>
#include <map>
#include <span>

#include "bench.hpp"
#include "gpu_state.hpp"
#include "kernel_trace.hpp"

namespace {

struct Arguments {
  std::string model;
  std::vector<int64_t> tokens{2048};
  int64_t prefill_chunk = oriel::GeneratorOptions().prefill_chunk;
  int64_t calls = 8;
  double seconds = 2;
};

/// Of one name, in one prompt.
struct Kernels {
  double launches = 0;
  double us = 0;  ///< while nothing launched before was still running
};

/// Time in which nothing ran.
struct Gap {
  double us = 0;
  std::string behind;
  std::string before;
};

struct Prefill {
  std::map<std::string, Kernels> kernels;
  double busy_us = 0;
  double idle_us = 0;
  std::vector<Gap> gaps;
};

/// Of the last `prompts` of `works`, which are those of `recorded` prompts one after the other, a prompt's mean. A
/// kernel may be launched ahead and wait on the GPU for the one before it, which is no time of its own.
Prefill sum_by_name(std::span<const bench::TracedWork> works, size_t recorded, size_t prompts) {
  if (works.empty() || works.size() % recorded != 0)
    throw std::runtime_error("CUPTI recorded " + std::to_string(works.size()) + " works of " +
                             std::to_string(recorded) + " equal prompts");
  works = works.last(works.size() / recorded * prompts + 1);  // and the last one of the prompt before
  Prefill result;
  const double each = 1.0 / static_cast<double>(prompts);
  uint64_t until = works.front().end;
  std::string behind = works.front().name;
  for (const bench::TracedWork& work : works.subspan(1)) {
    if (work.start > until) {
      result.gaps.push_back({static_cast<double>(work.start - until) / 1000, behind, work.name});
      result.idle_us += result.gaps.back().us * each;
    }
    const uint64_t begin = std::max(work.start, until);
    const double us = work.end > begin ? static_cast<double>(work.end - begin) / 1000 : 0;
    Kernels& same = result.kernels[work.name];
    same.launches += each;
    same.us += us * each;
    result.busy_us += us * each;
    if (work.end > until) behind = work.name;
    until = std::max(until, work.end);
  }
  std::ranges::sort(result.gaps, [](const Gap& a, const Gap& b) { return a.us > b.us; });
  return result;
}

void print(const Prefill& prefill) {
  std::vector<std::pair<std::string, Kernels>> kernels(prefill.kernels.begin(), prefill.kernels.end());
  std::ranges::sort(kernels, [](const auto& a, const auto& b) { return a.second.us > b.second.us; });
  std::printf("busy %.1f us, idle %.1f us of a prompt\n%10s %7s %8s  kernel\n", prefill.busy_us, prefill.idle_us, "us",
              "share", "launches");
  for (const auto& [name, all] : kernels)
    std::printf("%10.1f %6.1f%% %8.0f  %s\n", all.us, 100 * all.us / prefill.busy_us, all.launches, name.c_str());
  constexpr size_t shown = 8;
  for (const Gap& gap : std::span(prefill.gaps).first(std::min(shown, prefill.gaps.size())))
    std::printf("%10.1f us idle behind %s, before %s\n", gap.us, gap.behind.c_str(), gap.before.c_str());
}

/// What holds the card back while prompts follow one another.
template <typename Read>
void watch(const Read& read, double seconds) {
  bench::GpuWatch gpu(0);
  std::vector<double> ms;
  for (double left = 1000 * seconds; left > 0; left -= ms.back()) ms.push_back(read());
  const bench::GpuState state = gpu.finish();
  ms.erase(ms.begin(), ms.begin() + static_cast<std::ptrdiff_t>(ms.size() / 2));
  std::ranges::sort(ms);
  std::printf("one after the other for %.1f s: %.3f ms", seconds, ms[ms.size() / 2]);
  if (gpu.problem().empty())
    std::printf(", SM %.0f MHz, %.0f of %.0f W, held back by power in %.0f %% of the samples", state.sm_mhz,
                state.watts, state.most_watts, 100 * state.power_capped);
  std::printf("%s\n", gpu.problem().c_str());
}

void profile(const Arguments& arguments, const oriel::TextModel& model, oriel::Generator& generator, int64_t tokens) {
  int64_t salt = 0;
  const auto read = [&] {
    std::vector<int64_t> ids;
    ++salt;
    for (int64_t i = 0; i < tokens; ++i) ids.push_back((7919 * i + 1299709 * salt) % model.vocabulary_size());
    const auto [result, ms] =
        bench::timed([&] { return generator.generate(ids, {.max_new_tokens = 1, .ignore_stop_ids = true}); });
    if (result.reason == oriel::StopReason::failed) throw std::runtime_error(result.error);
    generator.clear_cache();
    return ms;
  };
  for (int i = 0; i < 3; ++i) (void)read();  // times products
  std::vector<double> ms;
  for (int64_t i = 0; i < arguments.calls; ++i) ms.push_back(read());
  std::ranges::sort(ms);
  std::printf("%lld tokens: %.3f ms, the median of %zu (%.3f to %.3f)\n", static_cast<long long>(tokens),
              ms[ms.size() / 2], ms.size(), ms.front(), ms.back());
  watch(read, arguments.seconds);
  constexpr size_t recorded = 6, counted = 3;  // recording slows its own first launches down
  bench::start_trace();
  for (size_t i = 0; i < recorded; ++i) (void)read();
  const std::vector<bench::TracedWork> works = bench::take_trace();
  bench::stop_trace();
  print(sum_by_name(works, recorded, counted));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Shows what reading a prompt on a GPU consists of, by kernel.", "bench_prefill_gpu"};
  Arguments arguments;
  app.add_option("--model", arguments.model, "Hugging Face checkpoint directory")->required();
  app.add_option("--tokens", arguments.tokens, "of a prompt; repeatable (default: 2048)")->check(CLI::PositiveNumber);
  app.add_option("--prefill-chunk", arguments.prefill_chunk, "as GeneratorOptions::prefill_chunk (default: its own)")
      ->check(CLI::PositiveNumber);
  app.add_option("--calls", arguments.calls, "to take the median of (default: 8)")->check(CLI::PositiveNumber);
  app.add_option("--seconds", arguments.seconds, "of prompts one after the other (default: 2)")
      ->check(CLI::PositiveNumber);
  return run_program(app, argc, argv, [&] {
    const auto tokenizer = oriel::Tokenizer::load(arguments.model);
    const auto model = oriel::TextModel::load(arguments.model, {.device = oriel::Device::cuda()});
    const int64_t longest = *std::ranges::max_element(arguments.tokens);
    oriel::Generator generator(model, tokenizer,
                               {.max_jobs = 1, .max_tokens = longest + 1, .prefill_chunk = arguments.prefill_chunk});
    for (const int64_t tokens : arguments.tokens) profile(arguments, model, generator, tokens);
  });
}
