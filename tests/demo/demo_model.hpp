#pragma once
// The trained models of assets/demo, questions about drawn scenes, and what transformers answers: tests/data/demo, made
// by tests/goldens/make_demo_answers.py.
#include <array>
#include <oriel/generator.hpp>
#include <oriel/oriel.hpp>
#include <span>
#include <string>
#include <vector>

#include "scenes/cases.hpp"

namespace oriel {

/// What is tested: the one list. A test compares it with assets/demo.
inline const std::vector<std::string> demo_families{"gemma3", "mistral3", "qwen2_vl"};
/// Those of them that say where something is with a box.
inline const std::vector<std::string> grounding_families{"qwen2_vl"};

/// One question about one drawn scene.
struct DemoCase {
  scenes::Case scene;   // as drawn again, with one question
  uint32_t pixels = 0;  // Adler-32 of what transformers saw
  std::string question, answer, transformers;
  double logprob = 0;  // of transformers' answer
};

struct DemoQuestions {
  bool boxes = false;  // "where" is answered with a box
  std::vector<DemoCase> cases;
};

[[nodiscard]] DemoQuestions read_questions(const std::string& family);

/// Of the pixels of all pictures, one after the other.
[[nodiscard]] uint32_t adler32_of_pixels(const scenes::Case& scene);

/// Right answers, in all and by kind of question.
class Score {
 public:
  void add(scenes::Kind kind, bool right);
  [[nodiscard]] int right() const { return all_.right; }
  [[nodiscard]] double percent() const { return all_.percent(); }
  /// "99.5 % of 200 right (describe 100.0, count 100.0, ...)".
  [[nodiscard]] std::string to_text() const;

 private:
  struct Part {
    int right = 0, asked = 0;
    [[nodiscard]] double percent() const { return asked > 0 ? 100.0 * right / asked : 0.0; }
  };
  Part all_;
  std::array<Part, scenes::kind_names.size()> kinds_;
};

/// A box is right from half of intersection over union on, everything else word for word: as
/// scripts/demo_model/evaluation.py counts.
[[nodiscard]] bool is_right(scenes::Kind kind, const std::string& said, const std::string& answer);

/// Of two boxes (left, top, right, bottom) in one unit.
[[nodiscard]] double intersection_over_union(const std::array<double, 4>& a, const std::array<double, 4>& b);

/// All parts of one model, as a program loads them.
class DemoModel {
 public:
  DemoModel(const std::string& family, Device device, DType dtype);

  struct Asked {
    std::vector<MMEmbedding> pictures;  // one a picture, or one for the frames of a clip
    std::string question;
  };
  /// Looks at the pictures of a case.
  [[nodiscard]] Asked ask(const scenes::Case& scene) const;
  struct Said {
    std::string text;
    double logprob = 0;  // of all of it
  };
  /// Greedy answers, in order; jobs run beside each other.
  [[nodiscard]] std::vector<Said> answer(std::span<const Asked> asked, bool special_tokens) const;

 private:
  VisionTower tower_;
  Tokenizer tokenizer_;
  ChatFormat format_;
  TextModel model_;
};

}  // namespace oriel
