// The generator as its users see it. Beside it: generator_job.cpp, what becomes of one job's tokens;
// generator_slots.cpp, who gets which part of the cache; generator_step.cpp, what is computed together.
#include <oriel/generator.hpp>

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "generator_impl.hpp"
#include "torch_errors.hpp"

namespace oriel {
namespace {

constexpr int64_t default_max_tokens = 8192;
constexpr int64_t most_jobs = 4096;

GeneratorOptions checked(GeneratorOptions options, int64_t max_positions) {
  const auto check = [](const char* field, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most)
      throw_error(ErrorCode::invalid_argument, "GeneratorOptions::{}: expected {} to {}, got {}", field, least, most,
                  value);
  };
  check("max_jobs", options.max_jobs, 1, most_jobs);
  check("max_tokens", options.max_tokens, 0, max_positions);
  check("prefill_chunk", options.prefill_chunk, 1, int64_t{1} << 30);
  if (options.max_tokens == 0) options.max_tokens = std::min(max_positions, default_max_tokens);
  return options;
}

void check_job(const JobOptions& options, int64_t vocabulary) {
  if (options.max_new_tokens < 1)
    throw_error(ErrorCode::invalid_argument, "JobOptions::max_new_tokens: expected 1 or more, got {}",
                options.max_new_tokens);
  if (options.min_new_tokens < 0 || options.min_new_tokens > options.max_new_tokens)
    throw_error(ErrorCode::invalid_argument, "JobOptions::min_new_tokens: expected 0 to {} (max_new_tokens), got {}",
                options.max_new_tokens, options.min_new_tokens);
  for (const int64_t id : options.stop_ids.value_or(std::vector<int64_t>()))
    if (id < 0 || id >= vocabulary)
      throw_error(ErrorCode::invalid_argument, "JobOptions::stop_ids: expected ids of 0 to {}, got {}", vocabulary - 1,
                  id);
  text::check_settings(options.sampler, vocabulary);
}

/// So that what has been computed is not lost for want of it.
void make_room(std::vector<JobEvent>& events, size_t more) {
  with_torch_errors("generator", [&] {
    const size_t needed = events.size() + more;
    if (needed > events.capacity()) events.reserve(std::max(needed, 2 * events.capacity()));
  });
}

}  // namespace

Generator::Impl::Impl(std::shared_ptr<const Model> given_model, Tokenizer given_tokenizer,
                      const GeneratorOptions& given)
    : model(std::move(given_model)),
      tokenizer(std::move(given_tokenizer)),
      options(checked(given, model->traits().max_positions)),
      cache(model->make_cache(options.max_jobs, options.max_tokens)),
      slots(static_cast<size_t>(options.max_jobs)) {}

int64_t Generator::Impl::enqueue(std::vector<int64_t> prompt, JobOptions job_options) {
  check_job(job_options, model->traits().decoder.vocabulary);
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  if (prompt_tokens > options.max_tokens || job_options.max_new_tokens > options.max_tokens - prompt_tokens)
    throw_error(ErrorCode::limit_exceeded,
                "job: expected at most {} tokens (GeneratorOptions::max_tokens), got {} of the prompt and {} new ones",
                options.max_tokens, prompt_tokens, job_options.max_new_tokens);
  Model::Prompt prepared = model->prepare(prompt, job_options.embeddings);
  std::map<int64_t, JobResult> result;
  result.try_emplace(next_number);
  Job& job = jobs.try_emplace(next_number, next_number, std::move(prepared), std::move(job_options), *model, tokenizer)
                 .first->second;
  job.place = result.extract(result.begin());
  return next_number++;
}

JobResult Generator::Impl::take_result(int64_t number) {
  const auto place = results.find(number);
  if (place == results.end())
    throw_error(ErrorCode::invalid_argument, "job {}: expected one that has finished, got one that {}", number,
                number < 0 || number >= next_number ? "never was"
                : jobs.contains(number)             ? "waits or runs"
                                                    : "had its result taken");
  JobResult result = std::move(place->second);
  results.erase(place);
  std::erase_if(kept_events, [&](const JobEvent& event) { return event.job == number; });
  return result;
}

Generator::Generator(const TextModel& model, Tokenizer tokenizer, const GeneratorOptions& options)
    : impl_(std::make_unique<Impl>(model.impl_, std::move(tokenizer), options)) {}
Generator::Generator(Generator&&) noexcept = default;
Generator& Generator::operator=(Generator&&) noexcept = default;
Generator::~Generator() = default;

JobResult Generator::generate(std::span<const int64_t> prompt, const JobOptions& options,
                              const std::function<void(std::string_view)>& on_text) {
  std::vector<JobEvent> events;
  make_room(events, 1);
  const int64_t number = with_torch_errors("job", [&] {
    return impl_->enqueue({prompt.begin(), prompt.end()}, options);
  });
  try {
    while (impl_->jobs.contains(number)) {
      make_room(events, impl_->jobs.size());
      make_room(impl_->kept_events, impl_->jobs.size());
      impl_->advance(events);
      for (JobEvent& event : events)
        if (event.job != number) impl_->kept_events.push_back(std::move(event));
      for (const JobEvent& event : events)
        if (event.job == number && on_text && !event.text.empty()) on_text(event.text);
      events.clear();
    }
  } catch (...) {
    events.clear();  // its room stays
    if (const auto job = impl_->jobs.find(number); job != impl_->jobs.end())
      impl_->finish(job->second, StopReason::cancelled, events);
    impl_->results.erase(number);
    throw;
  }
  return impl_->take_result(number);
}

int64_t Generator::enqueue(std::vector<int64_t> prompt, JobOptions options) {
  return with_torch_errors("job", [&] { return impl_->enqueue(std::move(prompt), std::move(options)); });
}

std::vector<JobEvent> Generator::step() {
  make_room(impl_->kept_events, impl_->jobs.size());
  std::vector<JobEvent> events = std::exchange(impl_->kept_events, {});
  impl_->advance(events);
  return events;
}

JobEvents::Iterator JobEvents::begin() {
  if (next_ == events_.size()) refill();
  return Iterator(this);
}

void JobEvents::advance() {
  if (++next_ == events_.size()) refill();
}

void JobEvents::refill() {
  events_.clear();
  next_ = 0;
  while (events_.empty() && generator_->remaining_jobs() > 0) events_ = generator_->step();
}

void Generator::cancel(int64_t job) {
  if (job < 0 || job >= impl_->next_number)
    throw_error(ErrorCode::invalid_argument, "job {}: expected one that was queued, got one that never was", job);
  const auto place = impl_->jobs.find(job);
  if (place == impl_->jobs.end()) return;
  make_room(impl_->kept_events, 1);
  impl_->finish(place->second, StopReason::cancelled, impl_->kept_events);
}

int64_t Generator::remaining_jobs() const noexcept {
  const auto ended = std::ranges::count(impl_->kept_events, JobEvent::Stage::finished, &JobEvent::stage);
  return static_cast<int64_t>(impl_->jobs.size()) + ended;
}

JobResult Generator::take_result(int64_t job) { return impl_->take_result(job); }

void Generator::clear_cache() {
  for (Impl::Slot& slot : impl_->slots)
    if (slot.is_free) slot = {};
}

}  // namespace oriel
