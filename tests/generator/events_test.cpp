// A generator's events as a range.
#include <gtest/gtest.h>

#include <ranges>

#include "generator/tiny_chat.hpp"

namespace oriel {
namespace {

static_assert(std::ranges::input_range<JobEvents>);

class GeneratorEvents : public testing::Test {
 protected:
  const TinyChat& chat = TinyChat::of("qwen2_5_vl_window");
  TestPrompt picture = chat.prompt({chat.embed(1)}, "What is this?");
  TestPrompt text = chat.prompt({}, "Tell me about it.");
  [[nodiscard]] static int64_t enqueue(Generator& generator, const TestPrompt& prompt, int64_t new_tokens) {
    return generator.enqueue(prompt.ids, greedy_options(prompt, new_tokens));
  }
};

TEST_F(GeneratorEvents, TheRangeTellsWhatStepTells) {
  const GeneratorOptions options{.max_jobs = 2, .max_tokens = 256, .prefill_chunk = 12};
  Generator by_step = chat.generator(options);
  Generator by_range = chat.generator(options);
  for (Generator* generator : {&by_step, &by_range}) {
    (void)enqueue(*generator, picture, 9);
    (void)enqueue(*generator, text, 5);
    (void)enqueue(*generator, text, 3);
  }
  std::map<int64_t, std::vector<JobEvent>> expected = run_all(by_step);
  std::map<int64_t, std::vector<JobEvent>> told;
  for (const JobEvent& event : by_range.events()) told[event.job].push_back(event);
  ASSERT_EQ(told.size(), 3U);
  for (const auto& [job, events] : expected) {
    ASSERT_EQ(told[job].size(), events.size()) << "job " << job;
    for (size_t i = 0; i < events.size(); ++i) {
      EXPECT_EQ(told[job][i].stage, events[i].stage);
      EXPECT_EQ(told[job][i].prefilled, events[i].prefilled);
      EXPECT_EQ(told[job][i].text, events[i].text);
      EXPECT_EQ(told[job][i].ids, events[i].ids);
    }
    EXPECT_EQ(by_range.take_result(job).ids, by_step.take_result(job).ids);
  }
}

TEST_F(GeneratorEvents, WithoutJobsTheRangeIsEmpty) {
  Generator generator = chat.generator();
  for (const JobEvent& event : generator.events()) ADD_FAILURE() << "job " << event.job;
}

TEST_F(GeneratorEvents, JobsMayComeEndAndBeTakenInTheLoop) {
  Generator generator = chat.generator();
  const int64_t first = enqueue(generator, text, 4);
  const int64_t endless = enqueue(generator, picture, 100);
  int64_t second = -1;
  std::vector<int64_t> finished;
  for (const JobEvent& event : generator.events()) {
    if (event.stage != JobEvent::Stage::finished) continue;
    finished.push_back(event.job);
    const JobResult result = generator.take_result(event.job);
    EXPECT_EQ(result.reason, event.job == endless ? StopReason::cancelled : StopReason::max_new_tokens);
    if (event.job == first) second = enqueue(generator, text, 2);
    if (event.job == second) generator.cancel(endless);
  }
  EXPECT_EQ(finished, (std::vector<int64_t>{first, second, endless}));
}

TEST_F(GeneratorEvents, ALoopThatWasLeftGoesOnWithTheSameRange) {
  Generator generator = chat.generator();
  const int64_t job = enqueue(generator, text, 6);
  JobEvents events = generator.events();
  std::vector<int64_t> ids;
  for (const JobEvent& event : events) {
    ids = event.ids;
    if (!ids.empty()) break;
  }
  ASSERT_EQ(ids.size(), 1U);
  auto place = events.begin();
  EXPECT_EQ(place->ids, ids) << "the event at which the loop was left is still there";
  for (++place; place != std::default_sentinel; ++place) ids.insert(ids.end(), place->ids.begin(), place->ids.end());
  EXPECT_EQ(generator.take_result(job).ids, ids);
}

}  // namespace
}  // namespace oriel
