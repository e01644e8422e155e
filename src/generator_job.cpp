// One job: from ids to text, and to its end.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <oriel/torch.hpp>
#include <utility>

#include "core/error.hpp"
#include "generator_impl.hpp"
#include "nn/decoder.hpp"

namespace oriel {
namespace {

double seconds(std::chrono::steady_clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

Generator::Impl::Job::Job(int64_t given_number, Model::Prompt given_prompt, JobOptions given, const Model& model,
                          const Tokenizer& tokenizer)
    : number(given_number),
      prompt(std::move(given_prompt)),
      positions(by_token(prompt.positions)),
      options(std::move(given)),
      stop_ids(options.stop_ids.value_or(model.stop_ids)),
      sampler(options.sampler, model.traits().decoder.vocabulary, options.seed),
      is_plain_greedy(text::is_plain_greedy(options.sampler)),
      stream(tokenizer, options.decode),
      stops(options.stop_strings) {
  for (const nn::TokenRange& block : prompt.blocks) blocks.push_back({block.begin, block.end});
  sampler.add_prompt(prompt.ids);
  // To transformers a picture in the prompt is its placeholder.
  for (const MMEmbedding& embedding : prompt.embeddings) sampler.add_seen({&embedding.info().placeholder_id, 1});
  result.prompt_tokens = prompt.size();
}

std::span<const int64_t> Generator::Impl::Job::forbidden() const {
  return answer_length() < options.min_new_tokens ? std::span<const int64_t>(stop_ids) : std::span<const int64_t>();
}

std::optional<StopReason> Generator::Impl::Job::accept(text::Choice choice) {
  if (!std::isfinite(choice.logprob))
    throw_error(ErrorCode::internal, "logits: expected finite numbers, got NaN or infinity");
  if (result.ids.empty()) answered = Clock::now();
  const bool stops_here = !options.ignore_stop_ids && std::ranges::find(stop_ids, choice.id) != stop_ids.end();
  if (!stops_here || options.keep_stop_token) add(choice);
  if (stops_here) {
    result.stop_id = choice.id;
    return StopReason::stop_token;
  }
  if (stops.found()) return StopReason::stop_string;
  if (answer_length() == options.max_new_tokens) return StopReason::max_new_tokens;
  return std::nullopt;
}

void Generator::Impl::Job::add(text::Choice choice) {
  sampler.add_answer(choice.id);
  result.ids.push_back(choice.id);
  result.logprobs.push_back(choice.logprob);
  if (!stops.found()) result.text += stops.push(stream.push(choice.id));
}

void Generator::Impl::Job::keep(const at::Tensor& logits) {
  if (!prompt_logits.defined()) prompt_logits = at::empty({prompt.size(), logits.size(1)}, at::kFloat);
  prompt_logits.narrow(0, prefilled, logits.size(0)).copy_(logits);
}

void Generator::Impl::Job::end(StopReason reason) {
  if (!stops.found()) {
    result.text += stops.push(stream.finish());
    result.text += stops.finish();
  }
  // What was held back may have completed a stop string.
  if (stops.found()) result.stop_string = *stops.found();
  result.reason = stops.found() && reason == StopReason::max_new_tokens ? StopReason::stop_string : reason;
  if (prompt_logits.defined() && is_prefilled()) result.prompt_logits = from_torch(std::move(prompt_logits));
  const Clock::time_point now = Clock::now();
  if (slot < 0) started = now;
  if (!has_answered()) answered = now;
  result.queued_seconds = seconds(started - queued);
  result.prefill_seconds = seconds(answered - started);
  result.decode_seconds = seconds(now - answered);
}

JobEvent Generator::Impl::Job::take_event(JobEvent::Stage stage) {
  JobEvent event{.job = number, .stage = stage, .prefilled = prefilled, .prompt_tokens = prompt.size()};
  event.text = result.text.substr(reported_text);
  event.ids.assign(result.ids.begin() + static_cast<ptrdiff_t>(reported_ids), result.ids.end());
  reported_text = result.text.size();
  reported_ids = result.ids.size();
  return event;
}

}  // namespace oriel
