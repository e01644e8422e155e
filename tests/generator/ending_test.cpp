// How jobs end: stop tokens and strings, lengths, cancellation, errors.
#include <gtest/gtest.h>

#include <set>
#include <stdexcept>

#include "generator/tiny_chat.hpp"

namespace oriel {
namespace {

constexpr int64_t length = 24;

class GeneratorEnding : public testing::Test {
 protected:
  const TinyChat& chat = TinyChat::of("qwen2_5_vl_window");
  Generator generator = chat.generator();
  TestPrompt prompt = chat.prompt({chat.embed(1)}, "What is this?");
  /// The penalty keeps the answer of a random model from repeating itself.
  JobOptions options = with_penalty(greedy_options(prompt, length));
  JobResult whole = generate();

  static JobOptions with_penalty(JobOptions options) {
    options.sampler.repetition_penalty = 1.5;
    return options;
  }
  [[nodiscard]] JobResult generate() { return generator.generate(prompt.ids, options); }
  /// The first new token that did not occur before, from `begin` on.
  [[nodiscard]] size_t first_new(size_t begin) const {
    for (size_t i = begin; i < whole.ids.size(); ++i)
      if (std::find(whole.ids.begin(), whole.ids.begin() + static_cast<ptrdiff_t>(i), whole.ids[i]) ==
          whole.ids.begin() + static_cast<ptrdiff_t>(i))
        return i;
    throw std::logic_error("the answer repeats itself");
  }
  [[nodiscard]] std::vector<int64_t> begin_of_answer(size_t count) const {
    return {whole.ids.begin(), whole.ids.begin() + static_cast<ptrdiff_t>(count)};
  }
};

TEST_F(GeneratorEnding, AStopTokenIsLeftOutUnlessItIsToBeKept) {
  const size_t stop = first_new(3);
  options.ignore_stop_ids = false;
  options.stop_ids = {whole.ids[stop]};
  JobResult result = generate();
  EXPECT_EQ(result.reason, StopReason::stop_token);
  EXPECT_EQ(result.stop_id, whole.ids[stop]);
  EXPECT_EQ(result.ids, begin_of_answer(stop));
  EXPECT_EQ(result.logprobs.size(), stop);
  EXPECT_EQ(result.text, chat.tokenizer.decode(result.ids));

  options.keep_stop_token = true;
  result = generate();
  EXPECT_EQ(result.reason, StopReason::stop_token);
  EXPECT_EQ(result.ids, begin_of_answer(stop + 1));
  EXPECT_EQ(result.logprobs.size(), stop + 1);

  options.ignore_stop_ids = true;
  EXPECT_EQ(generate().ids, whole.ids);
}

TEST_F(GeneratorEnding, StopTokensCanNotBeChosenBeforeTheLeastLength) {
  const size_t stop = first_new(3);
  options.ignore_stop_ids = false;
  options.stop_ids = {whole.ids[stop]};
  options.min_new_tokens = static_cast<int64_t>(stop) + 2;
  const JobResult result = generate();
  EXPECT_GE(result.ids.size(), stop + 2);
  EXPECT_EQ(std::ranges::find(result.ids, whole.ids[stop]), result.ids.end());
  EXPECT_EQ(std::vector(result.ids.begin(), result.ids.begin() + static_cast<ptrdiff_t>(stop)), begin_of_answer(stop));
  // At the least length itself it may stop.
  options.min_new_tokens = static_cast<int64_t>(stop);
  EXPECT_EQ(generate().ids, begin_of_answer(stop));
}

TEST_F(GeneratorEnding, TheModelsOwnStopTokensCountUnlessOthersAreGiven) {
  options.ignore_stop_ids = false;
  options.sampler.logit_bias[chat.model.stop_ids().at(0)] = 1e6;
  EXPECT_EQ(generate().stop_id, chat.model.stop_ids()[0]);
  options.stop_ids = std::vector<int64_t>();
  EXPECT_EQ(generate().ids, std::vector<int64_t>(length, chat.model.stop_ids()[0]));
}

TEST_F(GeneratorEnding, AStopStringEndsTheTextWhereverTokensEnd) {
  const std::string& text = whole.text;
  ASSERT_GT(text.size(), 8U);
  options.ignore_stop_ids = true;
  for (size_t begin = 1; begin + 3 < text.size(); ++begin) {
    const auto is_character = [&](size_t at) { return at == text.size() || (text[at] & 0xc0) != 0x80; };
    if (!is_character(begin) || !is_character(begin + 3)) continue;
    const std::string stop = text.substr(begin, 3);
    options.stop_strings = {"never in the text", stop};
    std::string streamed;
    const JobResult result =
        generator.generate(prompt.ids, options, [&](std::string_view piece) { streamed += piece; });
    EXPECT_EQ(result.text, text.substr(0, text.find(stop)));
    EXPECT_EQ(streamed, result.text);
    EXPECT_EQ(result.reason, StopReason::stop_string);
    EXPECT_EQ(result.stop_string, stop);
    EXPECT_EQ(result.ids, begin_of_answer(result.ids.size()));
  }
}

TEST_F(GeneratorEnding, TextHeldForAStopStringIsFlushedAtTheEnd) {
  size_t last_character = whole.text.size() - 1;
  while ((whole.text[last_character] & 0xc0) == 0x80) --last_character;
  options.stop_strings = {whole.text.substr(last_character) + "never"};
  std::string streamed;
  const JobResult result = generator.generate(prompt.ids, options, [&](std::string_view piece) { streamed += piece; });
  EXPECT_EQ(result.reason, StopReason::max_new_tokens);
  EXPECT_EQ(result.text, whole.text);
  EXPECT_EQ(streamed, whole.text);
}

TEST_F(GeneratorEnding, EventsTellTheWholeStory) {
  Generator chunked = chat.generator({.max_jobs = 1, .max_tokens = 256, .prefill_chunk = 8});
  const int64_t job = chunked.enqueue(prompt.ids, options);
  EXPECT_EQ(chunked.remaining_jobs(), 1);
  const std::vector<JobEvent> events = run_all(chunked)[job];
  std::string text;
  std::vector<int64_t> ids;
  int64_t prefilled = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    const JobEvent& event = events[i];
    EXPECT_EQ(event.stage == JobEvent::Stage::finished, i + 1 == events.size());
    EXPECT_EQ(event.prompt_tokens, static_cast<int64_t>(prompt.ids.size()));
    EXPECT_TRUE(event.prefilled > prefilled || event.prefilled == event.prompt_tokens);
    EXPECT_EQ(event.stage == JobEvent::Stage::prefill, event.prefilled < event.prompt_tokens);
    prefilled = event.prefilled;
    text += event.text;
    ids.insert(ids.end(), event.ids.begin(), event.ids.end());
  }
  EXPECT_EQ(ids, whole.ids);
  EXPECT_EQ(text, whole.text);
  EXPECT_TRUE(chunked.step().empty());
  const JobResult result = chunked.take_result(job);
  EXPECT_EQ(result.text, whole.text);
  EXPECT_GE(result.queued_seconds, 0);
  EXPECT_GT(result.prefill_seconds, 0);
  EXPECT_GT(result.decode_seconds, 0);
}

TEST_F(GeneratorEnding, AStopTokenOfTheCallerCancels) {
  std::stop_source source;
  options.cancel = source.get_token();
  std::string streamed;
  const JobResult result = generator.generate(prompt.ids, options, [&](std::string_view piece) {
    streamed += piece;
    source.request_stop();
  });
  EXPECT_EQ(result.reason, StopReason::cancelled);
  EXPECT_LT(result.ids.size(), whole.ids.size());
  EXPECT_EQ(result.ids, begin_of_answer(result.ids.size()));
  EXPECT_EQ(streamed, result.text);
  // Before anything has begun.
  EXPECT_EQ(generate().reason, StopReason::cancelled);
  options.cancel = {};
  EXPECT_EQ(generate().ids, whole.ids);
}

TEST_F(GeneratorEnding, RunningAndWaitingJobsCanBeCancelledByNumber) {
  Generator one = chat.generator({.max_jobs = 1, .max_tokens = 256});
  const int64_t running = one.enqueue(prompt.ids, options);
  const int64_t waiting = one.enqueue(prompt.ids, options);
  const int64_t last = one.enqueue(prompt.ids, options);
  for (int i = 0; i < 3; ++i) (void)one.step();
  one.cancel(running);
  one.cancel(waiting);
  one.cancel(waiting);
  EXPECT_EQ(one.remaining_jobs(), 3) << "their last events are still to come";
  const std::vector<JobEvent> events = one.step();
  EXPECT_EQ(one.remaining_jobs(), 1);
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].job, running);
  EXPECT_EQ(events[0].stage, JobEvent::Stage::finished);
  EXPECT_EQ(events[1].job, waiting);
  EXPECT_EQ(events[2].job, last);
  run_all(one);
  EXPECT_EQ(one.take_result(running).ids, begin_of_answer(3));
  const JobResult never_ran = one.take_result(waiting);
  EXPECT_EQ(never_ran.reason, StopReason::cancelled);
  EXPECT_TRUE(never_ran.ids.empty());
  EXPECT_EQ(one.take_result(last).ids, whole.ids);
}

