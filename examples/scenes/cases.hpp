#pragma once
// One question about one scene, as programs and tests ask it: from a seed and a number.
#include <optional>
#include <vector>

#include "questions.hpp"

namespace scenes {

struct CaseOptions {
  uint64_t seed = 0;
  std::optional<Kind> kind = {};  // any kind about a single picture if not given
  Place place = Place::words;
  int smallest_side = 112;  // pixels
  int largest_side = 336;
  int questions = 1;
};

struct Case {
  std::vector<Scene> pictures;  // several for `which`, the frames for `move`
  std::vector<Question> questions;
};

/// The case with this number; the same for every way of going through the numbers. The longer side is at most 2.5
/// times the shorter one.
Case make_case(const CaseOptions& options, int number);

}  // namespace scenes
