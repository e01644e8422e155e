#pragma once
// The boxes in a grounding model's answer.
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <oriel/oriel.hpp>

/// A named rectangle, in pixels.
struct FoundObject {
  std::string label;
  oriel::Point first, last;
};

/// The numbers between `begin` and `end` of a text, none outside of +-1e6.
inline std::vector<double> numbers_in(std::string_view text) {
  std::vector<double> numbers;
  for (size_t place = 0; place < text.size();) {
    const std::string rest(text.substr(place, 24));
    char* end = nullptr;
    const bool starts = (rest[0] >= '0' && rest[0] <= '9') || rest[0] == '-';
    const double number = starts ? std::strtod(rest.c_str(), &end) : 0;
    const size_t length = starts ? static_cast<size_t>(end - rest.c_str()) : 0;
    if (length > 0 && number >= -1e6 && number <= 1e6) numbers.push_back(number);
    place += length > 0 ? length : 1;
  }
  return numbers;
}

/// What stands between two marks, from `place` on, which then lies behind it.
inline std::optional<std::string_view> between(std::string_view text, std::string_view begin, std::string_view end,
                                               size_t& place) {
  const size_t first = text.find(begin, place);
  if (first == std::string_view::npos) return std::nullopt;
  const size_t last = text.find(end, first + begin.size());
  if (last == std::string_view::npos) return std::nullopt;
  place = last + end.size();
  return text.substr(first + begin.size(), last - first - begin.size());
}

/// JSON entries {"bbox_2d": [x1, y1, x2, y2], "label": "..."} in pixels that the model saw, as Qwen2.5-VL answers.
inline std::vector<FoundObject> parse_json_boxes(std::string_view answer) {
  std::vector<FoundObject> objects;
  for (size_t place = 0;;) {
    const auto box = between(answer, "\"bbox_2d\"", "]", place);
    if (!box) return objects;
    const std::vector<double> sides = numbers_in(*box);
    if (sides.size() != 4) continue;
    // The label of this entry, not of the next.
    const std::string_view entry = answer.substr(place, answer.find("\"bbox_2d\"", place) - place);
    size_t inside = 0;
    std::string_view label;
    if (between(entry, "\"label\"", ":", inside)) label = between(entry, "\"", "\"", inside).value_or("");
    objects.push_back({std::string(label), {sides[0], sides[1]}, {sides[2], sides[3]}});
  }
}

/// <|object_ref_start|>label<|object_ref_end|><|box_start|>(x1,y1),(x2,y2)<|box_end|> in thousandths of the sides, as
/// Qwen2-VL answers; here turned to pixels that the model saw.
inline std::vector<FoundObject> parse_marked_boxes(std::string_view answer, oriel::Size seen) {
  std::vector<FoundObject> objects;
  std::string label;
  for (size_t place = 0;;) {
    size_t behind_label = place;
    const auto named = between(answer, "<|object_ref_start|>", "<|object_ref_end|>", behind_label);
    size_t behind_box = place;
    const auto box = between(answer, "<|box_start|>", "<|box_end|>", behind_box);
    if (!box) return objects;
    if (named && behind_label < behind_box) label = *named;
    place = behind_box;
    const std::vector<double> sides = numbers_in(*box);
    if (sides.size() != 4) continue;
    const auto width = static_cast<double>(seen.width) / 1000;
    const auto height = static_cast<double>(seen.height) / 1000;
    objects.push_back({label, {sides[0] * width, sides[1] * height}, {sides[2] * width, sides[3] * height}});
  }
}

/// The boxes of an answer in either form, in pixels of the picture as it was given. `seen` is the picture that the
/// question was about.
inline std::vector<FoundObject> boxes_in_picture(std::string_view answer, const oriel::MMEmbedding& seen) {
  std::vector<FoundObject> objects = parse_marked_boxes(answer, seen.preprocessed_size());
  if (objects.empty()) objects = parse_json_boxes(answer);
  for (FoundObject& object : objects) {
    object.first = seen.to_original(object.first);
    object.last = seen.to_original(object.last);
  }
  return objects;
}