TEST_F(GeneratorEnding, AJobThatIsCancelledBeforeItsFirstLogitsLeavesNothingInTheCache) {
  for (const bool by_number : {true, false}) {
    SCOPED_TRACE(by_number);
    Generator chunked = chat.generator({.max_jobs = 1, .max_tokens = 256, .prefill_chunk = 8});
    std::stop_source source;
    JobOptions cancelled = options;
    cancelled.cancel = source.get_token();
    const int64_t job = chunked.enqueue(prompt.ids, cancelled);
    (void)chunked.step();
    if (by_number)
      chunked.cancel(job);
    else
      source.request_stop();
    const std::vector<JobEvent> events = chunked.step();
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].stage, JobEvent::Stage::finished);
    EXPECT_EQ(events[0].prefilled, 8);
    EXPECT_TRUE(events[0].text.empty());
    const JobResult result = chunked.take_result(job);
    EXPECT_EQ(result.reason, StopReason::cancelled);
    EXPECT_TRUE(result.ids.empty());
    EXPECT_EQ(result.error, "");
    const JobResult next = chunked.generate(prompt.ids, options);
    EXPECT_EQ(next.reused_tokens, 0) << "nobody has seen whether these keys and values are numbers";
    EXPECT_EQ(next.ids, whole.ids);
  }
}

