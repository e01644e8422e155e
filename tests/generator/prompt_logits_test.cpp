// The logits of a prompt, as they come through the cache chunk by chunk.
#include <gtest/gtest.h>

#include "generator/tiny_chat.hpp"

namespace oriel {
namespace {

class PromptLogits : public testing::TestWithParam<std::string> {
 protected:
  const TinyChat& chat = TinyChat::of(GetParam());
  TestPrompt prompt = chat.prompt({chat.embed(1)}, "What is this?");
  [[nodiscard]] JobOptions options() const {
    JobOptions options = greedy_options(prompt, 3);
    options.prompt_logits = true;
    return options;
  }
  void expect_logits(const JobResult& result) const {
    const auto prompt_tokens = static_cast<int64_t>(prompt.ids.size());
    ASSERT_EQ(result.prompt_logits.shape(), (std::vector<int64_t>{prompt_tokens, chat.model.vocabulary_size()}));
    const std::vector<float> expected = chat.model.forward(prompt.ids, prompt.embeddings).logits.to_float32();
    // Sums of float32 products in another order.
    EXPECT_LE(golden_error(result.prompt_logits.to_float32(), expected), 1e-5);
  }
};
INSTANTIATE_TEST_SUITE_P(Checkpoints, PromptLogits, testing::ValuesIn(chat_names),
                         [](const auto& name) { return name.param; });

TEST_P(PromptLogits, AreTheSameInChunks) {
  for (const int64_t chunk : {1, 12, 4096}) {
    Generator generator = chat.generator({.max_jobs = 1, .max_tokens = 256, .prefill_chunk = chunk});
    const JobResult result = generator.generate(prompt.ids, options());
    expect_logits(result);
    EXPECT_EQ(result.ids, chat.without_cache(prompt, 3).ids);
  }
}

TEST_P(PromptLogits, AreOfThePromptAlsoWhereTheCacheHasIt) {
  Generator generator = chat.generator();
  const JobResult plain = answer(generator, prompt, 3);
  EXPECT_FALSE(plain.prompt_logits.defined()) << "not asked for";
  const JobResult result = generator.generate(prompt.ids, options());
  EXPECT_EQ(result.reused_tokens, 0);
  expect_logits(result);
  EXPECT_GT(answer(generator, prompt, 3).reused_tokens, 0);
}

TEST_P(PromptLogits, ThoseOfOneJobDoNotDisturbOthers) {
  const TestPrompt other = chat.prompt({}, "Tell me.");
  Generator alone = chat.generator();
  const std::vector<int64_t> expected = answer(alone, other, 8).ids;
  Generator generator = chat.generator({.max_jobs = 3, .max_tokens = 256, .prefill_chunk = 12});
  const int64_t first = generator.enqueue(other.ids, greedy_options(other, 8));
  const int64_t asks = generator.enqueue(prompt.ids, options());
  const int64_t last = generator.enqueue(other.ids, greedy_options(other, 8));
  run_all(generator);
  EXPECT_EQ(generator.take_result(first).ids, expected);
  EXPECT_EQ(generator.take_result(last).ids, expected);
  expect_logits(generator.take_result(asks));
}

TEST(PromptLogitsOfACancelledJob, AreNotThere) {
  const TinyChat& chat = TinyChat::of("gemma3_window");
  const TestPrompt prompt = chat.prompt({}, "Tell me about many things.");
  JobOptions options = greedy_options(prompt, 3);
  options.prompt_logits = true;
  Generator generator = chat.generator({.max_jobs = 1, .max_tokens = 256, .prefill_chunk = 2});
  const int64_t job = generator.enqueue(prompt.ids, options);
  (void)generator.step();
  generator.cancel(job);
  EXPECT_FALSE(generator.take_result(job).prompt_logits.defined());
}

}  // namespace
}  // namespace oriel
