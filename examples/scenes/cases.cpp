#include "cases.hpp"

#include <algorithm>
#include <utility>

namespace scenes {
namespace {

std::pair<int, int> make_size(const CaseOptions& options, Random& random) {
  for (;;) {
    const int width = random.between(options.smallest_side, options.largest_side);
    const int height = random.between(options.smallest_side, options.largest_side);
    if (2 * std::max(width, height) <= 5 * std::min(width, height)) return {width, height};
  }
}

}  // namespace

Case make_case(const CaseOptions& options, int number) {
  // Mixed first: of seeds that are a step of the generator apart, one would follow the other.
  Random random(Random(options.seed).next() + static_cast<uint64_t>(number));
  std::array<int, kind_names.size()> weights{1, 1, 1, 1, 1, 1, 0, 0};
  if (options.kind) {
    weights.fill(0);
    weights[static_cast<size_t>(*options.kind)] = 1;
  }
  // Some scenes have no question of some kind: draw until one has.
  for (;;) {
    const auto [width, height] = make_size(options, random);
    Case made;
    std::vector<Question> questions;
    if (options.kind == Kind::move) {
      Clip clip = make_clip(random, width, height, random.chance(50) ? 4 : 6);
      questions = questions_about(clip, random);
      made.pictures = std::move(clip.frames);
    } else if (options.kind == Kind::which) {
      const int count = random.between(2, 3);
      for (int i = 0; i < count; ++i) made.pictures.push_back(make_scene(random, width, height));
      questions = questions_about(made.pictures, random);
    } else {
      made.pictures.push_back(make_scene(random, width, height));
      questions = questions_about(made.pictures[0], options.place, random);
    }
    made.questions = pick(std::move(questions), options.questions, weights, random);
    if (!made.questions.empty()) return made;
  }
}

}  // namespace scenes
