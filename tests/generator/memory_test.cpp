// Memory that runs out while jobs are queued and run: a job fails by name, and the generator goes on.
#include <gtest/gtest.h>

#include <optional>
#include <utility>

#include "core/expect_error.hpp"
#include "generator/tiny_chat.hpp"
#include "tower/memory_counter.hpp"

namespace oriel {
namespace {

constexpr int64_t length = 3;

class GeneratorMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!counts_memory()) GTEST_SKIP() << "allocations cannot be made to fail in this build";
  }
  [[nodiscard]] static JobOptions options(const TestPrompt& asked) { return greedy_options(asked, length); }

  const TinyChat& chat = TinyChat::of("qwen2_5_vl_window");
  Generator generator = chat.generator({.max_jobs = 2, .max_tokens = 128});
  TestPrompt prompt = chat.prompt({}, "What is this?");
  JobResult whole = generator.generate(prompt.ids, options(prompt));
};

// Activations of a long prompt are not to be had. Its rows, and the blocks of an answer beside it, are smaller. (Which
// block fails can't be left to chance here: oneDNN does not look whether it got its own.)
TEST_F(GeneratorMemory, APromptWhoseActivationsDoNotFitFailsAlone) {
  std::vector<int64_t> long_prompt;
  for (int64_t i = 0; i < 600; ++i) long_prompt.push_back(prompt.ids[static_cast<size_t>(i * i % 7)]);
  Generator large = chat.generator({.max_jobs = 2, .max_tokens = 640});
  const std::vector<int64_t> expected = large.generate(long_prompt, options(prompt)).ids;
  large.clear_cache();
  const int64_t other = large.enqueue(prompt.ids, options(prompt));
  (void)large.step();
  const int64_t job = large.enqueue(long_prompt, options(prompt));
  {
    const LargeBlocksFail fail(long_prompt.size() * static_cast<size_t>(chat.model.hidden_size()) * sizeof(float) + 1);
    (void)large.step();
  }
  const JobResult result = large.take_result(job);
  EXPECT_EQ(result.reason, StopReason::failed);
  EXPECT_EQ(result.error_code, ErrorCode::out_of_memory);
  EXPECT_TRUE(result.error.starts_with("forward: ")) << result.error;
  EXPECT_TRUE(result.ids.empty());
  run_all(large);
  EXPECT_EQ(large.take_result(other).ids, whole.ids);
  EXPECT_EQ(large.generate(long_prompt, options(prompt)).ids, expected) << "the generator stays usable";
}

TEST_F(GeneratorMemory, AnyBlockThatFailsWhileAJobIsQueuedRefusesIt) {
  int refused = 0;
  for (bool reached = true; reached;) {
    SCOPED_TRACE(refused);
    std::vector<int64_t> ids = prompt.ids;
    JobOptions job_options = options(prompt);
    job_options.stop_strings = {"a stop string that is long enough not to lie inside of its object"};
    std::optional<int64_t> job;
    {
      const BlockFails fail(refused);
      try {
        job = generator.enqueue(std::move(ids), std::move(job_options));
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::out_of_memory) << error.what();
      }
      reached = fail.happened();
    }
    ASSERT_EQ(reached, !job.has_value());
    ASSERT_EQ(generator.remaining_jobs(), reached ? 0 : 1);
    if (!job) ++refused;
  }
  EXPECT_GT(refused, 10);
  run_all(generator);
}

