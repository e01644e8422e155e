// Text models and the generator on a GPU against the same on the CPU and against transformers' goldens.
#include <ATen/Context.h>
#include <c10/core/InferenceMode.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "generator/tiny_chat.hpp"
#include "kernels/gpu.hpp"
#include "nn/cuda/decoder_graphs.hpp"
#include "text_model_impl.hpp"

namespace oriel {
namespace {

using Impl = TextModelAccess::Impl;

class TextOnGpu : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!has_gpu()) GTEST_SKIP() << no_gpu;
    at::globalContext().setAllowTF32CuBLAS(false);
  }
  static TextModel on_gpu(const std::filesystem::path& directory, DType dtype = DType::float32) {
    return TextModel::load(directory, {.device = Device::cuda(), .dtype = dtype});
  }
  static std::vector<float> floats(const at::Tensor& x) { return from_torch(x.cpu()).to_float32(); }
  /// What follows the pictures is computed step by step: in half the bits, its distance from the float32 truth is at
  /// most transformers' own, up to the luck of some thousand roundings.
  static void expect_steps_near_the_truth(const TextGolden& text, const TextCases& cases, DType dtype,
                                          const char* name) {
    const TextModel model = on_gpu(text.directory, dtype);
    const Impl& impl = *TextModelAccess::get(model);
    const TextCase input = cases.get("several");
    const auto truth = text.golden.values<float>("several.logits");
    const auto theirs = text.golden.values<float>(std::string("several.logits_") + name);
    const TextPrompt prompt = impl.prepare(input.ids, input.embeddings);
    int64_t begin = prompt.size();
    while (begin > 1 && input.ids[static_cast<size_t>(begin) - 1] < model.vocabulary_size()) --begin;
    if (begin == prompt.size()) GTEST_SKIP() << "the prompt ends with a picture";
    nn::KvCache cache = impl.make_cache(1, prompt.size());
    const TextRun first = impl.prefill(prompt, 0, 0, begin, WantedLogits::none);
    (void)impl.forward({&first, 1}, cache);
    double our_error = 0;
    double their_error = 0;
    for (int64_t i = begin; i < prompt.size(); ++i) {
      TextRun one = impl.prefill(prompt, 0, i, i + 1, WantedLogits::last);
      one.rows.reset();
      one.ids = {prompt.ids[static_cast<size_t>(i)]};
      const std::vector<float> logits = floats(impl.forward({&one, 1}, cache));
      const size_t row = static_cast<size_t>(i * model.vocabulary_size());
      for (size_t j = 0; j < logits.size(); ++j) {
        our_error += std::abs(static_cast<double>(logits[j]) - static_cast<double>(truth[row + j]));
        their_error += std::abs(static_cast<double>(theirs[row + j]) - static_cast<double>(truth[row + j]));
      }
    }
    RecordProperty(std::string("ratio_") + name, std::to_string(our_error / their_error));
    EXPECT_LE(our_error, their_error * 1.1) << name << ", " << prompt.size() - begin << " tokens";
  }
};

TEST_P(TextOnGpu, GreedyAnswersAreTheCpus) {
  const TinyChat& chat = TinyChat::of(GetParam());
  const TextModel model = on_gpu(chat.directory);
  constexpr int64_t length = 64;
  const std::vector<TestPrompt> prompts{chat.prompt({}, "A text without a picture."),
                                        chat.prompt({chat.embed(1)}, "What is this?"),
                                        chat.prompt({chat.embed(2), chat.embed(3, {40, 70})}, "Which one is larger?")};
  Generator on_cpu = chat.generator({.max_jobs = 1, .max_tokens = 512});
  for (const TestPrompt& prompt : prompts) {
    Generator generator(model, chat.tokenizer, {.max_jobs = 1, .max_tokens = 512});
    const JobResult expected = answer(on_cpu, prompt, length);
    const JobResult found = answer(generator, prompt, length);
    EXPECT_EQ(found.ids, expected.ids);
    EXPECT_LE(logprob_error(found.logprobs, expected.logprobs), 1e-4);
  }
}

TEST_P(TextOnGpu, AWindowWiderThan32BitsCountHidesNothing) {
  if (GetParam().find("_window") == std::string::npos) GTEST_SKIP() << "no window";
  const TinyChat& chat = TinyChat::of(GetParam());
  const TestPrompt prompt = chat.prompt({chat.embed(2), chat.embed(3, {40, 70})}, "Which one is larger?");
  for (const DType dtype : {DType::float32, DType::bfloat16}) {
    const auto with = [&](int64_t window) {
      const TextModel model = with_window(GetParam(), window, {.device = Device::cuda(), .dtype = dtype});
      Generator generator(model, chat.tokenizer, {.max_jobs = 1, .max_tokens = 256});
      return answer(generator, prompt, 32);
    };
    (void)with(4096);  // times the products, which all that follow then compute alike
    const JobResult expected = with(4096);
    for (const int64_t window : endless_windows) {
      const JobResult found = with(window);
      EXPECT_EQ(found.ids, expected.ids) << window;
      EXPECT_LE(logprob_error(found.logprobs, expected.logprobs), 1e-4) << window;
    }
  }
}

