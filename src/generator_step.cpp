// One step of all running jobs.
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <new>
#include <utility>

#include "core/error.hpp"
#include "generator_impl.hpp"
#include "ops/parallel.hpp"
#include "text/greedy.hpp"
#include "torch_errors.hpp"

namespace oriel {
namespace {

void note_error(JobResult& result, ErrorCode code, const char* text) noexcept {
  result.error_code = code;
  try {
    result.error = text;
  } catch (const std::bad_alloc&) {  // the code says it
  }
}

/// All rows by one copy, through pinned memory, of which libtorch keeps some at hand.
at::Tensor on_host(const at::Tensor& logits) {
  if (!logits.is_cuda()) return logits.contiguous();
  const at::Tensor host = at::empty(logits.sizes(), logits.options().device(at::kCPU).pinned_memory(true));
  return host.copy_(logits);
}

}  // namespace

template <typename Body>
void Generator::Impl::run_for(Job& job, std::vector<JobEvent>& events, const Body& body) {
  try {
    with_torch_errors("generator", body);
  } catch (const Error& error) {
    fail(job, error.code(), error.what(), events);
  } catch (const std::bad_alloc&) {  // not even for the error's text
    fail(job, ErrorCode::out_of_memory, "generator: host memory ran out", events);
  }
}

void Generator::Impl::advance(std::vector<JobEvent>& events) {
  end_cancelled(events);
  start_waiting(events);
  std::vector<Task> tasks = plan(events);
  if (!tasks.empty()) compute(tasks, events);
}

void Generator::Impl::end_cancelled(std::vector<JobEvent>& events) {
  for (auto place = jobs.begin(); place != jobs.end();) {
    Job& job = (place++)->second;
    if (job.options.cancel.stop_requested()) finish(job, StopReason::cancelled, events);
  }
}

void Generator::Impl::start_waiting(std::vector<JobEvent>& events) {
  for (auto place = jobs.begin(); place != jobs.end();) {
    Job& job = (place++)->second;
    if (job.slot >= 0) continue;
    if (std::ranges::none_of(slots, &Slot::is_free)) return;
    // What another reads just now need not be read twice, and would not be read sooner here: prompts come in turn.
    if (is_being_computed(job)) return;
    run_for(job, events, [&] { start(job); });
  }
}

std::vector<Generator::Impl::Task> Generator::Impl::plan(std::vector<JobEvent>& events) {
  std::vector<Task> tasks;
  ChunkBudget budget{.tokens = options.prefill_chunk};
  for (auto place = jobs.begin(); place != jobs.end();) {
    Job& job = (place++)->second;
    if (job.slot < 0) continue;
    run_for(job, events, [&] {
      if (std::optional<Task> task = next_task(job, budget)) tasks.push_back(std::move(*task));
    });
  }
  return tasks;
}

std::optional<Generator::Impl::Task> Generator::Impl::next_task(Job& job, ChunkBudget& budget) const {
  if (job.is_prefilled()) {
    const int64_t id = job.result.ids.back();
    return Task{&job, {id}, Model::next(job.prompt, job.slot, job.answer_length() - 1, id), /*chooses=*/true};
  }
  if (budget.tokens <= 0) return std::nullopt;
  const int64_t begin = job.prefilled;
  const int64_t end = Model::cut_before(job.prompt, begin, begin + std::min(budget.tokens, job.prompt.size() - begin));
  // A block that is longer than a chunk is computed whole, but not beside another's chunk.
  if (budget.is_touched && end - begin > budget.tokens) return std::nullopt;
  const bool is_last = end == job.prompt.size();
  const auto logits = job.options.prompt_logits ? Model::Logits::all
                      : is_last                 ? Model::Logits::last
                                                : Model::Logits::none;
  const std::span<const int64_t> ids = job.prompt.ids;
  const auto chunk = ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
  Task task{&job, {chunk.begin(), chunk.end()}, model->prefill(job.prompt, job.slot, begin, end, logits), is_last};
  budget.tokens -= end - begin;
  budget.is_touched = true;
  return task;
}

void Generator::Impl::compute(std::span<Task> tasks, std::vector<JobEvent>& events) {
  at::Tensor logits;
  std::vector<Chosen> chosen;  // of the tasks that choose
  const auto forward = [&] {
    std::vector<Model::Run> runs;
    for (const Task& task : tasks) runs.push_back(task.run);
    logits = model->forward(runs, cache);
    chosen = choose(tasks, logits);
  };
  if (tasks.size() == 1) {
    const int64_t number = tasks[0].job->number;
    run_for(*tasks[0].job, events, forward);
    if (!jobs.contains(number)) return;
  } else {
    try {
      forward();
    } catch (const std::exception&) {
      // Whose fault it was shows when each is alone. Nothing is lost: a token's keys and values can be written twice.
      for (Task& task : tasks) compute({&task, 1}, events);
      return;
    }
  }
  auto next = chosen.begin();
  int64_t row = 0;
  for (Task& task : tasks) {
    Job& job = *task.job;
    const int64_t first_row = row;
    row += task.logit_rows();
    const Chosen* own = task.chooses ? &*next++ : nullptr;
    run_for(job, events, [&] {
      if (task.run.logits == Model::Logits::all) job.keep(logits.narrow(0, first_row, row - first_row));
      remember(task);
      if (own == nullptr) return events.push_back(job.take_event(JobEvent::Stage::prefill));
      if (own->error) std::rethrow_exception(own->error);
      if (const auto reason = job.accept(own->choice))
        finish(job, *reason, events);
      else
        events.push_back(job.take_event(JobEvent::Stage::streaming));
    });
  }
}

std::vector<Generator::Impl::Chosen> Generator::Impl::choose(std::span<const Task> tasks, const at::Tensor& logits) {
  std::vector<const Task*> rows;
  std::vector<int64_t> places;  // of their last tokens' logits
  int64_t count = 0;
  for (const Task& task : tasks) {
    count += task.logit_rows();
    if (!task.chooses) continue;
    rows.push_back(&task);
    places.push_back(count - 1);
  }
  std::vector<Chosen> chosen(rows.size());
  if (rows.empty()) return chosen;
  const at::Tensor own =
      std::ssize(rows) == count ? logits : logits.index_select(0, at::tensor(places, at::kLong).to(logits.device()));
  if (std::ranges::any_of(rows, &Task::wants_argmax)) {
    const std::vector<text::Choice> greedy = text::choose_greedily(own);
    for (size_t row = 0; row < rows.size(); ++row) chosen[row].choice = greedy[row];
  }
  if (std::ranges::all_of(rows, &Task::wants_argmax)) return chosen;

  const at::Tensor host = on_host(own);
  const auto width = static_cast<size_t>(host.size(1));
  const float* first = host.const_data_ptr<float>();
  const auto draw = [&](size_t row) {
    Job& job = *rows[row]->job;
    try {
      chosen[row].choice = job.sampler.choose({first + row * width, width}, job.forbidden());
    } catch (const std::exception&) {
      chosen[row].error = std::current_exception();
    }
  };
  ops::parallel_for(std::ssize(rows), 1, [&](int64_t begin, int64_t end) {
    for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row)
      if (!rows[row]->wants_argmax()) draw(row);
  });
  return chosen;
}