TEST_F(GeneratorEnding, ACallbackThatThrowsEndsItsJobAlone) {
  const int64_t other = generator.enqueue(prompt.ids, options);
  EXPECT_THROW(
      (void)generator.generate(prompt.ids, options, [](std::string_view) { throw std::runtime_error("enough"); }),
      std::runtime_error);
  EXPECT_EQ(generator.remaining_jobs(), 1);
  EXPECT_EQ(generate().ids, whole.ids);
  const auto events = run_all(generator);
  ASSERT_EQ(events.size(), 1U) << "the events of the other job, and of no other";
  std::vector<int64_t> ids;
  for (const JobEvent& event : events.at(other)) ids.insert(ids.end(), event.ids.begin(), event.ids.end());
  EXPECT_EQ(ids, whole.ids);
  EXPECT_EQ(generator.take_result(other).ids, whole.ids);
}

TEST_F(GeneratorEnding, AJobThatFailsFailsAlone) {
  // The job that fails when it draws comes first: those behind it must still read their own logits.
  const TestPrompt bad = chat.prompt({poisoned(prompt.embeddings[0])}, "What is this?");
  JobOptions bad_draw = greedy_options(bad, length);
  bad_draw.sampler.temperature = 1;
  const int64_t drawing_job = generator.enqueue(bad.ids, bad_draw);
  const int64_t good_job = generator.enqueue(prompt.ids, options);
  JobOptions nothing_left = options;
  for (int64_t id = 0; id < chat.model.vocabulary_size(); ++id) nothing_left.sampler.logit_bias[id] = -INFINITY;
  const int64_t forbidding_job = generator.enqueue(prompt.ids, nothing_left);
  const int64_t last_job = generator.enqueue(prompt.ids, options);
  const int64_t bad_job = generator.enqueue(bad.ids, greedy_options(bad, length));
  run_all(generator);
  for (const int64_t job : {bad_job, drawing_job}) {
    const JobResult result = generator.take_result(job);
    EXPECT_EQ(result.reason, StopReason::failed);
    EXPECT_EQ(result.error_code, ErrorCode::internal);
    EXPECT_EQ(result.error, "logits: expected finite numbers, got NaN or infinity");
    EXPECT_TRUE(result.ids.empty());
  }
  EXPECT_EQ(generator.take_result(forbidding_job).reason, StopReason::failed);
  EXPECT_EQ(generator.take_result(good_job).ids, whole.ids);
  EXPECT_EQ(generator.take_result(last_job).ids, whole.ids);
  // Nothing of it is left in the cache, in either slot.
  const int64_t first = generator.enqueue(prompt.ids, options);
  const int64_t second = generator.enqueue(prompt.ids, options);
  run_all(generator);
  EXPECT_EQ(generator.take_result(first).ids, whole.ids);
  EXPECT_EQ(generator.take_result(second).ids, whole.ids);
}