TEST_P(TextOnGpu, JobsThatComeAndGoAreAnsweredAsAlone) {
  const TinyChat& chat = TinyChat::of(GetParam());
  const TextModel model = on_gpu(chat.directory);
  const std::vector<TestPrompt> prompts{chat.prompt({chat.embed(1)}, "What is this?"), chat.prompt({}, "Short."),
                                        chat.prompt({chat.embed(2)}, "And this one here?"), chat.prompt({}, "Another"),
                                        chat.prompt({}, "The last of five.")};
  Generator on_cpu = chat.generator({.max_jobs = 1, .max_tokens = 256});
  for (const int64_t slots : {2, 4}) {
    Generator together(model, chat.tokenizer, {.max_jobs = slots, .max_tokens = 256, .prefill_chunk = 10});
    std::vector<int64_t> jobs;
    for (size_t i = 0; i < prompts.size(); ++i)
      jobs.push_back(together.enqueue(prompts[i].ids, greedy_options(prompts[i], 30 - static_cast<int64_t>(5 * i))));
    run_all(together);
    for (size_t i = 0; i < prompts.size(); ++i)
      EXPECT_EQ(together.take_result(jobs[i]).ids, answer(on_cpu, prompts[i], 30 - static_cast<int64_t>(5 * i)).ids)
          << "job " << i << " of " << slots << " at a time";
  }
}

// A job whose numbers are none must not be heard of in others, also not from a slot that it leaves behind.
TEST_P(TextOnGpu, AJobThatFailsFailsAlone) {
  const TinyChat& chat = TinyChat::of(GetParam());
  const TextModel model = on_gpu(chat.directory);
  const TestPrompt good = chat.prompt({}, "A text without a picture.");
  const TestPrompt bad = chat.prompt({poisoned(chat.embed(1))}, "What is this?");
  Generator on_cpu = chat.generator({.max_jobs = 1, .max_tokens = 256});
  const std::vector<int64_t> expected = answer(on_cpu, good, 24).ids;
  Generator generator(model, chat.tokenizer, {.max_jobs = 2, .max_tokens = 256});
  const int64_t first = generator.enqueue(good.ids, greedy_options(good, 24));
  const int64_t failing = generator.enqueue(bad.ids, greedy_options(bad, 24));
  const int64_t second = generator.enqueue(good.ids, greedy_options(good, 24));
  run_all(generator);
  EXPECT_EQ(generator.take_result(first).ids, expected);
  EXPECT_EQ(generator.take_result(failing).reason, StopReason::failed);
  EXPECT_EQ(generator.take_result(second).ids, expected);
}

TEST_P(TextOnGpu, LogitsOfStepsAreTheGoldens) {
  const c10::InferenceMode guard;
  const TextGolden text(GetParam());
  const TextCases cases(text);
  const TextModel model = on_gpu(text.directory);
  const Impl& impl = *TextModelAccess::get(model);
  for (const std::string& name : text.cases()) {
    const TextCase input = cases.get(name);
    const auto expected = text.golden.values<int64_t>(name + ".new_ids");
    const auto expected_logprobs = text.golden.values<float>(name + ".new_logprobs");
    const TextPrompt prompt = impl.prepare(input.ids, input.embeddings);
    nn::KvCache cache = impl.make_cache(1, prompt.size() + static_cast<int64_t>(expected.size()));
    const TextRun first = impl.prefill(prompt, 0, 0, prompt.size(), WantedLogits::last);
    at::Tensor logits = impl.forward({&first, 1}, cache);
    std::vector<float> logprobs;
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(logits.argmax().item<int64_t>(), expected[i]) << name << ", token " << i;
      logprobs.push_back(floats(logits.log_softmax(-1))[static_cast<size_t>(expected[i])]);
      const TextRun next = Impl::next(prompt, 0, static_cast<int64_t>(i), expected[i]);
      logits = impl.forward({&next, 1}, cache);
    }
    EXPECT_LE(logprob_error(logprobs, expected_logprobs), 1e-4) << name;
    if (impl.traits().decoder.head_dim % 8 == 0) {
      ASSERT_TRUE(cache.graphs());
      EXPECT_EQ(cache.graphs()->replays(), static_cast<int64_t>(expected.size()) - 1);
    } else {
      EXPECT_FALSE(cache.graphs()) << "no kernels for such heads";
    }
  }
}

TEST_P(TextOnGpu, BfloatStepsAreAsNearToTheTruthAsTransformers) {
  const c10::InferenceMode guard;
  const TextGolden text(GetParam());
  expect_steps_near_the_truth(text, TextCases(text), DType::bfloat16, "bfloat16");
}

TEST_P(TextOnGpu, Float16StepsAreAsNearToTheTruthAsTransformers) {
  const c10::InferenceMode guard;
  const TextGolden text(GetParam());
  expect_steps_near_the_truth(text, TextCases(text), DType::float16, "float16");
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, TextOnGpu, testing::ValuesIn(golden_names), [](const auto& checkpoint) {
  std::string name = checkpoint.param;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
});

}  // namespace
}  // namespace oriel
