#pragma once
// Tiny checkpoints as a generator meets them, prompts with pictures, and answers made without a cache.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <map>
#include <oriel/generator.hpp>
#include <oriel/oriel.hpp>
#include <regex>
#include <string>
#include <vector>

#include "text_model/text_goldens.hpp"
#include "tower/checkpoints.hpp"

namespace oriel {

/// Checkpoints of every family, with and without windows.
inline const std::vector<std::string> chat_names{"gemma3_window", "llava_llama3_rope_tied", "mistral3_window_tied",
                                                 "qwen2_5_vl_window", "qwen2_vl_window"};

/// All that transformers' generate has been asked about.
inline const std::vector<std::string> golden_names{"gemma3_window",
                                                   "llava_llama3_rope_tied",
                                                   "llava_llama_linear_rope_biases",
                                                   "llava_llama_yarn",
                                                   "mistral3_dynamic_rope",
                                                   "mistral3_two_ends",
                                                   "mistral3_window_tied",
                                                   "qwen2_5_vl_window",
                                                   "qwen2_5_vl_yarn",
                                                   "qwen2_vl_window",
                                                   "tiny/gemma3",
                                                   "tiny/mistral3",
                                                   "tiny/pixtral",
                                                   "tiny/qwen2_5_vl",
                                                   "tiny/qwen2_vl"};

struct TestPrompt {
  std::vector<int64_t> ids;
  std::vector<MMEmbedding> embeddings = {};
};

/// One checkpoint with all of its parts, loaded once in a process.
struct TinyChat {
  explicit TinyChat(const std::string& name)
      : directory(TextGolden(name).directory),
        tower(VisionTower::load(directory, {.threads = 1})),
        tokenizer(Tokenizer::load(directory)),
        model(TextModel::load(directory)) {}

  static const TinyChat& of(const std::string& name) {
    set_compute_threads(1);  // the models are too small for more
    static std::map<std::string, TinyChat> loaded;
    return loaded.try_emplace(name, name).first->second;
  }

  [[nodiscard]] MMEmbedding embed(uint64_t seed, Size size = {60, 45}) const {
    return tower.get_image_embeddings(picture(size, seed));
  }
  /// Text, each embedding, and text behind it.
  [[nodiscard]] TestPrompt prompt(const std::vector<MMEmbedding>& embeddings, const std::string& text) const {
    std::vector<PromptSegment> segments;
    for (const MMEmbedding& embedding : embeddings) {
      segments.emplace_back(TextSegment{"Look: "});
      segments.emplace_back(embedding);
    }
    segments.emplace_back(TextSegment{text});
    return {tokenizer.encode(segments), embeddings};
  }
  [[nodiscard]] Generator generator(const GeneratorOptions& options = {.max_jobs = 2, .max_tokens = 256}) const {
    return {model, tokenizer, options};
  }

  /// The plain argmax of whole forward passes over the growing sequence: no cache, no chunks, no batch.
  [[nodiscard]] JobResult without_cache(const TestPrompt& prompt, int64_t new_tokens) const {
    JobResult result;
    std::vector<int64_t> ids = prompt.ids;
    for (int64_t i = 0; i < new_tokens; ++i) {
      const std::vector<float> logits = model.forward(ids, prompt.embeddings).logits.to_float32();
      const auto last = logits.end() - model.vocabulary_size();
      const auto best = std::max_element(last, logits.end());
      double sum = 0;
      for (auto logit = last; logit != logits.end(); ++logit) sum += std::exp(static_cast<double>(*logit - *best));
      result.ids.push_back(best - last);
      result.logprobs.push_back(static_cast<float>(-std::log(sum)));
      ids.push_back(result.ids.back());
    }
    return result;
  }

  std::filesystem::path directory;
  VisionTower tower;
  Tokenizer tokenizer;
  TextModel model;
};

/// The model of a checkpoint with another sliding_window than it has.
inline TextModel with_window(const std::string& name, int64_t window, const TextLoadOptions& options = {}) {
  const TemporaryDirectory directory;
  for (const auto& entry : std::filesystem::directory_iterator(TextGolden(name).directory))
    std::filesystem::copy_file(entry.path(), directory.path() / entry.path().filename());
  std::ifstream config(directory.path() / "config.json");
  const std::string text{std::istreambuf_iterator<char>(config), {}};
  const std::regex key("\"sliding_window\": [0-9]+");
  EXPECT_TRUE(std::regex_search(text, key));
  directory.write("config.json", std::regex_replace(text, key, "\"sliding_window\": " + std::to_string(window)));
  return TextModel::load(directory.path(), options);
}

/// The least that no 32-bit number holds, one whose low bits are those of a narrow window, and the widest.
inline const std::vector<int64_t> endless_windows{int64_t{1} << 31, (int64_t{1} << 32) + 5, int64_t{1} << 40};

/// Greedy, to the last token.
inline JobOptions greedy_options(const TestPrompt& prompt, int64_t new_tokens) {
  return {.embeddings = prompt.embeddings, .max_new_tokens = new_tokens, .ignore_stop_ids = true};
}

inline JobResult answer(Generator& generator, const TestPrompt& prompt, int64_t new_tokens) {
  return generator.generate(prompt.ids, greedy_options(prompt, new_tokens));
}

/// Steps until no job is left; the events of each job.
inline std::map<int64_t, std::vector<JobEvent>> run_all(Generator& generator) {
  std::map<int64_t, std::vector<JobEvent>> events;
  while (generator.remaining_jobs() > 0)
    for (JobEvent& event : generator.step()) events[event.job].push_back(std::move(event));
  return events;
}

/// Rows that make the logits of their job NaN.
inline MMEmbedding poisoned(const MMEmbedding& embedding) {
  std::vector<float> rows(static_cast<size_t>(embedding.length() * embedding.hidden_size()),
                          std::numeric_limits<float>::quiet_NaN());
  return MMEmbedding::from_rows(Tensor::copy_of(rows, {embedding.length(), embedding.hidden_size()}), embedding.info());
}

}  // namespace oriel
