// bench_prefill_gpu: what reading a prompt on a GPU consists of. Times prompts of random ids to their first token, then
// records every kernel of one of them and prints the time of all kernels by name, and the longest gaps between them.
#include <algorithm>
#include <map>
#include <span>

#include "bench.hpp"
#include "kernel_trace.hpp"

namespace {

struct Arguments {
  std::string model;
  std::vector<int64_t> tokens{2048};
  int64_t prefill_chunk = oriel::GeneratorOptions().prefill_chunk;
  int64_t calls = 8;
};

/// Of one name.
struct Kernels {
  int64_t launches = 0;
  double us = 0;  ///< while nothing launched before was still running
};

/// Time in which nothing ran.
struct Gap {
  double us = 0;
  double at_us = 0;  ///< since the first began
  std::string behind;
  std::string before;
};

struct Prefill {
  std::map<std::string, Kernels> kernels;
  double busy_us = 0;
  std::vector<Gap> gaps;  ///< between the first and the last
};

/// A kernel may be launched ahead and wait on the GPU for the one before it, which is no time of its own.
Prefill sum_by_name(const std::vector<bench::TracedWork>& works) {
  Prefill result;
  const uint64_t first = works.front().start;
  uint64_t until = first;
  std::string behind;
  for (const bench::TracedWork& work : works) {
    if (work.start > until)
      result.gaps.push_back({static_cast<double>(work.start - until) / 1000, static_cast<double>(until - first) / 1000,
                             behind, work.name});
    const uint64_t begin = std::max(work.start, until);
    const double us = work.end > begin ? static_cast<double>(work.end - begin) / 1000 : 0;
    Kernels& same = result.kernels[work.name];
    ++same.launches;
    same.us += us;
    result.busy_us += us;
    if (work.end > until) behind = work.name;
    until = std::max(until, work.end);
  }
  std::ranges::sort(result.gaps, [](const Gap& a, const Gap& b) { return a.us > b.us; });
  return result;
}

void print(const Prefill& prefill) {
  std::vector<std::pair<std::string, Kernels>> kernels(prefill.kernels.begin(), prefill.kernels.end());
  std::ranges::sort(kernels, [](const auto& a, const auto& b) { return a.second.us > b.second.us; });
  double idle_us = 0;
  for (const Gap& gap : prefill.gaps) idle_us += gap.us;
  std::printf("busy %.1f us, idle between %.1f us in %zu gaps\n%10s %7s %8s  kernel\n", prefill.busy_us, idle_us,
              prefill.gaps.size(), "us", "share", "launches");
  for (const auto& [name, all] : kernels)
    std::printf("%10.1f %6.1f%% %8lld  %s\n", all.us, 100 * all.us / prefill.busy_us,
                static_cast<long long>(all.launches), name.c_str());
  constexpr size_t shown = 8;
  for (const Gap& gap : std::span(prefill.gaps).first(std::min(shown, prefill.gaps.size())))
    std::printf("%10.1f us idle at %.1f us, behind %s, before %s\n", gap.us, gap.at_us, gap.behind.c_str(),
                gap.before.c_str());
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
  std::printf("%lld tokens: %.3f ms, the median of %zu (%.3f to %.3f); of one more:\n", static_cast<long long>(tokens),
              ms[ms.size() / 2], ms.size(), ms.front(), ms.back());
  bench::start_trace();
  (void)read();  // recording slows its own first launches down
  (void)bench::take_trace();
  (void)read();
  const std::vector<bench::TracedWork> works = bench::take_trace();
  bench::stop_trace();
  if (works.empty()) throw std::runtime_error("CUPTI recorded nothing");
  print(sum_by_name(works));
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
  return run_program(app, argc, argv, [&] {
    const auto tokenizer = oriel::Tokenizer::load(arguments.model);
    const auto model = oriel::TextModel::load(arguments.model, {.device = oriel::Device::cuda()});
    const int64_t longest = *std::ranges::max_element(arguments.tokens);
    oriel::Generator generator(model, tokenizer,
                               {.max_jobs = 1, .max_tokens = longest + 1, .prefill_chunk = arguments.prefill_chunk});
    for (const int64_t tokens : arguments.tokens) profile(arguments, model, generator, tokens);
  });
}