// The text that is held back, the last event, the result: a job comes to its end without room for any of them.
TEST_F(GeneratorMemory, AnyBlockThatFailsWhileAJobEndsLeavesAResult) {
  JobOptions held = options(prompt);
  held.max_new_tokens = 20;
  size_t character = 1;
  while (character < whole.text.size() && (whole.text[character] & 0xc0) == 0x80) ++character;
  held.stop_strings = {whole.text.substr(0, character) + std::string(100, '#'), std::string(100, '#')};
  int64_t block = 0;
  for (bool reached = true; reached; ++block) {
    SCOPED_TRACE(block);
    const int64_t job = generator.enqueue(prompt.ids, held);
    for (int i = 0; i < 15; ++i) (void)generator.step();
    bool cancelled = true;
    {
      const BlockFails fail(block);
      try {
        generator.cancel(job);
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::out_of_memory) << error.what();
        cancelled = false;
      }
      reached = fail.happened();
    }
    if (!cancelled) generator.cancel(job);
    const std::vector<JobEvent> events = generator.step();
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].stage, JobEvent::Stage::finished);
    const JobResult result = generator.take_result(job);
    if (result.reason == StopReason::failed)
      EXPECT_EQ(result.error, "generator: host memory ran out");
    else
      EXPECT_EQ(result.reason, StopReason::cancelled);
    EXPECT_EQ(result.ids.size(), 15U);
    ASSERT_EQ(generator.remaining_jobs(), 0);
  }
  EXPECT_GT(block, 1);
  EXPECT_EQ(generator.generate(prompt.ids, options(prompt)).ids, whole.ids);
}

TEST_F(GeneratorMemory, APromptWhoseRowsDoNotFitFailsAloneWhileItIsPlanned) {
  const TestPrompt pictures = chat.prompt({chat.embed(1, {200, 200})}, "What is this?");
  const auto rows_bytes = pictures.ids.size() * static_cast<size_t>(chat.model.hidden_size()) * sizeof(float);
  const int64_t running = generator.enqueue(prompt.ids, options(prompt));
  (void)generator.step();
  const int64_t job = generator.enqueue(pictures.ids, options(pictures));
  {
    const LargeBlocksFail fail(rows_bytes);
    (void)generator.step();
  }
  EXPECT_EQ(generator.remaining_jobs(), 1);
  const JobResult failed = generator.take_result(job);
  EXPECT_EQ(failed.reason, StopReason::failed);
  EXPECT_EQ(failed.error_code, ErrorCode::out_of_memory);
  EXPECT_TRUE(failed.error.starts_with("prompt: ")) << failed.error;
  run_all(generator);
  EXPECT_EQ(generator.take_result(running).ids, whole.ids);
}

TEST_F(GeneratorMemory, AJobThatCanNotBeMadeLeavesNothing) {
  std::vector<int64_t> ids(100, prompt.ids[0]);
  JobOptions job_options = options(prompt);
  const int64_t before = generator.enqueue(prompt.ids, options(prompt));
  run_all(generator);
  {
    const LargeBlocksFail fail(ids.size() * sizeof(int64_t));
    expect_error(ErrorCode::out_of_memory, "prompt: host memory ran out",
                 [&] { (void)generator.enqueue(std::move(ids), std::move(job_options)); });
  }
  JobOptions no_text = options(prompt);
  no_text.stop_strings = {""};
  expect_error(ErrorCode::invalid_argument, "JobOptions::stop_strings: expected texts, got an empty one",
               [&] { (void)generator.enqueue(prompt.ids, no_text); });
  EXPECT_EQ(generator.remaining_jobs(), 0);
  expect_error(ErrorCode::invalid_argument,
               "job " + std::to_string(before + 1) + ": expected one that has finished, got one that never was",
               [&] { (void)generator.take_result(before + 1); });
  EXPECT_EQ(generator.enqueue(prompt.ids, options(prompt)), before + 1);
  run_all(generator);
  EXPECT_EQ(generator.take_result(before + 1).ids, whole.ids);
}

TEST_F(GeneratorMemory, ACacheThatDoesNotFitIsRefused) {
  const LargeBlocksFail fail(1 << 16);
  try {
    (void)chat.generator({.max_jobs = 64, .max_tokens = 4096});
    FAIL() << "expected out_of_memory";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    EXPECT_TRUE(std::string(error.what()).starts_with("KV cache: ")) << error.what();
  }
}

}  // namespace
}  // namespace oriel
