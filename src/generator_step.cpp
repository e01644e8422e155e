// One step of all running jobs.
#include <algorithm>
#include <utility>

#include "core/error.hpp"
#include "generator_impl.hpp"
#include "text/greedy.hpp"
#include "torch_errors.hpp"

namespace oriel {

std::vector<JobEvent> Generator::Impl::advance() {
  std::vector<JobEvent> events;
  end_cancelled(events);
  start_waiting(events);
  std::vector<Task> tasks = plan();
  if (!tasks.empty()) compute(tasks, events);
  return events;
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
    try {
      with_torch_errors("generator", [&] { start(job); });
    } catch (const Error& error) {
      fail(job, error, events);
    }
  }
}

std::vector<Generator::Impl::Task> Generator::Impl::plan() {
  std::vector<Task> tasks;
  int64_t budget = options.prefill_chunk;
  bool has_chunk = false;
  for (auto& [number, job] : jobs) {
    if (job.slot < 0) continue;
    if (job.is_prefilled()) {
      const int64_t id = job.result.ids.back();
      tasks.push_back({&job, {id}, Model::next(job.prompt, job.slot, job.answer_length() - 1, id)});
      continue;
    }
    if (budget <= 0) continue;
    const int64_t begin = job.prefilled;
    const int64_t end = Model::cut_before(job.prompt, begin, begin + std::min(budget, job.prompt.size() - begin));
    // A block that is longer than a chunk is computed whole, but not beside another's chunk.
    if (has_chunk && end - begin > budget) continue;
    const auto logits = end == job.prompt.size() ? Model::Logits::last : Model::Logits::none;
    const std::span<const int64_t> ids = job.prompt.ids;
    const auto chunk = ids.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    tasks.push_back({&job, {chunk.begin(), chunk.end()}, model->prefill(job.prompt, job.slot, begin, end, logits)});
    budget -= end - begin;
    has_chunk = true;
  }
  return tasks;
}

void Generator::Impl::compute(std::span<Task> tasks, std::vector<JobEvent>& events) {
  std::vector<Model::Run> runs;
  for (const Task& task : tasks) runs.push_back(task.run);
  at::Tensor logits;
  std::vector<text::Choice> greedy;
  try {
    with_torch_errors("generator", [&] {
      logits = model->forward(runs, cache);
      if (std::ranges::any_of(tasks, [](const Task& task) { return task.wants_argmax(); }))
        greedy = text::choose_greedily(logits);
    });
  } catch (const Error& error) {
    if (tasks.size() == 1) return fail(*tasks[0].job, error, events);
    // Whose fault it was shows when each is alone. Nothing is lost: a token's keys and values can be written twice.
    for (Task& task : tasks) compute({&task, 1}, events);
    return;
  }
  int64_t row = 0;
  for (Task& task : tasks) {
    Job& job = *task.job;
    try {
      with_torch_errors("generator", [&] {
        remember(task);
        if (task.run.logits == Model::Logits::none) return events.push_back(job.take_event(JobEvent::Stage::prefill));
        const text::Choice choice =
            task.wants_argmax() ? greedy[static_cast<size_t>(row)] : choose(job, logits.select(0, row));
        ++row;
        if (const auto reason = job.accept(choice))
          finish(job, *reason, events);
        else
          events.push_back(job.take_event(JobEvent::Stage::streaming));
      });
    } catch (const Error& error) {
      fail(job, error, events);
    }
  }
}

void Generator::Impl::remember(const Task& task) {
  Slot& slot = slots[static_cast<size_t>(task.job->slot)];
  slot.ids.insert(slot.ids.end(), task.ids.begin(), task.ids.end());
  const std::vector<int64_t> positions = by_token(task.run.positions);
  slot.positions.insert(slot.positions.end(), positions.begin(), positions.end());
  if (!task.job->is_prefilled()) task.job->prefilled += static_cast<int64_t>(task.ids.size());
}

text::Choice Generator::Impl::choose(Job& job, const at::Tensor& logits) {
  const at::Tensor row = logits.cpu().contiguous();
  return job.sampler.choose({row.const_data_ptr<float>(), static_cast<size_t>(row.numel())}, job.forbidden());
}

void Generator::Impl::finish(Job& job, StopReason reason, std::vector<JobEvent>& events) {
  job.end(reason);
  events.push_back(job.take_event(JobEvent::Stage::finished));
  if (job.slot >= 0) {
    Slot& slot = slots[static_cast<size_t>(job.slot)];
    slot.is_free = true;
    slot.last_used = ++uses;
  }
  results.emplace(job.number, std::move(job.result));
  jobs.erase(job.number);
}

void Generator::Impl::fail(Job& job, const Error& error, std::vector<JobEvent>& events) {
  job.result.error_code = error.code();
  job.result.error = error.what();
  if (job.slot >= 0) forget(slots[static_cast<size_t>(job.slot)]);
  finish(job, StopReason::failed, events);
}

}  // namespace oriel
