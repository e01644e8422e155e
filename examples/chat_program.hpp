#pragma once
// What the programs share that ask a language model about pictures.
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "command_line.hpp"

/// The options of a question.
struct ChatArguments {
  std::string model;
  ComputeArguments compute;
  std::optional<std::string> question, text;
  std::map<std::string, oriel::TemplateValue> template_arguments;
  int64_t max_new_tokens = 512;
  double temperature = 0;
  uint64_t seed = 0;
  bool ignore_eos = false;
  int64_t prefill_chunk = oriel::GeneratorOptions().prefill_chunk;
  std::string dump;

  /// What every program takes that lets a model answer.
  void add_answer_options(CLI::App& app) {
    app.add_option("--model", model, "Hugging Face checkpoint directory")->required()->type_name("DIR");
    compute.add_to(app);
    app.add_option("--max-new-tokens", max_new_tokens,
                   "length of the answer at most (default: " + std::to_string(max_new_tokens) + ")")
        ->type_name("N");
    app.add_option("--temperature", temperature, "0 for the most probable answer (default), 1 for a draw as it is")
        ->type_name("T");
    app.add_option("--seed", seed, "of the draws (default: 0)")->type_name("N");
    app.add_flag("--ignore-eos", ignore_eos, "do not stop before --max-new-tokens");
    app.add_option("--prefill-chunk", prefill_chunk, "tokens of the prompt computed at once (default: 2048)")
        ->type_name("N");
  }
  void add_to(CLI::App& app) {
    add_answer_options(app);
    CLI::Option* asks = app.add_option("--question", question, "what to ask, in the model's own chat format");
    app.add_option("--text", text,
                   "a whole prompt as for transformers' processor, with the model's own placeholders for pictures")
        ->excludes(asks);
    app.add_option_function<std::vector<std::string>>(
           "--template-argument", [this](const auto& texts) { read_template_arguments(texts); },
           "sets a variable of the chat template, such as enable_thinking=false; once for each")
        ->allow_extra_args(false)
        ->excludes("--text")
        ->type_name("NAME=JSON");
    app.add_option("--dump", dump, "write prompt_ids, position_ids, logits, new_ids and new_logprobs")
        ->type_name("FILE.safetensors");
  }

 private:
  void read_template_arguments(const std::vector<std::string>& texts) {
    for (const std::string& text : texts) {
      const size_t sign = text.find('=');
      if (sign == std::string::npos)
        throw CLI::ValidationError("--template-argument", "expected NAME=JSON, got " + text);
      const bool is_new =
          template_arguments.emplace(text.substr(0, sign), oriel::JsonText{text.substr(sign + 1)}).second;
      if (!is_new) throw CLI::ValidationError("--template-argument", text.substr(0, sign) + " is given twice");
    }
  }
};

/// A prompt, and whose ids it holds.
struct Prompt {
  std::vector<int64_t> ids;
  std::vector<oriel::MMEmbedding> embeddings;
};

/// Tokenizer, prompt format and language model of one checkpoint.
class Chat {
 public:
  explicit Chat(const ChatArguments& arguments)
      : arguments_(arguments),
        tokenizer_(oriel::Tokenizer::load(arguments.model)),
        format_(oriel::ChatFormat::load(arguments.model)),
        model_(load_model(arguments)) {}

  [[nodiscard]] const oriel::TextModel& model() const { return model_; }
  [[nodiscard]] const oriel::Tokenizer& tokenizer() const { return tokenizer_; }

  /// Pictures first, then the question as it is.
  template <typename Pictures>
  [[nodiscard]] static oriel::ChatMessage question(const Pictures& pictures, std::string text) {
    oriel::ChatMessage message{.role = "user"};
    message.content.assign(pictures.begin(), pictures.end());
    message.content.emplace_back(std::move(text));
    return message;
  }

  [[nodiscard]] Prompt render(std::span<const oriel::ChatMessage> messages) const {
    return encode(format_.render(messages, {.template_arguments = arguments_.template_arguments}));
  }

  /// A text as for transformers' processor, which adds a bos even where the text has one.
  [[nodiscard]] Prompt place(const std::string& text, std::span<const oriel::PictureViews> pictures) const {
    const std::optional<int64_t> bos = tokenizer_.bos_id();
    const std::vector<int64_t> added = tokenizer_.encode("");
    const bool adds_bos = bos && std::find(added.begin(), added.end(), *bos) != added.end();
    const std::optional<std::string> token = adds_bos ? tokenizer_.token(*bos) : std::nullopt;
    if (token && text.starts_with(*token))
      std::fprintf(stderr, "warning: --text starts with %s and the tokenizer adds it: it stands there twice\n",
                   token->c_str());
    return encode(format_.place_views(text, pictures), {.double_bos = true});
  }

