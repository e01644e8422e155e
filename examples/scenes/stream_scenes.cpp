// stream_scenes: batches of generated pictures, questions and answers as raw bytes, for training.
//
// Reads one request a line from stdin and answers each on stdout:
//   seed scenes pictures clip width height max_shapes place questions w1 .. w8
// `pictures` pictures a scene, or frames of a clip if `clip` is 1; `place` is 0 for words and 1 for boxes; the weights
// are those of the kinds of questions in their order. The answer, in the machine's own byte order:
//   int64 bytes of text; uint8 pixels [scenes, pictures, height, width, 3];
//   int32 objects [scenes, pictures, 5, 7]: shape or -1, colour, character, box left, top, right, bottom in 1/64 pixel;
//   text: a line a scene of questions split by tabs; a question is kind, question, answer split by U+001F.
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>

#include "questions.hpp"

namespace {

constexpr int max_objects = 5;
constexpr int object_values = 7;

struct Request {
  uint64_t seed = 0;
  int scenes = 0, pictures = 0, clip = 0, width = 0, height = 0, max_shapes = 0, place = 0, questions = 0;
  std::array<int, scenes::kind_names.size()> weights{};
};

bool read_request(Request& request) {
  std::cin >> request.seed >> request.scenes >> request.pictures >> request.clip >> request.width >> request.height >>
      request.max_shapes >> request.place >> request.questions;
  for (int& weight : request.weights) std::cin >> weight;
  return static_cast<bool>(std::cin);
}

bool is_sound(const Request& request) {
  const auto within = [](int value, int first, int last) { return value >= first && value <= last; };
  return within(request.scenes, 1, 65536) && within(request.pictures, 1, 64) && within(request.clip, 0, 1) &&
         within(request.width, 48, 4096) && within(request.height, 48, 4096) && within(request.max_shapes, 1, 4) &&
         within(request.place, 0, 1) && within(request.questions, 1, 64);
}

void append_objects(const scenes::Scene& scene, std::vector<int32_t>& out) {
  for (size_t i = 0; i < max_objects; ++i) {
    if (i >= scene.objects.size()) {
      out.insert(out.end(), {-1, -1, -1, 0, 0, 0, 0});
      continue;
    }
    const scenes::Object& object = scene.objects[i];
    const scenes::Box box = scenes::box_of(object);
    const int character = object.shape == scenes::character_shape ? object.character : -1;
    out.insert(out.end(), {object.shape, object.colour, character, box.left, box.top, box.right, box.bottom});
  }
}

class Batch {
 public:
  explicit Batch(const Request& request) : request_(request), random_(request.seed) {
    picture_bytes_ = size_t{3} * static_cast<size_t>(request.width) * static_cast<size_t>(request.height);
    pixels_.resize(picture_bytes_ * static_cast<size_t>(request.scenes) * static_cast<size_t>(request.pictures));
    objects_.reserve(pixels_.size() / picture_bytes_ * max_objects * object_values);
    for (int i = 0; i < request.scenes; ++i) add_scene();
  }

  void write() const {
    const auto bytes = static_cast<int64_t>(text_.size());
    std::fwrite(&bytes, sizeof bytes, 1, stdout);
    std::fwrite(pixels_.data(), 1, pixels_.size(), stdout);
    std::fwrite(objects_.data(), sizeof objects_[0], objects_.size(), stdout);
    std::fwrite(text_.data(), 1, text_.size(), stdout);
    std::fflush(stdout);
  }

 private:
  void add_scene() {
    std::vector<scenes::Scene> pictures;
    std::vector<scenes::Question> questions;
    if (request_.clip == 1) {
      const scenes::Clip clip = scenes::make_clip(random_, request_.width, request_.height, request_.pictures);
      questions = scenes::questions_about(clip, random_);
      pictures = clip.frames;
    } else {
      const scenes::SceneOptions options{.max_shapes = request_.max_shapes};
      for (int i = 0; i < request_.pictures; ++i)
        pictures.push_back(scenes::make_scene(random_, request_.width, request_.height, options));
      questions = request_.pictures == 1
                      ? scenes::questions_about(pictures[0], static_cast<scenes::Place>(request_.place), random_)
                      : scenes::questions_about(pictures, random_);
    }
    for (const scenes::Scene& picture : pictures) {
      scenes::draw(picture, pixels_.data() + picture_bytes_ * drawn_++);
      append_objects(picture, objects_);
    }
    append_text(scenes::pick(std::move(questions), request_.questions, request_.weights, random_));
  }

  void append_text(const std::vector<scenes::Question>& questions) {
    for (size_t i = 0; i < questions.size(); ++i) {
      if (i > 0) text_ += '\t';
      text_ += scenes::kind_names[static_cast<size_t>(questions[i].kind)];
      text_ += '\x1f' + questions[i].question + '\x1f' + questions[i].answer;
    }
    text_ += '\n';
  }

  const Request& request_;
  scenes::Random random_;
  size_t picture_bytes_ = 0;
  size_t drawn_ = 0;
  std::vector<uint8_t> pixels_;
  std::vector<int32_t> objects_;
  std::string text_;
};

}  // namespace

int main() {
  Request request;
  while (read_request(request)) {
    if (!is_sound(request)) {
      std::fprintf(stderr, "stream_scenes: a request is out of range\n");
      return 1;
    }
    Batch(request).write();
  }
  return 0;
}
