#include "jinja/run.hpp"

#include "jinja/text.hpp"

namespace oriel::jinja {

std::string one_line(std::string_view text, size_t limit) {
  std::string line;
  for (size_t at = 0; at < text.size(); at += character_size(text, at)) {
    if (line.size() >= limit) return line + "...";
    const std::string_view character = text.substr(at, character_size(text, at));
    line += static_cast<unsigned char>(character[0]) < 0x20 || character[0] == 0x7F ? " " : character;
  }
  return line;
}

void Run::take_steps(size_t count) {
  if (count > most_steps - steps_)
    fail(ErrorCode::limit_exceeded, "expected a template that ends within {} steps", most_steps);
  steps_ += count;
}

void Run::take_bytes(size_t count) {
  if (count > most_bytes - bytes_)
    fail(ErrorCode::limit_exceeded, "expected a template that builds at most {} MiB", most_bytes >> 20);
  bytes_ += count;
}

Run::Level::Level(Run& run) : run_(run) {
  if (run.depth_ >= deepest) run.fail(ErrorCode::limit_exceeded, "expected at most {} levels of nesting", deepest);
  ++run.depth_;
}

}  // namespace oriel::jinja