TEST_F(GeneratorEnding, AJobThatForbidsEverythingFailsWithTheReason) {
  for (int64_t id = 0; id < chat.model.vocabulary_size(); ++id) options.sampler.logit_bias[id] = -INFINITY;
  const JobResult result = generate();
  EXPECT_EQ(result.reason, StopReason::failed);
  EXPECT_EQ(result.error_code, ErrorCode::invalid_argument);
  EXPECT_EQ(result.error,
            "sampler: expected an id that may follow, but logit_bias and min_new_tokens forbid all of them");
}

TEST_F(GeneratorEnding, DrawsDependOnTheSeedAlone) {
  options.sampler = {.temperature = 1.5, .top_k = 50};
  options.seed = 5;
  const std::vector<int64_t> alone = generate().ids;
  const int64_t other_job = generator.enqueue(prompt.ids, with_penalty(greedy_options(prompt, length)));
  const int64_t same_job = generator.enqueue(prompt.ids, options);
  options.seed = 6;
  const int64_t next_seed = generator.enqueue(prompt.ids, options);
  run_all(generator);
  EXPECT_EQ(generator.take_result(same_job).ids, alone);
  EXPECT_NE(generator.take_result(next_seed).ids, alone);
  EXPECT_EQ(generator.take_result(other_job).ids, whole.ids);
}

TEST_F(GeneratorEnding, TheRepetitionPenaltyCountsThePlaceholderOfAPicture) {
  const int64_t placeholder = prompt.embeddings[0].info().placeholder_id;
  ASSERT_GE(placeholder, 0);
  // A placeholder that would be the most probable, but for the penalty.
  options.max_new_tokens = 1;
  options.sampler.logit_bias[placeholder] = 1e4;
  options.sampler.repetition_penalty = 1e6;
  EXPECT_NE(generate().ids[0], placeholder);
  options.sampler.repetition_penalty = 1.001;
  EXPECT_EQ(generate().ids[0], placeholder);
}

