#pragma once
// What a Generator holds: slots of one KV cache, and jobs that wait for one or have one.
#include <chrono>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <optional>
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

    [[nodiscard]] text::Sequence sequence() const { return {prompt.ids, positions, blocks}; }
    [[nodiscard]] int64_t answer_length() const { return static_cast<int64_t>(result.ids.size()); }
    [[nodiscard]] bool is_prefilled() const { return prefilled == prompt.size(); }
    [[nodiscard]] bool has_answered() const { return !result.ids.empty() || result.stop_id; }
    /// The ids that end the answer but may not be chosen yet.
    [[nodiscard]] std::span<const int64_t> forbidden() const;
    /// Takes the next id. Returns why the job ends with it, if it does.
    [[nodiscard]] std::optional<StopReason> accept(text::Choice choice);
    /// Keeps logits of the next tokens of the prompt, [tokens, vocabulary].
    void keep(const at::Tensor& logits);
    /// Sets how the job ended, and passes on what was held back.
    void end(StopReason reason);
    /// What is new since the last event.
    [[nodiscard]] JobEvent take_event(JobEvent::Stage stage);

    int64_t number;
    Model::Prompt prompt;
    std::vector<int64_t> positions;  // of the prompt, [ids, axes]
    std::vector<text::Block> blocks;
    JobOptions options;
    std::vector<int64_t> stop_ids;
    text::Sampler sampler;
    bool is_plain_greedy;
    TextStream stream;
    text::StopStrings stops;
    int64_t slot = -1;      // -1: waits
    int64_t prefilled = 0;  // tokens of the prompt
    JobResult result;
    at::Tensor prompt_logits;  // float32 [prompt, vocabulary] on the CPU; undefined: not asked for, or none so far
    std::map<int64_t, JobResult>::node_type place;  // where the result goes: made when there is memory
    size_t reported_text = 0;                       // bytes of result.text in events
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
    bool chooses;  // the next id, from the logits of the run's last token
    [[nodiscard]] int64_t logit_rows() const {
      return run.logits == Model::Logits::none ? 0 : run.logits == Model::Logits::last ? 1 : run.tokens();
    }
    /// Whether the argmax of the raw logits is the next id.
    [[nodiscard]] bool wants_argmax() const { return chooses && job->is_plain_greedy && job->forbidden().empty(); }
  };

  Impl(std::shared_ptr<const Model> model, Tokenizer tokenizer, const GeneratorOptions& options);

  [[nodiscard]] int64_t enqueue(std::vector<int64_t> prompt, JobOptions options);
  /// One step. `events` must have room for one event of each job: then nothing is thrown.
  void advance(std::vector<JobEvent>& events);
  /// Never throws, if `events` has room: a job must come to its end where memory has run out. Its last event may then
  /// lack text and ids, which are in the result.
  void finish(Job& job, StopReason reason, std::vector<JobEvent>& events);
  void fail(Job& job, ErrorCode code, const char* error, std::vector<JobEvent>& events);
  /// Runs `body`; the job fails with what that throws.
  template <typename Body>
  void run_for(Job& job, std::vector<JobEvent>& events, const Body& body);
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
  struct Prefix {
    size_t slot = 0;
    int64_t tokens = 0;
  };
  /// The longest that a slot holds of a job's prompt, in a free slot if there is a choice.
  [[nodiscard]] Prefix longest_prefix(const Job& job) const;
  /// Whether a running job is about to compute more of the prompt than the cache holds.
  [[nodiscard]] bool is_being_computed(const Job& job) const;
  /// Gives the job a free slot, with as much of its prompt as the cache holds.
  void start(Job& job);
  /// How much of prompts a step may still compute.
  struct ChunkBudget {
    int64_t tokens = 0;
    bool is_touched = false;
  };
  /// What each running job computes next. A job for which that can't be made ready fails.
  [[nodiscard]] std::vector<Task> plan(std::vector<JobEvent>& events);
  [[nodiscard]] std::optional<Task> next_task(Job& job, ChunkBudget& budget) const;
  void compute(std::span<Task> tasks, std::vector<JobEvent>& events);
  /// Notes in the job's slot what has been computed.
  void remember(const Task& task);
  struct Chosen {
    text::Choice choice;
    std::exception_ptr error;  ///< of this job alone
  };
  /// The next id of each task that has logits, in their order.
  [[nodiscard]] static std::vector<Chosen> choose(std::span<const Task> tasks, const at::Tensor& logits);
  /// Leaves nothing of a job in its slot; what goes wrong there is added to the job's error.
  void clear_slot(Job& job) noexcept;
  void forget(Slot& slot);
};

/// [axes, n] as one column after the other.
[[nodiscard]] std::vector<int64_t> by_token(const at::Tensor& positions);

}  // namespace oriel
