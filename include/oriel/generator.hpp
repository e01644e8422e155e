#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include <oriel/error.hpp>
#include <oriel/export.hpp>
#include <oriel/mm_embedding.hpp>
#include <oriel/sampler_settings.hpp>
#include <oriel/tensor.hpp>
#include <oriel/text_model.hpp>
#include <oriel/tokenizer.hpp>

namespace oriel {

enum class StopReason { stop_token, stop_string, max_new_tokens, cancelled, failed };

/// What a job is told. Immutable once it is queued.
struct JobOptions {
  std::vector<MMEmbedding> embeddings = {};  ///< whose ids the prompt holds
  int64_t max_new_tokens = 512;
  int64_t min_new_tokens = 0;  ///< stop tokens can't be chosen until then
  SamplerSettings sampler = {};
  uint64_t seed = 0;                                  ///< equal seeds, prompts and settings give equal draws
  std::optional<std::vector<int64_t>> stop_ids = {};  ///< unset: the model's
  std::vector<std::string> stop_strings = {};         ///< not part of the text; whichever is complete first
  bool keep_stop_token = false;                       ///< the stop token is the last of ids
  bool ignore_stop_ids = false;                       ///< go on to max_new_tokens
  bool prompt_logits = false;                         ///< keep them in the result; the whole prompt is computed then
  DecodeOptions decode = {};
  std::stop_token cancel = {};  ///< looked at before every step
};

/// What a job has to say at one step.
struct JobEvent {
  enum class Stage { prefill, streaming, finished };
  int64_t job = 0;
  Stage stage = Stage::streaming;
  int64_t prefilled = 0;          ///< prompt tokens computed or found in the cache
  int64_t prompt_tokens = 0;      ///< of so many
  std::string text = {};          ///< new since the last event, in whole characters
  std::vector<int64_t> ids = {};  ///< new since the last event
};

/// What a job has become. After `cancelled` and `failed` it holds what there was until then.
struct JobResult {
  std::string text = {};             ///< ids decoded, up to the stop string
  std::vector<int64_t> ids = {};     ///< without the stop token, unless it was to be kept; with those of a stop string
  std::vector<float> logprobs = {};  ///< of ids: log-softmax of the raw float32 logits
  Tensor prompt_logits = {};         ///< if asked for: float32 [prompt_tokens, vocabulary] on the CPU, raw
  StopReason reason = StopReason::stop_token;
  std::optional<ErrorCode> error_code = {};  ///< if it failed
  std::string error = {};                    ///< why
  std::optional<int64_t> stop_id = {};
  std::string stop_string = {};
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;  ///< of the prompt, found in the KV cache
  double queued_seconds = 0;
  double prefill_seconds = 0;  ///< to the first new token
  double decode_seconds = 0;   ///< from there to the end
};

struct GeneratorOptions {
  int64_t max_jobs = 8;          ///< running at once; more wait
  int64_t max_tokens = 0;        ///< of one job, prompt and answer; 0: the model's max_positions, at most 8192
  int64_t prefill_chunk = 2048;  ///< prompt tokens computed in one step; a block seen in both directions is never cut
};

class Generator;

/// The events of a generator as a range, for one pass: each is what the next step() has to say. See Generator::events.
class ORIEL_API JobEvents {
 public:
  class ORIEL_API Iterator {
   public:
    using iterator_concept = std::input_iterator_tag;
    using value_type = JobEvent;
    using difference_type = std::ptrdiff_t;
    [[nodiscard]] const JobEvent& operator*() const { return range_->events_[range_->next_]; }
    [[nodiscard]] const JobEvent* operator->() const { return &**this; }
    Iterator& operator++() {
      range_->advance();
      return *this;
    }
    void operator++(int) { ++*this; }
    friend bool operator==(const Iterator& at, std::default_sentinel_t) { return at.is_at_end(); }

   private:
    friend class JobEvents;
    explicit Iterator(JobEvents* range) : range_(range) {}
    [[nodiscard]] bool is_at_end() const { return range_->next_ == range_->events_.size(); }
    JobEvents* range_;
  };

  /// Makes the first step, unless a pass has begun: then it goes on at the event it was left at.
  [[nodiscard]] Iterator begin();
  [[nodiscard]] static std::default_sentinel_t end() { return {}; }

 private:
  friend class Generator;
  explicit JobEvents(Generator& generator) : generator_(&generator) {}
  void advance();
  void refill();
  Generator* generator_;
  std::vector<JobEvent> events_;  // of the last step
  size_t next_ = 0;
};

/// Answers prompts: continuous batching over a KV cache that is allocated once.
///
/// What the cache holds of earlier and of running jobs is reused by a new job for as many ids from its begin as agree:
/// a second question about a picture computes the question alone. Ids of embeddings are unique in the process, so equal
/// ids are equal rows. A job waits for what another is about to compute of its prompt. When all of the cache is taken,
/// what was used least recently is given up.
///
/// One thread at a time may call a generator; several generators may share a model. Memory of the cache, on the model's
/// device: max_jobs * max_tokens * model.cache_bytes_per_token(). After any error the generator stays usable. One that
/// was moved from may only be assigned to or destroyed.
class ORIEL_API Generator {
 public:
  /// Shares the model's weights: `model` need not outlive it. Throws out_of_memory, limit_exceeded, invalid_argument.
  Generator(const TextModel& model, Tokenizer tokenizer, const GeneratorOptions& options = {});
  Generator(Generator&&) noexcept;
  Generator& operator=(Generator&&) noexcept;
  ~Generator();

  /// One prompt to its end; queued jobs go on beside it, and what they have to say comes with the next step().
  /// `on_text` gets the text as it becomes certain; if it throws, the job ends and the exception goes on to the caller.
  /// Throws as enqueue does; what goes wrong later is in the result.
  [[nodiscard]] JobResult generate(std::span<const int64_t> prompt, const JobOptions& options = {},
                                   const std::function<void(std::string_view)>& on_text = {});

  /// Queues a job and returns its number. Throws invalid_argument for an option out of range, an empty prompt, or an id
  /// that neither the vocabulary nor the given embeddings have, limit_exceeded for a job longer than max_tokens.
  [[nodiscard]] int64_t enqueue(std::vector<int64_t> prompt, JobOptions options = {});
  /// One step: a token for each job that has its prompt behind it, and up to prefill_chunk tokens of the prompts of
  /// others. An event for each of these jobs; none when no job is left. A job that fails fails alone, and finishes.
  [[nodiscard]] std::vector<JobEvent> step();
  /// The same as a range, until no job is left: for (const JobEvent& event : generator.events()). Jobs may be queued,
  /// cancelled and taken meanwhile. What step() throws comes out of the loop. What a step has told of other jobs is
  /// lost where a loop is left before the end, but their results are not. The range refers to this generator, which may
  /// not be moved meanwhile.
  [[nodiscard]] JobEvents events() { return JobEvents(*this); }
  /// Ends a job: its result can be taken, and the next step() has its last event. One that has ended is left alone.
  /// Throws invalid_argument for a number that was never given.
  void cancel(int64_t job);
  /// Jobs that wait or run, and those whose last event step() has not told yet.
  [[nodiscard]] int64_t remaining_jobs() const noexcept;
  /// The result of a finished job, once; events of it that step() has not told are dropped. Throws invalid_argument for
  /// any other number.
  [[nodiscard]] JobResult take_result(int64_t job);
  /// Forgets what the cache holds of jobs that have ended.
  void clear_cache();

 private:
  struct ORIEL_LOCAL Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace oriel
