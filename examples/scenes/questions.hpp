#pragma once
// Questions about generated pictures, each with its one right answer.
#include <span>
#include <string>
#include <vector>

#include "scene.hpp"

namespace scenes {

enum class Kind { describe, count, colour, shape, where, read, which, move };
inline constexpr std::array<std::string_view, 8> kind_names{"describe", "count", "colour", "shape",
                                                            "where",    "read",  "which",  "move"};

/// How "where" is answered.
enum class Place {
  words,  // "top left"
  boxes,  // <|object_ref_start|>...<|box_start|>(x1,y1),(x2,y2)<|box_end|>, from 0 to 1000 in both directions
};

struct Question {
  Kind kind = Kind::describe;
  std::string question;
  std::string answer;
  std::vector<Box> boxes;  // of the object that "where" asks for
};

/// Every question about one picture that has one answer.
std::vector<Question> questions_about(const Scene& scene, Place place, Random& random);
/// In which of several pictures something is; the answer is "picture 1" and so on.
std::vector<Question> questions_about(std::span<const Scene> pictures, Random& random);
/// Which way the one thing that moves goes, and its colour.
std::vector<Question> questions_about(const Clip& clip, Random& random);

/// Takes up to `count` of them, by kind with these weights, no question twice.
std::vector<Question> pick(std::vector<Question> questions, int count, std::span<const int> weights, Random& random);

}  // namespace scenes