  /// Tokens of a prompt and its answer. Throws limit_exceeded, before memory is taken, if the model takes fewer.
  [[nodiscard]] int64_t tokens_of(const Prompt& prompt) const {
    const auto prompt_tokens = static_cast<int64_t>(prompt.ids.size());
    const int64_t new_tokens = std::max<int64_t>(arguments_.max_new_tokens, 1);
    const int64_t most = model_.max_positions();
    if (new_tokens > most - prompt_tokens)
      throw oriel::Error(oriel::ErrorCode::limit_exceeded,
                         "the model takes " + std::to_string(most) + " tokens, got " + std::to_string(prompt_tokens) +
                             " of the prompt and " + std::to_string(new_tokens) + " new ones (--max-new-tokens)");
    return prompt_tokens + new_tokens;
  }

  /// With room for jobs of `tokens` tokens.
  [[nodiscard]] oriel::Generator make_generator(int64_t tokens, int64_t jobs = 1) const {
    try {
      return {model_, tokenizer_, {.max_jobs = jobs, .max_tokens = tokens, .prefill_chunk = arguments_.prefill_chunk}};
    } catch (const oriel::Error& error) {
      if (error.code() != oriel::ErrorCode::out_of_memory) throw;
      throw oriel::Error(error.code(),
                         "a cache of " + std::to_string(jobs) + " x " + std::to_string(tokens) + " tokens takes " +
                             bytes_to_text(jobs * tokens * model_.cache_bytes_per_token()) + ": " + error.what());
    }
  }

  [[nodiscard]] oriel::JobOptions job_options(const Prompt& prompt) const {
    oriel::JobOptions options{.embeddings = prompt.embeddings, .max_new_tokens = arguments_.max_new_tokens};
    options.sampler.temperature = arguments_.temperature;
    // Greedy is the plain argmax, whatever the checkpoint's own penalty.
    if (arguments_.temperature > 0) options.sampler.repetition_penalty = model_.repetition_penalty();
    options.seed = arguments_.seed;
    options.ignore_stop_ids = arguments_.ignore_eos;
    options.prompt_logits = !arguments_.dump.empty();
    return options;
  }

 private:
  [[nodiscard]] static oriel::TextModel load_model(const ChatArguments& arguments) {
    ProgressLine progress("loading " + arguments.model);
    return oriel::TextModel::load(arguments.model, {.device = oriel::Device::parse(arguments.compute.device),
                                                    .dtype = arguments.compute.dtype,
                                                    .progress = std::ref(progress)});
  }

  [[nodiscard]] Prompt encode(const std::vector<oriel::PromptSegment>& segments,
                              const oriel::TokenizeOptions& options = {}) const {
    Prompt prompt{tokenizer_.encode(segments, options), {}};
    for (const oriel::PromptSegment& segment : segments)
      if (const auto* embedding = std::get_if<oriel::MMEmbedding>(&segment)) prompt.embeddings.push_back(*embedding);
    return prompt;
  }

  const ChatArguments& arguments_;
  oriel::Tokenizer tokenizer_;
  oriel::ChatFormat format_;
  oriel::TextModel model_;
};

/// A generator for prompts whose length shows only when they come: made anew with more room for one that needs it.
class GrowingGenerator {
 public:
  explicit GrowingGenerator(const Chat& chat, int64_t jobs = 1) : chat_(chat), jobs_(jobs) {}

  [[nodiscard]] bool has_room_for(const Prompt& prompt) const { return chat_.tokens_of(prompt) <= tokens_; }
  /// Where the room must grow no job may be left, and what the cache holds is forgotten.
  [[nodiscard]] oriel::Generator& with_room_for(const Prompt& prompt) {
    if (!has_room_for(prompt)) {
      // Not both at once in memory.
      generator_.reset();
      tokens_ = 0;
      const int64_t needed = chat_.tokens_of(prompt);
      const int64_t roomy = std::min(std::max(usual_tokens, needed + needed / 2), chat_.model().max_positions());
      generator_.emplace(chat_.make_generator(roomy, jobs_));
      tokens_ = roomy;
    }
    return *generator_;
  }
  [[nodiscard]] int64_t remaining_jobs() const { return generator_ ? generator_->remaining_jobs() : 0; }
  [[nodiscard]] oriel::Generator& get() { return generator_.value(); }

 private:
  static constexpr int64_t usual_tokens = 8192;
  const Chat& chat_;
  int64_t jobs_;
  int64_t tokens_ = 0;  // of a job
  std::optional<oriel::Generator> generator_;
};

/// Runs one job and hands its text over as it comes. Throws what made it fail.
inline oriel::JobResult stream_answer(oriel::Generator& generator, const Prompt& prompt, oriel::JobOptions options,
                                      const std::function<void(const std::string&)>& on_text) {
  const int64_t job = generator.enqueue(prompt.ids, std::move(options));
  {
    ProgressLine progress("reading the prompt");
    bool reads = true;
    while (reads) {
      for (const oriel::JobEvent& event : generator.step()) {
        reads = event.stage == oriel::JobEvent::Stage::prefill;
        if (reads) progress.show(event.prefilled, event.prompt_tokens);
        if (!event.text.empty()) on_text(event.text);
      }
    }
  }
  while (generator.remaining_jobs() > 0)
    for (const oriel::JobEvent& event : generator.step())
      if (!event.text.empty()) on_text(event.text);
  oriel::JobResult result = generator.take_result(job);
  if (result.reason == oriel::StopReason::failed)
    throw oriel::Error(result.error_code.value_or(oriel::ErrorCode::internal), result.error);
  return result;
}

