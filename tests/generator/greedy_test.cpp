// Greedy answers are the same however they are computed.
#include <gtest/gtest.h>

#include <thread>
#include <utility>

#include "generator/tiny_chat.hpp"

namespace oriel {
namespace {

constexpr int64_t length = 24;

class GeneratorGreedy : public testing::TestWithParam<std::string> {
 protected:
  const TinyChat& chat = TinyChat::of(GetParam());
  TestPrompt with_picture = chat.prompt({chat.embed(1)}, "What is this?");
  TestPrompt with_two = chat.prompt({chat.embed(2), chat.embed(3, {40, 70})}, "Which one is larger?");
  TestPrompt text = chat.prompt({}, "A text without a picture, and rather longer than the others.");
};

TEST_P(GeneratorGreedy, EqualsTheModelWithoutACache) {
  Generator generator = chat.generator();
  for (const TestPrompt& prompt : {text, with_picture, with_two}) {
    const JobResult expected = chat.without_cache(prompt, length);
    const JobResult found = answer(generator, prompt, length);
    EXPECT_EQ(found.ids, expected.ids);
    ASSERT_EQ(found.logprobs.size(), expected.logprobs.size());
    for (size_t i = 0; i < expected.logprobs.size(); ++i)
      EXPECT_NEAR(found.logprobs[i], expected.logprobs[i], 1e-4) << "token " << i;
    EXPECT_EQ(found.text, chat.tokenizer.decode(found.ids));
    EXPECT_EQ(found.reason, StopReason::max_new_tokens);
    EXPECT_EQ(found.prompt_tokens, static_cast<int64_t>(prompt.ids.size()));
  }
}

TEST_P(GeneratorGreedy, AWindowWiderThan32BitsCountHidesNothing) {
  if (!GetParam().ends_with("_window") && GetParam() != "mistral3_window_tied") GTEST_SKIP() << "no window";
  const auto with = [&](int64_t window) {
    Generator generator(with_window(GetParam(), window), chat.tokenizer, {.max_jobs = 1, .max_tokens = 256});
    return answer(generator, with_two, length);
  };
  const JobResult expected = with(4096);
  EXPECT_NE(with(9).logprobs, expected.logprobs) << "a narrow window would not show";
  for (const int64_t window : endless_windows) {
    const JobResult found = with(window);
    EXPECT_EQ(found.ids, expected.ids) << window;
    EXPECT_EQ(found.logprobs, expected.logprobs) << window;
  }
}

TEST_P(GeneratorGreedy, ChunksOfThePromptMakeNoDifference) {
  Generator whole = chat.generator();
  const std::vector<int64_t> expected = answer(whole, with_two, length).ids;
  for (const int64_t chunk : {1, 2, 7, 16, 33}) {
    Generator chunked = chat.generator({.max_jobs = 1, .max_tokens = 256, .prefill_chunk = chunk});
    EXPECT_EQ(answer(chunked, with_two, length).ids, expected) << "chunks of " << chunk;
  }
}

TEST_P(GeneratorGreedy, JobsTogetherEqualJobsAlone) {
  const std::vector<TestPrompt> prompts{with_picture, text, with_two, chat.prompt({}, "Short."),
                                        chat.prompt({with_two.embeddings[1]}, "And this?")};
  std::vector<std::vector<int64_t>> expected;
  for (size_t i = 0; i < prompts.size(); ++i) {
    Generator alone = chat.generator({.max_jobs = 1, .max_tokens = 256});
    expected.push_back(answer(alone, prompts[i], length - static_cast<int64_t>(i)).ids);
  }
  // Two and three at a time, with chunks that make jobs enter and leave at different steps; the last is queued late.
  for (const int64_t slots : {2, 3}) {
    Generator together = chat.generator({.max_jobs = slots, .max_tokens = 256, .prefill_chunk = 10});
    std::vector<int64_t> jobs;
    const auto enqueue = [&](size_t i) {
      jobs.push_back(together.enqueue(prompts[i].ids, greedy_options(prompts[i], length - static_cast<int64_t>(i))));
    };
    for (size_t i = 0; i + 1 < prompts.size(); ++i) enqueue(i);
    for (int step = 0; step < 5; ++step) (void)together.step();
    enqueue(prompts.size() - 1);
    run_all(together);
    for (size_t i = 0; i < prompts.size(); ++i)
      EXPECT_EQ(together.take_result(jobs[i]).ids, expected[i]) << "job " << i << " of " << slots << " at a time";
  }
}

TEST_P(GeneratorGreedy, ASecondQuestionComputesTheQuestionAlone) {
  const TestPrompt second = chat.prompt(with_picture.embeddings, "Where was it taken?");
  Generator fresh = chat.generator();
  const JobResult expected = answer(fresh, second, length);
  EXPECT_EQ(expected.reused_tokens, 0);

  Generator generator = chat.generator();
  (void)answer(generator, with_picture, length);
  const JobResult found = answer(generator, second, length);
  EXPECT_EQ(found.ids, expected.ids);
  const auto common = std::ranges::mismatch(with_picture.ids, second.ids).in1 - with_picture.ids.begin();
  EXPECT_EQ(found.reused_tokens, common);
  EXPECT_GT(found.reused_tokens, with_picture.embeddings[0].length());

  generator.clear_cache();
  EXPECT_EQ(answer(generator, second, length).reused_tokens, 0);
}

TEST_P(GeneratorGreedy, AConversationReusesItsAnswers) {
  Generator generator = chat.generator();
  const JobResult first = answer(generator, with_picture, length);
  TestPrompt second = with_picture;
  second.ids.insert(second.ids.end(), first.ids.begin(), first.ids.end());
  const std::vector<int64_t> question = chat.tokenizer.encode(" Why?", {.add_bos = false});
  second.ids.insert(second.ids.end(), question.begin(), question.end());
  Generator fresh = chat.generator();
  const JobResult expected = answer(fresh, second, length);
  const JobResult found = answer(generator, second, length);
  EXPECT_EQ(found.ids, expected.ids);
  // The last id of the answer was drawn and never computed.
  EXPECT_EQ(found.reused_tokens, first.prompt_tokens + length - 1);
}

TEST_P(GeneratorGreedy, ARunningJobsPrefixIsCopied) {
  const TestPrompt second = chat.prompt(with_picture.embeddings, "Where was it taken?");
  Generator fresh = chat.generator();
  const std::vector<int64_t> expected_first = answer(fresh, with_picture, length).ids;
  Generator another = chat.generator();
  const std::vector<int64_t> expected_second = answer(another, second, length).ids;

  Generator generator = chat.generator();
  const int64_t first_job = generator.enqueue(with_picture.ids, greedy_options(with_picture, length));
  for (int i = 0; i < 4; ++i) (void)generator.step();
  const int64_t second_job = generator.enqueue(second.ids, greedy_options(second, length));
  run_all(generator);
  EXPECT_EQ(generator.take_result(first_job).ids, expected_first);
  const JobResult found = generator.take_result(second_job);
  EXPECT_EQ(found.ids, expected_second);
  EXPECT_GT(found.reused_tokens, with_picture.embeddings[0].length());
}

TEST_P(GeneratorGreedy, APictureThatSeveralJobsBringAtOnceIsReadOnce) {
  const TestPrompt second = chat.prompt(with_picture.embeddings, "Where was it taken?");
  Generator fresh = chat.generator();
  const std::vector<int64_t> expected_first = answer(fresh, with_picture, length).ids;
  fresh.clear_cache();
  const std::vector<int64_t> expected_second = answer(fresh, second, length).ids;

  Generator generator = chat.generator({.max_jobs = 3, .max_tokens = 256, .prefill_chunk = 12});
  std::vector<int64_t> jobs;
  for (const TestPrompt& prompt : {with_picture, second, text})
    jobs.push_back(generator.enqueue(prompt.ids, greedy_options(prompt, length)));
  run_all(generator);
  const JobResult first_result = generator.take_result(jobs[0]);
  const JobResult second_result = generator.take_result(jobs[1]);
  EXPECT_EQ(first_result.ids, expected_first);
  EXPECT_EQ(second_result.ids, expected_second);
  EXPECT_EQ(first_result.reused_tokens, 0);
  EXPECT_GT(second_result.reused_tokens, with_picture.embeddings[0].length());
  EXPECT_EQ(generator.take_result(jobs[2]).ids.size(), static_cast<size_t>(length));
}

TEST_P(GeneratorGreedy, OtherRowsUnderTheSameTextAreNotReused) {
  const TestPrompt other = chat.prompt({chat.embed(9)}, "What is this?");
  Generator fresh = chat.generator();
  const std::vector<int64_t> expected = answer(fresh, other, length).ids;
  Generator generator = chat.generator();
  (void)answer(generator, with_picture, length);
  const JobResult found = answer(generator, other, length);
  EXPECT_EQ(found.ids, expected);
  EXPECT_LT(found.reused_tokens, static_cast<int64_t>(other.ids.size()) - other.embeddings[0].length());
}

INSTANTIATE_TEST_SUITE_P(Families, GeneratorGreedy, testing::ValuesIn(chat_names),
                         [](const auto& of_family) { return of_family.param; });

class GeneratorGolden : public testing::TestWithParam<std::string> {
 protected:
  const TinyChat& chat = TinyChat::of(GetParam());
};

TEST_P(GeneratorGolden, IsTransformersGenerate) {
  const TextGolden golden(GetParam());
  const TextCases cases(golden);
  std::map<std::string, std::vector<int64_t>> expected;
  Generator alone = chat.generator({.max_jobs = 1, .max_tokens = 1024});
  for (const std::string& name : golden.cases()) {
    const TextCase given = cases.get(name);
    const TestPrompt prompt{given.ids, given.embeddings};
    expected[name] = golden.golden.values<int64_t>(name + ".new_ids");
    EXPECT_EQ(expected[name].size(), 64U);
    const JobResult found = answer(alone, prompt, static_cast<int64_t>(expected[name].size()));
    EXPECT_EQ(found.ids, expected[name]) << name;
    const auto logprobs = golden.golden.values<float>(name + ".new_logprobs");
    ASSERT_EQ(found.logprobs.size(), logprobs.size());
    for (size_t i = 0; i < logprobs.size(); ++i) EXPECT_NEAR(found.logprobs[i], logprobs[i], 1e-4) << name << " " << i;
  }
  // All at once, in chunks.
  Generator together = chat.generator({.max_jobs = 3, .max_tokens = 1024, .prefill_chunk = 20});
  std::map<int64_t, std::string> jobs;
  for (const auto& [name, ids] : expected) {
    const TextCase given = cases.get(name);
    const TestPrompt prompt{given.ids, given.embeddings};
    jobs[together.enqueue(prompt.ids, greedy_options(prompt, static_cast<int64_t>(ids.size())))] = name;
  }
  run_all(together);
  for (const auto& [job, name] : jobs) EXPECT_EQ(together.take_result(job).ids, expected[name]) << name;
}

/// transformers' answer is to the whole second prompt, which it computed without a cache of the first.
TEST_P(GeneratorGolden, ASecondQuestionAboutAPictureIsTransformersGenerate) {
  const TextGolden golden(GetParam());
  const TextCases cases(golden);
  Generator generator = chat.generator({.max_jobs = 1, .max_tokens = 1024});
  const auto ask = [&](const std::string& name) {
    const TextCase given = cases.get(name);
    const auto expected = golden.golden.values<int64_t>(name + ".new_ids");
    JobResult found = answer(generator, {given.ids, given.embeddings}, static_cast<int64_t>(expected.size()));
    EXPECT_EQ(found.ids, expected) << name;
    return found;
  };
  EXPECT_EQ(ask("one").reused_tokens, 0);
  EXPECT_GT(ask("again").reused_tokens, cases.get("again").embeddings[0].length());
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, GeneratorGolden, testing::ValuesIn(golden_names), [](const auto& of_checkpoint) {
  std::string name = of_checkpoint.param;
  std::ranges::replace(name, '/', '_');
  return name;
});

TEST(GeneratorCache, TheLeastRecentlyUsedPrefixIsGivenUp) {
  const TinyChat& chat = TinyChat::of("mistral3_window_tied");
  Generator generator = chat.generator();  // two slots
  const TestPrompt a = chat.prompt({chat.embed(1)}, "A");
  const TestPrompt b = chat.prompt({chat.embed(2)}, "B");
  const TestPrompt c = chat.prompt({chat.embed(3)}, "C");
  const auto reuses = [&](const TestPrompt& prompt) {
    return answer(generator, prompt, 2).reused_tokens > prompt.embeddings[0].length();
  };
  EXPECT_FALSE(reuses(a));
  EXPECT_FALSE(reuses(b));
  EXPECT_TRUE(reuses(a));
  EXPECT_FALSE(reuses(c)) << "takes the slot of b";
  EXPECT_TRUE(reuses(a));
  EXPECT_FALSE(reuses(b));
}

TEST(GeneratorCache, ABlockThatIsSeenInBothDirectionsIsReusedWholeOrNotAtAll) {
  const TinyChat& chat = TinyChat::of("gemma3_window");
  const TestPrompt whole = chat.prompt({chat.embed(1)}, "What is this?");
  // The same picture without its last rows: a shorter block, whose rows have seen less.
  TestPrompt shorter = whole;
  const int64_t last_id = whole.embeddings[0].first_id() + whole.embeddings[0].length() - 1;
  std::erase_if(shorter.ids, [&](int64_t id) { return id >= last_id - 1 && id <= last_id; });
  ASSERT_EQ(shorter.ids.size() + 2, whole.ids.size());
  const auto block_begin = std::ranges::find(whole.ids, whole.embeddings[0].first_id()) - whole.ids.begin();
  for (const auto& [first, second] : {std::pair(whole, shorter), std::pair(shorter, whole)}) {
    Generator fresh = chat.generator();
    const JobResult expected = answer(fresh, second, length);
    Generator generator = chat.generator();
    (void)answer(generator, first, length);
    const JobResult found = answer(generator, second, length);
    EXPECT_EQ(found.reused_tokens, block_begin);
    EXPECT_EQ(found.ids, expected.ids);
    for (size_t i = 0; i < expected.logprobs.size(); ++i) EXPECT_NEAR(found.logprobs[i], expected.logprobs[i], 1e-5);
  }
}

TEST(GeneratorThreads, GeneratorsOfSeveralThreadsShareAModel) {
  const TinyChat& chat = TinyChat::of("mistral3_window_tied");
  std::vector<TestPrompt> prompts;
  std::vector<std::vector<int64_t>> expected;
  for (uint64_t i = 0; i < 4; ++i) {
    prompts.push_back(chat.prompt({chat.embed(i)}, "Question " + std::to_string(i)));
    Generator generator = chat.generator();
    expected.push_back(answer(generator, prompts.back(), length).ids);
  }
  std::vector<std::vector<int64_t>> found(prompts.size());
  {
    std::vector<std::jthread> threads;
    for (size_t i = 0; i < prompts.size(); ++i)
      threads.emplace_back([&, i] {
        Generator generator = chat.generator();
        found[i] = answer(generator, prompts[i], length).ids;
      });
  }
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace oriel