TEST_F(GeneratorEnding, JobsThatCanNotRunAreRefusedAtOnce) {
  const auto refused = [&](ErrorCode code, const std::string& text, const JobOptions& given,
                           const std::vector<int64_t>& ids) {
    expect_error(code, text, [&] { (void)generator.enqueue(ids, given); });
    EXPECT_EQ(generator.remaining_jobs(), 0);
  };
  const auto with = [&](auto change) {
    JobOptions changed = options;
    change(changed);
    return changed;
  };
  refused(ErrorCode::invalid_argument, "JobOptions::max_new_tokens: expected 1 or more, got 0",
          with([](JobOptions& o) { o.max_new_tokens = 0; }), prompt.ids);
  refused(ErrorCode::invalid_argument, "JobOptions::min_new_tokens: expected 0 to 24 (max_new_tokens), got 25",
          with([](JobOptions& o) { o.min_new_tokens = 25; }), prompt.ids);
  const std::string last = std::to_string(chat.model.vocabulary_size() - 1);
  refused(ErrorCode::invalid_argument, "JobOptions::stop_ids: expected ids of 0 to " + last + ", got -1",
          with([](JobOptions& o) { o.stop_ids = {-1}; }), prompt.ids);
  refused(ErrorCode::invalid_argument, "SamplerSettings::top_p: expected a number above 0 and up to 1, got 0",
          with([](JobOptions& o) { o.sampler.top_p = 0; }), prompt.ids);
  refused(ErrorCode::invalid_argument, "JobOptions::stop_strings: expected texts, got an empty one",
          with([](JobOptions& o) { o.stop_strings = {""}; }), prompt.ids);
  refused(ErrorCode::limit_exceeded,
          "job: expected at most 256 tokens (GeneratorOptions::max_tokens), got 250 of the prompt and 24 new ones",
          options, std::vector<int64_t>(250, 1));
  refused(ErrorCode::limit_exceeded,
          "job: expected at most 256 tokens (GeneratorOptions::max_tokens), got 1 of the prompt and "
          "9223372036854775807 new ones",
          with([](JobOptions& o) { o.max_new_tokens = INT64_MAX; }), {1});
  EXPECT_EQ(generate().ids, whole.ids) << "the generator stays usable";
}

TEST_F(GeneratorEnding, ResultsAreTakenOnce) {
  const auto refused = [&](int64_t job, const std::string& reason) {
    expect_error(ErrorCode::invalid_argument,
                 "job " + std::to_string(job) + ": expected one that has finished, got one that " + reason,
                 [&] { (void)generator.take_result(job); });
  };
  const int64_t job = generator.enqueue(prompt.ids, options);
  refused(job, "waits or runs");
  refused(job + 1, "never was");
  refused(-1, "never was");
  run_all(generator);
  (void)generator.take_result(job);
  refused(job, "had its result taken");
  expect_error(ErrorCode::invalid_argument, "job 99: expected one that was queued, got one that never was",
               [&] { generator.cancel(99); });
}

TEST_F(GeneratorEnding, OptionsOfTheGeneratorAreChecked) {
  const auto refused = [&](const GeneratorOptions& given, const std::string& text) {
    expect_error(ErrorCode::invalid_argument, "GeneratorOptions::" + text, [&] { (void)chat.generator(given); });
  };
  const std::string most = std::to_string(chat.model.max_positions());
  refused({.max_jobs = 0}, "max_jobs: expected 1 to 4096, got 0");
  refused({.max_tokens = chat.model.max_positions() + 1},
          "max_tokens: expected 0 to " + most + ", got " + std::to_string(chat.model.max_positions() + 1));
  refused({.max_tokens = 256, .prefill_chunk = 0}, "prefill_chunk: expected 1 to 1073741824, got 0");
}

TEST_F(GeneratorEnding, AModelMayGoBeforeItsGenerators) {
  std::optional<TextModel> model = TextModel::load(chat.directory);
  Generator first(*model, chat.tokenizer, {.max_jobs = 1, .max_tokens = 256});
  Generator second(*model, chat.tokenizer, {.max_jobs = 1, .max_tokens = 256});
  model.reset();
  EXPECT_EQ(first.generate(prompt.ids, options).ids, whole.ids);
  EXPECT_EQ(second.generate(prompt.ids, options).ids, whole.ids);
}

}  // namespace
}  // namespace oriel