void Generator::Impl::remember(const Task& task) {
  Job& job = *task.job;
  Slot& slot = slots[static_cast<size_t>(job.slot)];
  slot.ids.insert(slot.ids.end(), task.ids.begin(), task.ids.end());
  const int64_t axes = task.run.positions.size(0);
  if (job.is_prefilled()) {  // one token: a column
    const at::Tensor position = task.run.positions.contiguous();
    const int64_t* first = position.const_data_ptr<int64_t>();
    slot.positions.insert(slot.positions.end(), first, first + axes);
    return;
  }
  const auto count = static_cast<int64_t>(task.ids.size());
  const auto first = job.positions.begin() + job.prefilled * axes;
  slot.positions.insert(slot.positions.end(), first, first + count * axes);
  job.prefilled += count;
}

void Generator::Impl::finish(Job& job, StopReason reason, std::vector<JobEvent>& events) {
  JobResult& result = job.result;
  const auto end_badly = [&](ErrorCode code, const char* text) {
    result.reason = StopReason::failed;
    if (!result.error_code) note_error(result, code, text);
  };
  constexpr const char* no_memory = "generator: host memory ran out";
  try {
    job.end(reason);
  } catch (const Error& error) {  // such as a limit of the tokenizer's decoder
    end_badly(error.code(), error.code() == ErrorCode::out_of_memory ? no_memory : error.what());
  } catch (const std::exception&) {
    end_badly(ErrorCode::out_of_memory, no_memory);
  }
  // Whether what a prompt has left in the cache are numbers shows in its first logits.
  if (reason == StopReason::cancelled && !job.has_answered()) clear_slot(job);
  try {
    events.push_back(job.take_event(JobEvent::Stage::finished));
  } catch (const std::bad_alloc&) {
    events.push_back({.job = job.number,
                      .stage = JobEvent::Stage::finished,
                      .prefilled = job.prefilled,
                      .prompt_tokens = job.prompt.size()});
  }
  if (job.slot >= 0) {
    Slot& slot = slots[static_cast<size_t>(job.slot)];
    slot.is_free = true;
    slot.last_used = ++uses;
  }
  job.place.mapped() = std::move(result);
  results.insert(std::move(job.place));
  jobs.erase(job.number);
}

void Generator::Impl::fail(Job& job, ErrorCode code, const char* error, std::vector<JobEvent>& events) {
  note_error(job.result, code, error);
  job.result.ids.resize(job.result.logprobs.size());  // the last may have been noted by half
  clear_slot(job);
  finish(job, StopReason::failed, events);
}

void Generator::Impl::clear_slot(Job& job) noexcept {
  if (job.slot < 0) return;
  Slot& slot = slots[static_cast<size_t>(job.slot)];
  slot.ids.clear();  // holds nothing for others, whatever comes now
  try {
    with_torch_errors("generator", [&] { forget(slot); });
  } catch (const std::exception& error) {
    try {
      if (!job.result.error.empty()) job.result.error += "; then, ";
      job.result.error += fmt::format("clearing its part of the cache: {}", error.what());
    } catch (const std::exception&) {  // the job's own error says what there is to say
    }
  }
}

}  // namespace oriel
