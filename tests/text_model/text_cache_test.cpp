// Sequences in pieces, side by side and through the cache equal whole prompts alone.
#include <ATen/ops/cat.h>
#include <c10/core/InferenceMode.h>

#include "text_model/text_goldens.hpp"
#include "text_model_impl.hpp"

namespace oriel {
namespace {

// Products of other shapes sum in another order.
constexpr double rounding = 1e-5;

using Impl = TextModelAccess::Impl;

std::vector<float> floats(const at::Tensor& x) { return from_torch(x).to_float32(); }

int64_t best(const at::Tensor& logits) {
  const std::vector<float> values = floats(logits);
  return std::max_element(values.begin(), values.end()) - values.begin();
}

class TextCache : public testing::TestWithParam<std::string> {
 protected:
  TextGolden text{GetParam()};
  TextCases cases{text};
  TextModel model = text.load();
  const Impl& impl = *TextModelAccess::get(model);

  /// Logits of all tokens, computed in chunks of at most `chunk` that cut no block.
  at::Tensor in_chunks(const TextPrompt& prompt, int64_t chunk, int64_t slot, nn::KvCache& cache) const {
    std::vector<at::Tensor> parts;
    for (int64_t begin = 0; begin < prompt.size();) {
      const int64_t end = Impl::cut_before(prompt, begin, std::min(begin + chunk, prompt.size()));
      const TextRun run = impl.prefill(prompt, slot, begin, end, WantedLogits::all);
      parts.push_back(impl.forward({&run, 1}, cache));
      begin = end;
    }
    return at::cat(parts);
  }
};

TEST_P(TextCache, ChunksOfAPromptEqualTheWhole) {
  const c10::InferenceMode guard;
  for (const std::string& name : text.cases()) {
    const TextCase input = cases.get(name);
    const TextPrompt prompt = impl.prepare(input.ids, input.embeddings);
    const std::vector<float> whole = floats(impl.forward(prompt));
    for (const int64_t chunk : {int64_t{1}, int64_t{3}, int64_t{10}, prompt.size()}) {
      nn::KvCache cache = impl.make_cache(2, prompt.size());
      EXPECT_LE(golden_error(floats(in_chunks(prompt, chunk, 1, cache)), whole), rounding)
          << name << " in chunks of " << chunk;
    }
  }
}

TEST_P(TextCache, GreedyTokensAreTransformers) {
  const c10::InferenceMode guard;
  for (const std::string& name : text.cases()) {
    const TextCase input = cases.get(name);
    const auto expected = text.golden.values<int64_t>(name + ".new_ids");
    const auto expected_logprobs = text.golden.values<float>(name + ".new_logprobs");
    const TextPrompt prompt = impl.prepare(input.ids, input.embeddings);
    nn::KvCache cache = impl.make_cache(1, prompt.size() + static_cast<int64_t>(expected.size()));
    const TextRun first = impl.prefill(prompt, 0, 0, prompt.size(), WantedLogits::last);
    at::Tensor logits = impl.forward({&first, 1}, cache);
    std::vector<int64_t> ids;
    std::vector<float> logprobs;
    for (size_t i = 0; i < expected.size(); ++i) {
      ids.push_back(best(logits));
      logprobs.push_back(floats(logits.log_softmax(-1))[static_cast<size_t>(ids.back())]);
      const TextRun next = Impl::next(prompt, 0, static_cast<int64_t>(i), ids.back());
      logits = impl.forward({&next, 1}, cache);
    }
    EXPECT_EQ(ids, expected) << name;
    EXPECT_LE(logprob_error(logprobs, expected_logprobs), 1e-4) << name;
  }
}

/// All prompts of a checkpoint generate together: some decode while others are still being read, in chunks.
TEST_P(TextCache, SequencesSideBySideAreAsAlone) {
  const c10::InferenceMode guard;
  struct Job {
    std::string name;
    TextPrompt prompt;
    int64_t slot = 0;
    int64_t done = 0;  ///< tokens of the prompt
    std::vector<int64_t> ids;
  };
  std::vector<Job> jobs;
  int64_t capacity = 0;
  for (const std::string& name : text.cases()) {
    const TextCase input = cases.get(name);
    const auto slot = static_cast<int64_t>(jobs.size()) + 1;  // the first slot stays empty
    jobs.push_back({name, impl.prepare(input.ids, input.embeddings), slot, 0, {}});
    capacity = std::max(capacity, jobs.back().prompt.size() + 16);
  }
  nn::KvCache cache = impl.make_cache(static_cast<int64_t>(jobs.size()) + 2, capacity);
  for (int step = 0; step < 30; ++step) {
    std::vector<TextRun> runs;
    std::vector<Job*> wanting;
    for (size_t i = 0; i < jobs.size(); ++i) {
      Job& job = jobs[i];
      if (step < static_cast<int>(2 * i) || job.ids.size() >= 12) continue;  // they enter one after the other
      if (job.done < job.prompt.size()) {
        const int64_t end = Impl::cut_before(job.prompt, job.done, std::min(job.done + 30, job.prompt.size()));
        const bool last = end == job.prompt.size();
        runs.push_back(
            impl.prefill(job.prompt, job.slot, job.done, end, last ? WantedLogits::last : WantedLogits::none));
        job.done = end;
        if (last) wanting.push_back(&job);
      } else {
        runs.push_back(Impl::next(job.prompt, job.slot, static_cast<int64_t>(job.ids.size()) - 1, job.ids.back()));
        wanting.push_back(&job);
      }
    }
    const at::Tensor logits = impl.forward(runs, cache);
    ASSERT_EQ(logits.defined() ? logits.size(0) : 0, static_cast<int64_t>(wanting.size()));
    for (size_t i = 0; i < wanting.size(); ++i) wanting[i]->ids.push_back(best(logits[static_cast<int64_t>(i)]));
  }
  for (const Job& job : jobs) {
    auto expected = text.golden.values<int64_t>(job.name + ".new_ids");
    ASSERT_GE(job.ids.size(), 8u) << job.name;
    expected.resize(job.ids.size());
    EXPECT_EQ(job.ids, expected) << job.name;
  }
}

TEST_P(TextCache, ACopiedPrefixServesAnotherSequence) {
  const c10::InferenceMode guard;
  const TextCase input = cases.get("one");
  const TextPrompt prompt = impl.prepare(input.ids, input.embeddings);
  const std::vector<float> whole = floats(impl.forward(prompt));
  const int64_t shared = prompt.size() - 2;
  nn::KvCache cache = impl.make_cache(3, prompt.size());
  const TextRun first = impl.prefill(prompt, 0, 0, shared, WantedLogits::none);
  EXPECT_FALSE(impl.forward({&first, 1}, cache).defined());
  cache.copy_prefix(0, 2, shared);
  const TextRun rest = impl.prefill(prompt, 2, shared, prompt.size(), WantedLogits::all);
  const std::vector<float> got = floats(impl.forward({&rest, 1}, cache));
  EXPECT_LE(golden_error(got, {whole.end() - static_cast<std::ptrdiff_t>(got.size()), whole.end()}), rounding);
}

INSTANTIATE_TEST_SUITE_P(EveryCheckpoint, TextCache, testing::ValuesIn(text_checkpoints()),
                         [](const auto& test) { return test_name(test.param); });

TEST(TextModelCut, LiesInsideNoBlock) {
  TextPrompt prompt;
  prompt.ids.resize(20);
  prompt.blocks = {{3, 8}, {8, 10}, {15, 20}};
  const auto cut = [&](int64_t begin, int64_t wanted) { return Impl::cut_before(prompt, begin, wanted); };
  EXPECT_EQ(cut(0, 2), 2);
  EXPECT_EQ(cut(0, 3), 3);
  EXPECT_EQ(cut(0, 4), 3);
  EXPECT_EQ(cut(0, 8), 8);
  EXPECT_EQ(cut(3, 4), 8);  // the block begins what is left
  EXPECT_EQ(cut(3, 9), 8);
  EXPECT_EQ(cut(8, 9), 10);
  EXPECT_EQ(cut(10, 17), 15);
  EXPECT_EQ(cut(15, 16), 20);
  EXPECT_EQ(cut(0, 20), 20);
}

}  // namespace
}  // namespace oriel