inline void print_text(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

/// Where stdout is a terminal, the shell's prompt starts a line of its own.
inline void end_answer() {
  if (isatty(STDOUT_FILENO) == 1) print_text("\n");
}

inline void print_statistics(const oriel::JobResult& result) {
  const auto new_tokens = static_cast<double>(result.ids.size());
  std::fprintf(stderr, "%lld tokens of prompt, %lld of them reused, in %.2f s; %zu new tokens in %.2f s",
               static_cast<long long>(result.prompt_tokens), static_cast<long long>(result.reused_tokens),
               result.prefill_seconds, result.ids.size(), result.decode_seconds);
  if (new_tokens > 1 && result.decode_seconds > 0)
    std::fprintf(stderr, " (%.1f a second)", (new_tokens - 1) / result.decode_seconds);
  std::fprintf(stderr, "\n");
}

/// The prompt as transformers writes it: the placeholder in place of each row.
inline std::vector<int64_t> with_placeholders(const Prompt& prompt) {
  std::vector<int64_t> ids = prompt.ids;
  for (int64_t& id : ids)
    for (const oriel::MMEmbedding& embedding : prompt.embeddings)
      if (id >= embedding.first_id() && id < embedding.first_id() + embedding.length())
        id = embedding.info().placeholder_id;
  return ids;
}

inline void write_dump(const std::string& path, const oriel::TextModel& model, const Prompt& prompt,
                       const oriel::JobResult& result) {
  const std::vector<int64_t> ids = with_placeholders(prompt);
  const auto new_tokens = static_cast<int64_t>(result.ids.size());
  const std::vector<oriel::NamedTensor> tensors{
      {"prompt_ids", oriel::Tensor::copy_of(std::span(ids), {static_cast<int64_t>(ids.size())})},
      {"position_ids", model.positions(prompt.ids, prompt.embeddings)},
      {"logits", result.prompt_logits},
      {"new_ids", oriel::Tensor::copy_of(std::span(result.ids), {new_tokens})},
      {"new_logprobs", oriel::Tensor::copy_of(std::span(result.logprobs), {new_tokens})}};
  oriel::save_safetensors(path, tensors);
}

/// One answer to stdout, and the dump.
inline void answer_once(const ChatArguments& arguments, const Chat& chat, const Prompt& prompt) {
  oriel::Generator generator = chat.make_generator(chat.tokens_of(prompt));
  const oriel::JobResult result = stream_answer(generator, prompt, chat.job_options(prompt), print_text);
  end_answer();
  if (isatty(STDERR_FILENO) == 1) print_statistics(result);
  if (!arguments.dump.empty()) write_dump(arguments.dump, chat.model(), prompt, result);
}

/// Questions from stdin, a line each, until it ends. The pictures belong to the first one; what the cache holds of the
/// conversation is not computed again. A question that can't be answered is forgotten.
inline void converse(const Chat& chat, std::span<const oriel::PictureViews> pictures) {
  GrowingGenerator generator(chat);
  std::vector<oriel::ChatMessage> messages;
  int64_t questions = 0, unanswered = 0;
  const bool is_watched = isatty(STDIN_FILENO) == 1;
  if (is_watched) std::fprintf(stderr, "Ask something, a line each; end with Ctrl-D.\n");
  std::string line;
  while (true) {
    if (is_watched) std::fprintf(stderr, "> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    ++questions;
    messages.push_back(Chat::question(messages.empty() ? pictures : std::span<const oriel::PictureViews>(), line));
    try {
      const Prompt prompt = chat.render(messages);
      const oriel::JobResult result =
          stream_answer(generator.with_room_for(prompt), prompt, chat.job_options(prompt), print_text);
      print_text("\n");
      print_statistics(result);
      messages.push_back({.role = "assistant", .content = {result.text}});
    } catch (const oriel::Error& error) {
      print_text("\n");  // so that answers stay one a question
      std::fprintf(stderr, "no answer, and the question is forgotten: %s\n", error.what());
      messages.pop_back();
      ++unanswered;
    }
  }
  if (unanswered > 0)
    throw std::runtime_error(std::to_string(unanswered) + " of " + std::to_string(questions) +
                             " questions have no answer");
}

/// What the arguments ask about the pictures.
inline void run_chat(const ChatArguments& arguments, std::span<const oriel::PictureViews> pictures) {
  if (!arguments.dump.empty() && !arguments.question && !arguments.text)
    throw std::invalid_argument("--dump: expected --question or --text with it");
  const Chat chat(arguments);
  if (arguments.text)
    answer_once(arguments, chat, chat.place(*arguments.text, pictures));
  else if (arguments.question)
    answer_once(arguments, chat, chat.render(std::vector{Chat::question(pictures, *arguments.question)}));
  else
    converse(chat, pictures);
}
