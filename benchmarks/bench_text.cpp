// bench_text: prompts to tokens. Answers each line of stdin with one JSON line:
//   prefill TOKENS SALT                    the first new token of a prompt of random ids
//   decode BATCH TOKENS NEW SALT           the NEW - 1 tokens behind the first, of BATCH prompts at once
//   picture FILE                           a JPEG file and a question to its first token, then a second question
#include <algorithm>
#include <optional>
#include <sstream>

#include "bench.hpp"

namespace {

struct Arguments {
  std::string model;
  ComputeArguments compute;
  bool with_tower = false;
  int64_t first_id = 0;
  int64_t max_tokens = 4352;
  std::vector<std::string> texts;
};

class Bench {
 public:
  explicit Bench(const Arguments& arguments)
      : arguments_(arguments),
        tokenizer_(oriel::Tokenizer::load(arguments.model)),
        format_(oriel::ChatFormat::load(arguments.model)),
        model_(oriel::TextModel::load(arguments.model, {.device = oriel::Device::parse(arguments.compute.device),
                                                        .dtype = arguments.compute.dtype})),
        generator_(model_, tokenizer_,
                   {.max_jobs = 8, .max_tokens = std::min(arguments.max_tokens, model_.max_positions())}) {
    if (arguments.with_tower) tower_.emplace(arguments.compute.load_tower(arguments.model));
  }

  void say_what_is_measured() const {
    bench::JsonLine()
        .add("family", model_.family())
        .add("layers", model_.layers())
        .add("weight_bytes", model_.weight_bytes())
        .add("cache_bytes_per_token", model_.cache_bytes_per_token())
        .print();
  }

  void answer(const std::string& line) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    if (command == "prefill") {
      int64_t tokens = 0, salt = 0;
      words >> tokens >> salt;
      prefill(tokens, salt);
    } else if (command == "decode") {
      int64_t batch = 0, tokens = 0, new_tokens = 0, salt = 0;
      words >> batch >> tokens >> new_tokens >> salt;
      decode(batch, tokens, new_tokens, salt);
    } else if (command == "picture") {
      std::string file;
      std::getline(words >> std::ws, file);
      ask_about(file);
    } else {
      throw std::invalid_argument("expected prefill, decode or picture, got " + line);
    }
    generator_.clear_cache();
  }

 private:
  /// Ids that text.py's peer makes likewise.
  [[nodiscard]] std::vector<int64_t> prompt(int64_t tokens, int64_t row, int64_t salt) const {
    std::vector<int64_t> ids;
    const int64_t range = model_.vocabulary_size() - arguments_.first_id;
    for (int64_t i = 0; i < tokens; ++i)
      ids.push_back(arguments_.first_id + (7919 * i + 104729 * row + 1299709 * salt) % range);
    return ids;
  }

  [[nodiscard]] static oriel::JobOptions greedy(int64_t new_tokens) {
    return {.max_new_tokens = new_tokens, .ignore_stop_ids = true};
  }

  static void check(const oriel::JobResult& result) {
    if (result.reason == oriel::StopReason::failed) throw std::runtime_error(result.error);
  }

  [[nodiscard]] static std::vector<double> numbers(const std::vector<int64_t>& ids) { return {ids.begin(), ids.end()}; }

  void prefill(int64_t tokens, int64_t salt) {
    const std::vector<int64_t> ids = prompt(tokens, 0, salt);
    const auto [result, ms] = bench::timed([&] { return generator_.generate(ids, greedy(1)); });
    check(result);
    bench::JsonLine().add("ms", std::vector{ms}).add("ids", numbers(result.ids)).print();
  }

  void decode(int64_t batch, int64_t tokens, int64_t new_tokens, int64_t salt) {
    std::vector<int64_t> jobs;
    for (int64_t row = 0; row < batch; ++row)
      jobs.push_back(generator_.enqueue(prompt(tokens, row, salt), greedy(new_tokens)));
    const auto prefill_ms = bench::timed([&] {
      int64_t answering = 0;
      while (answering < batch) {
        answering = 0;
        for (const oriel::JobEvent& event : generator_.step())
          answering += event.stage == oriel::JobEvent::Stage::prefill ? 0 : 1;
      }
      return answering;
    });
    const auto decode_ms = bench::timed([&] {
      while (generator_.remaining_jobs() > 0) (void)generator_.step();
      return 0;
    });
    std::vector<int64_t> ids;
    for (const int64_t job : jobs) {
      const oriel::JobResult result = generator_.take_result(job);
      check(result);
      ids.insert(ids.end(), result.ids.begin(), result.ids.end());
    }
    bench::JsonLine()
        .add("ms", std::vector{decode_ms.second})
        .add("prefill_ms", std::vector{prefill_ms.second})
        .add("ids", numbers(ids))
        .print();
  }

  void ask_about(const std::string& file) {
    if (!tower_ || arguments_.texts.size() != 2) throw std::invalid_argument("picture: needs --tower and two --text");
    std::optional<oriel::MMEmbedding> embedding;
    const auto ask = [&](const std::string& text) {
      const auto ids = tokenizer_.encode(format_.place(text, std::span(&*embedding, 1)));
      oriel::JobOptions options = greedy(1);
      options.embeddings = {*embedding};
      return generator_.generate(ids, options);
    };
    const auto [first, cold_ms] = bench::timed([&] {
      embedding = tower_->get_image_embeddings(oriel::Image::open(file));
      return ask(arguments_.texts[0]);
    });
    check(first);
    const auto [second, again_ms] = bench::timed([&] { return ask(arguments_.texts[1]); });
    check(second);
    bench::JsonLine()
        .add("ms", std::vector{cold_ms})
        .add("again_ms", std::vector{again_ms})
        .add("tokens", first.prompt_tokens)
        .add("again_tokens", second.prompt_tokens)
        .add("reused_tokens", second.reused_tokens)
        .add("ids", numbers(first.ids))
        .print();
  }

  const Arguments& arguments_;
  oriel::Tokenizer tokenizer_;
  oriel::ChatFormat format_;
  oriel::TextModel model_;
  oriel::Generator generator_;
  std::optional<oriel::VisionTower> tower_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times prompts and answers; what to time is read from stdin, a line each (see the source).",
               "bench_text"};
  Arguments arguments;
  app.add_option("--model", arguments.model, "Hugging Face checkpoint directory")->required();
  arguments.compute.add_to(app);
  app.add_flag("--tower", arguments.with_tower, "load the vision tower, too");
  app.add_option("--first-id", arguments.first_id, "the lowest id of random prompts")->check(CLI::NonNegativeNumber);
  app.add_option("--max-tokens", arguments.max_tokens, "of a prompt and its answer (default: 4352)");
  app.add_option("--text", arguments.texts, "two texts for transformers' processor with one placeholder each");
  return run_program(app, argc, argv, [&] {
    arguments.compute.apply();
    Bench bench(arguments);
    bench.say_what_is_measured();
    for (std::string line; std::getline(std::cin, line);) bench.answer(line);
  });
}
