#include "questions.hpp"

#include <algorithm>
#include <iterator>
#include <numeric>
#include <optional>

namespace scenes {
namespace {

constexpr std::string_view numbers[] = {"none", "one", "two", "three", "four"};

bool is_character(const Object& object) { return object.shape == character_shape; }

bool is_digit(const Object& object) { return characters[static_cast<size_t>(object.character)] <= '9'; }

std::string colour_of(const Object& object) { return std::string(colour_names[static_cast<size_t>(object.colour)]); }

std::string character_of(const Object& object) {
  return std::string(1, characters[static_cast<size_t>(object.character)]);
}

std::string kind_of(const Object& object) {
  if (is_character(object)) return is_digit(object) ? "digit" : "letter";
  return std::string(shape_names[static_cast<size_t>(object.shape)]);
}

/// "red circle", or "letter K".
std::string full_name(const Object& object) {
  if (is_character(object)) return kind_of(object) + " " + character_of(object);
  return colour_of(object) + " " + kind_of(object);
}

std::string with_article(const std::string& name) { return (name.starts_with("orange") ? "an " : "a ") + name; }

template <typename Test>
int count_of(std::span<const Object> objects, const Test& test) {
  return static_cast<int>(std::count_if(objects.begin(), objects.end(), test));
}

bool alone_in_kind(const Scene& scene, const Object& object) {
  return count_of(scene.objects, [&](const Object& other) { return other.shape == object.shape; }) == 1;
}

/// Nothing else has its colour, the character included.
bool alone_in_colour(const Scene& scene, const Object& object) {
  return count_of(scene.objects, [&](const Object& other) { return other.colour == object.colour; }) == 1;
}

std::string one_of(Random& random, std::initializer_list<std::string> wordings) {
  return *(wordings.begin() + random.below(static_cast<int>(wordings.size())));
}

/// The third of a length in which a place lies; nothing near the borders between thirds.
std::optional<int> third_of(int place, int length) {
  const int64_t percent = int64_t{100} * place / length;
  if (percent < 29) return 0;
  if (percent > 37 && percent < 63) return 1;
  if (percent > 71) return 2;
  return std::nullopt;
}

std::optional<std::string> place_in_words(const Scene& scene, const Object& object) {
  constexpr std::string_view rows[] = {"top", "", "bottom"};
  constexpr std::string_view columns[] = {"left", "", "right"};
  const auto row = third_of(object.centre.y, scene.height_pixels * unit);
  const auto column = third_of(object.centre.x, scene.width_pixels * unit);
  if (!row || !column) return std::nullopt;
  if (*row == 1 && *column == 1) return "centre";
  std::string words(rows[*row]);
  if (*row != 1 && *column != 1) words += ' ';
  return words + std::string(columns[*column]);
}

int per_thousand(int place, int length) { return static_cast<int>((int64_t{1000} * place + length / 2) / length); }

std::string place_as_box(const Scene& scene, const Object& object, const std::string& name) {
  const Box box = box_of(object);
  const int width = scene.width_pixels * unit;
  const int height = scene.height_pixels * unit;
  const auto corner = [&](int x, int y) {
    std::string text = std::to_string(per_thousand(x, width));
    text.insert(text.begin(), '(');
    return text + "," + std::to_string(per_thousand(y, height)) + ")";
  };
  return "<|object_ref_start|>the " + name + "<|object_ref_end|><|box_start|>" + corner(box.left, box.top) + "," +
         corner(box.right, box.bottom) + "<|box_end|>";
}

std::string description(const Scene& scene) {
  std::string text;
  for (const Object& object : scene.objects) {
    if (!text.empty()) text += ", ";
    text += is_character(object) ? "the " + full_name(object) : with_article(full_name(object));
  }
  return text;
}

void add_counts(const Scene& scene, std::vector<Question>& out, Random& random) {
  const auto add = [&](const std::string& what, int number) {
    out.push_back({Kind::count,
                   one_of(random, {"How many " + what + " are there?", "How many " + what + " do you see?"}),
                   std::string(numbers[number]),
                   {}});
  };
  const int shapes = count_of(scene.objects, [](const Object& object) { return !is_character(object); });
  for (int i = 0; i < 2; ++i) add("shapes", shapes);  // twice, to be picked as often as the others together
  int absent = 0;
  for (int shape = 0; shape < static_cast<int>(shape_names.size()); ++shape) {
    const int number = count_of(scene.objects, [=](const Object& object) { return object.shape == shape; });
    if (number == 0 && (absent > 0 || !random.chance(30))) continue;
    absent += number == 0;
    add(std::string(shape_names[static_cast<size_t>(shape)]) + "s", number);
  }
}

/// How an object may be named so that nothing else is meant: "circle", "red shape", "red circle".
std::vector<std::string> names_of(const Scene& scene, const Object& object) {
  if (is_character(object)) return {kind_of(object)};
  std::vector<std::string> names{full_name(object)};
  if (alone_in_kind(scene, object)) names.push_back(kind_of(object));
  if (alone_in_colour(scene, object)) names.push_back(colour_of(object) + " shape");
  return names;
}

void add_places(const Scene& scene, const Object& object, Place place, std::vector<Question>& out, Random& random) {
  for (const std::string& name : names_of(scene, object)) {
    const std::string question = one_of(random, {"Where is the " + name + "?", "Find the " + name + "."});
    if (place == Place::boxes)
      out.push_back({Kind::where, question, place_as_box(scene, object, name), {box_of(object)}});
    else if (const auto words = place_in_words(scene, object))
      out.push_back({Kind::where, question, *words, {box_of(object)}});
  }
}

Question colour_question(const Object& object, Random& random) {
  const std::string kind = kind_of(object);
  return {Kind::colour,
          one_of(random, {"What colour is the " + kind + "?", "What is the colour of the " + kind + "?"}),
          colour_of(object),
          {}};
}

}  // namespace

std::vector<Question> questions_about(const Scene& scene, Place place, Random& random) {
  std::vector<Question> out;
  out.push_back({Kind::describe,
                 one_of(random, {"Describe the picture.", "What is in the picture?", "What do you see?"}),
                 description(scene),
                 {}});
  add_counts(scene, out, random);
  for (const Object& object : scene.objects) {
    if (alone_in_kind(scene, object)) out.push_back(colour_question(object, random));
    if (!is_character(object) && alone_in_colour(scene, object))
      out.push_back({Kind::shape,
                     one_of(random, {"Which shape is " + colour_of(object) + "?",
                                     "What shape is the " + colour_of(object) + " one?"}),
                     kind_of(object),
                     {}});
    if (is_character(object))
      out.push_back({Kind::read,
                     one_of(random, {"Read the " + kind_of(object) + ".", "Which " + kind_of(object) + " is it?"}),
                     character_of(object),
                     {}});
    add_places(scene, object, place, out, random);
  }
  return out;
}

std::vector<Question> questions_about(std::span<const Scene> pictures, Random& random) {
  std::vector<Question> out;
  for (size_t picture = 0; picture < pictures.size(); ++picture) {
    for (const Object& object : pictures[picture].objects) {
      std::vector<std::string> names{full_name(object)};
      if (!is_character(object)) names.push_back(kind_of(object));
      for (const std::string& name : names) {
        const auto shows = [&](const Scene& other) {
          return count_of(other.objects,
                          [&](const Object& found) { return full_name(found) == name || kind_of(found) == name; }) > 0;
        };
        if (std::count_if(pictures.begin(), pictures.end(), shows) != 1) continue;
        const std::string article = is_character(object) ? "the " + name : with_article(name);
        out.push_back({Kind::which,
                       one_of(random, {"In which picture is " + article + "?", "Which picture shows " + article + "?"}),
                       "picture " + std::to_string(picture + 1),
                       {}});
      }
    }
  }
  return out;
}

std::vector<Question> questions_about(const Clip& clip, Random& random) {
  const Scene& scene = clip.frames.front();
  const Object& mover = scene.objects.front();
  std::vector<std::string> names = names_of(scene, mover);
  std::vector<Question> out{colour_question(mover, random)};
  if (!alone_in_kind(scene, mover)) out.clear();
  for (const std::string& name : names)
    out.push_back({Kind::move,
                   "Which way does the " + name + " move?",
                   std::string(direction_names[static_cast<size_t>(clip.direction)]),
                   {}});
  return out;
}

std::vector<Question> pick(std::vector<Question> questions, int count, std::span<const int> weights, Random& random) {
  std::vector<Question> out;
  while (static_cast<int>(out.size()) < count) {
    // A kind first, so that a scene with many places to ask for is not asked for places alone.
    std::vector<int> open(weights.begin(), weights.end());
    for (size_t kind = 0; kind < open.size(); ++kind)
      if (std::none_of(questions.begin(), questions.end(),
                       [=](const Question& question) { return static_cast<size_t>(question.kind) == kind; }))
        open[kind] = 0;
    const int total = std::accumulate(open.begin(), open.end(), 0);
    if (total == 0) break;
    int draw = random.below(total);
    size_t kind = 0;
    while (draw >= open[kind]) draw -= open[kind++];
    std::vector<size_t> candidates;
    for (size_t i = 0; i < questions.size(); ++i)
      if (static_cast<size_t>(questions[i].kind) == kind) candidates.push_back(i);
    const size_t chosen = candidates[static_cast<size_t>(random.below(static_cast<int>(candidates.size())))];
    const Question question = questions[chosen];
    out.push_back(question);
    std::erase_if(questions, [&](const Question& other) {
      return other.question == question.question ||
             (other.kind == question.kind && (other.kind == Kind::describe || other.kind == Kind::read));
    });
  }
  return out;
}

}  // namespace scenes
