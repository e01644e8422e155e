#include "demo/demo_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <optional>
#include <stdexcept>

#include "core/json.hpp"

namespace oriel {
namespace {

std::string directory_of(const std::string& family) { return std::string(ORIEL_ASSETS) + "/demo/" + family; }

scenes::Kind kind_of(const std::string& name) {
  const auto place = std::find(scenes::kind_names.begin(), scenes::kind_names.end(), name);
  if (place == scenes::kind_names.end()) throw std::invalid_argument("unknown kind of question: " + name);
  return static_cast<scenes::Kind>(place - scenes::kind_names.begin());
}

std::vector<Image> draw_all(const scenes::Case& scene) {
  std::vector<Image> pictures;
  for (const scenes::Scene& picture : scene.pictures) {
    const std::vector<uint8_t> pixels = scenes::draw(picture);
    pictures.push_back(
        Image::from_pixels({.data = pixels.data(), .size = {picture.width_pixels, picture.height_pixels}}));
  }
  return pictures;
}

/// The first box of an answer, in thousandths.
std::optional<std::array<double, 4>> box_in(const std::string& text) {
  const size_t begin = text.find("<|box_start|>(");
  std::array<double, 4> box{};
  if (begin == std::string::npos ||
      std::sscanf(text.c_str() + begin, "<|box_start|>(%lf,%lf),(%lf,%lf)", &box[0], &box[1], &box[2], &box[3]) != 4)
    return std::nullopt;
  return box;
}

}  // namespace

DemoQuestions read_questions(const std::string& family) {
  const Json file = Json::read(std::string(ORIEL_TEST_DATA) + "/demo/" + family + ".json");
  DemoQuestions questions{.boxes = file["boxes"].boolean(), .cases = {}};
  for (const Json& line : file["cases"].elements()) {
    const scenes::CaseOptions options{.seed = static_cast<uint64_t>(file["seed"].integer()),
                                      .kind = kind_of(line["kind"].string()),
                                      .place = questions.boxes ? scenes::Place::boxes : scenes::Place::words};
    questions.cases.push_back({.scene = scenes::make_case(options, static_cast<int>(line["number"].integer())),
                               .pixels = static_cast<uint32_t>(line["pixels"].integer()),
                               .question = line["question"].string(),
                               .answer = line["answer"].string(),
                               .transformers = line["transformers"].string(),
                               .logprob = line["logprob"].number()});
  }
  return questions;
}

uint32_t adler32_of_pixels(const scenes::Case& scene) {
  uint32_t a = 1;
  uint32_t b = 0;
  for (const scenes::Scene& picture : scene.pictures) {
    for (const uint8_t byte : scenes::draw(picture)) {
      a = (a + byte) % 65521;
      b = (b + a) % 65521;
    }
  }
  return b << 16 | a;
}

void Score::add(scenes::Kind kind, bool right) {
  for (Part* part : {&all_, &kinds_[static_cast<size_t>(kind)]}) {
    ++part->asked;
    part->right += right ? 1 : 0;
  }
}

std::string Score::to_text() const {
  std::string kinds;
  for (size_t kind = 0; kind < kinds_.size(); ++kind)
    if (kinds_[kind].asked > 0)
      kinds += fmt::format("{}{} {:.1f}", kinds.empty() ? "" : ", ", scenes::kind_names[kind], kinds_[kind].percent());
  return fmt::format("{:.1f} % of {} right ({})", percent(), all_.asked, kinds);
}

bool is_right(scenes::Kind kind, const std::string& said, const std::string& answer) {
  const auto box = box_in(answer);
  if (kind != scenes::Kind::where || !box) return said == answer;
  const auto said_box = box_in(said);
  return said_box && intersection_over_union(*said_box, *box) >= 0.5;
}

double intersection_over_union(const std::array<double, 4>& a, const std::array<double, 4>& b) {
  const auto area = [](double left, double top, double right, double bottom) {
    return std::max(0.0, right - left) * std::max(0.0, bottom - top);
  };
  const double common = area(std::max(a[0], b[0]), std::max(a[1], b[1]), std::min(a[2], b[2]), std::min(a[3], b[3]));
  const double all = area(a[0], a[1], a[2], a[3]) + area(b[0], b[1], b[2], b[3]) - common;
  return all > 0 ? common / all : 0;
}

DemoModel::DemoModel(const std::string& family, Device device, DType dtype)
    : tower_(VisionTower::load(directory_of(family), {.device = device, .dtype = dtype, .threads = 1})),
      tokenizer_(Tokenizer::load(directory_of(family))),
      format_(ChatFormat::load(directory_of(family))),
      model_(TextModel::load(directory_of(family), {.device = device, .dtype = dtype})) {
  set_compute_threads(1);  // the models are too small for more
}

DemoModel::Asked DemoModel::ask(const scenes::Case& scene) const {
  const std::vector<Image> pictures = draw_all(scene);
  const scenes::Question& question = scene.questions[0];
  if (question.kind == scenes::Kind::move) return {{tower_.get_video_embeddings(pictures)}, question.question};
  return {tower_.get_image_embeddings(pictures), question.question};
}

std::vector<DemoModel::Said> DemoModel::answer(std::span<const Asked> asked, bool special_tokens) const {
  Generator generator(model_, tokenizer_, {.max_jobs = 16, .max_tokens = 512});
  std::vector<int64_t> jobs;
  for (const Asked& one : asked) {
    ChatMessage message{.role = "user", .content = {one.pictures.begin(), one.pictures.end()}};
    message.content.emplace_back(one.question);
    JobOptions options{.embeddings = one.pictures, .max_new_tokens = 64};
    options.decode.skip_special_tokens = !special_tokens;
    jobs.push_back(generator.enqueue(tokenizer_.encode(format_.render(std::span(&message, 1))), std::move(options)));
  }
  while (generator.remaining_jobs() > 0) (void)generator.step();
  std::vector<Said> answers;
  for (const int64_t job : jobs) {
    JobResult result = generator.take_result(job);
    if (result.reason == StopReason::failed) throw std::runtime_error(result.error);
    answers.push_back({std::move(result.text), std::accumulate(result.logprobs.begin(), result.logprobs.end(), 0.0)});
  }
  return answers;
}

}  // namespace oriel
