#pragma once
// What a Generator holds: slots of one KV cache, and jobs that wait for one or have one.
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <oriel/generator.hpp>
#include <string>
#include <vector>

#include "nn/kv_cache.hpp"
#include "text/prefix.hpp"
#include "text/sampler.hpp"
#include "text/stop_strings.hpp"
#include "text_model_impl.hpp"

namespace oriel {

struct Generator::Impl {
  using Model = TextModel::Impl;
  using Clock = std::chrono::steady_clock;

  /// One sequence's room in the cache, and the tokens whose keys and values it holds.
  struct Slot {
    std::vector<int64_t> ids;
    std::vector<int64_t> positions;  // [ids, axes]
    std::vector<text::Block> blocks;
    int64_t last_used = 0;  // 0: never
    bool is_free = true;
  };

  struct Job {
    Job(int64_t number, Model::Prompt prompt, JobOptions options, const Model& model, const Tokenizer& tokenizer);

    [[nodiscard]] int64_t answer_length() const { return static_cast<int64_t>(result.ids.size()); }
    [[nodiscard]] bool is_prefilled() const { return prefilled == prompt.size(); }
    /// The ids that end the answer but may not be chosen yet.
    [[nodiscard]] std::span<const int64_t> forbidden() const;
    /// Takes the next id. Returns why the job ends with it, if it does.
    [[nodiscard]] std::optional<StopReason> accept(text::Choice choice);
    /// Sets how the job ended, and passes on what was held back.
    void end(StopReason reason);
    /// What is new since the last event.
    [[nodiscard]] JobEvent take_event(JobEvent::Stage stage);

    int64_t number;
    Model::Prompt prompt;
    JobOptions options;
    std::vector<int64_t> stop_ids;
    text::Sampler sampler;
    bool is_plain_greedy;
    TextStream stream;
    text::StopStrings stops;
    int64_t slot = -1;      // -1: waits
    int64_t prefilled = 0;  // tokens of the prompt
    JobResult result;
    size_t reported_text = 0;  // bytes of result.text in events
    size_t reported_ids = 0;
    Clock::time_point queued = Clock::now();
    Clock::time_point started = queued;
    Clock::time_point answered = queued;  // the first new token

   private:
    void add(text::Choice choice);
  };

  /// What one job computes in one step.
  struct Task {
    Job* job;
    std::vector<int64_t> ids;
    Model::Run run;
    /// Whether the argmax of the raw logits is the next id.
    [[nodiscard]] bool wants_argmax() const {
      return run.logits != Model::Logits::none && job->is_plain_greedy && job->forbidden().empty();
    }
  };

  Impl(std::shared_ptr<const Model> model, Tokenizer tokenizer, const GeneratorOptions& options);

  [[nodiscard]] int64_t enqueue(std::vector<int64_t> prompt, JobOptions options);
  /// One step, without the events that are kept for the next call of step().
  [[nodiscard]] std::vector<JobEvent> advance();
  void finish(Job& job, StopReason reason, std::vector<JobEvent>& events);
  void fail(Job& job, const Error& error, std::vector<JobEvent>& events);
  [[nodiscard]] JobResult take_result(int64_t number);

  std::shared_ptr<const Model> model;
  Tokenizer tokenizer;
  GeneratorOptions options;
  nn::KvCache cache;
  std::vector<Slot> slots;
  std::map<int64_t, Job> jobs;  // that wait or run, by number: first come, first served
  std::map<int64_t, JobResult> results;
  std::vector<JobEvent> kept_events;
  int64_t next_number = 0;
  int64_t uses = 0;  // of slots

 private:
  void end_cancelled(std::vector<JobEvent>& events);
  void start_waiting(std::vector<JobEvent>& events);
  /// Gives the job a free slot, with as much of its prompt as the cache holds.
  void start(Job& job);
  [[nodiscard]] std::vector<Task> plan();
  void compute(std::span<Task> tasks, std::vector<JobEvent>& events);
  /// Notes in the job's slot what has been computed.
  void remember(const Task& task);
  [[nodiscard]] text::Choice choose(Job& job, const at::Tensor& logits);
  void forget(Slot& slot);
};

/// [axes, n] as one column after the other.
[[nodiscard]] std::vector<int64_t> by_token(const at::Tensor& positions);

}  // namespace oriel
