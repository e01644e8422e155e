// draw_scenes: pictures with shapes and a character as PNG files, and a question with its answer about each.
#include <filesystem>
#include <fstream>
#include <map>

#include "command_line.hpp"
#include "scenes/cases.hpp"
#include "scenes/png.hpp"

namespace {

struct Arguments {
  scenes::CaseOptions options;
  int count = 10;
  std::string output;
  std::string kind;
  bool boxes = false;
};

void write_png(const std::filesystem::path& path, const scenes::Scene& scene) {
  const std::string bytes = scenes::encode_png(scenes::draw(scene), scene.width_pixels, scene.height_pixels);
  std::ofstream file(path, std::ios::binary);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  if (!file.flush()) throw std::runtime_error(path.string() + ": could not be written");
}

/// "00007.png", "00007_2.png" for the second of several pictures, "00007/02.png" for the second frame of a clip.
std::vector<std::string> write_pictures(const Arguments& arguments, int number, const scenes::Case& made) {
  const bool clip = arguments.options.kind == scenes::Kind::move;
  const std::filesystem::path directory = arguments.output;
  char name[32];
  std::snprintf(name, sizeof name, "%05d", number);
  if (clip) std::filesystem::create_directories(directory / name);
  std::vector<std::string> names;
  for (size_t i = 0; i < made.pictures.size(); ++i) {
    std::string file = name;
    if (clip) file += (i < 9 ? "/0" : "/") + std::to_string(i + 1);
    if (!clip && made.pictures.size() > 1) file += "_" + std::to_string(i + 1);
    names.push_back(file + ".png");
    write_png(directory / names.back(), made.pictures[i]);
  }
  return names;
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  out += text;  // made of letters, digits and marks that JSON takes as they are
  return out + "\"";
}

/// One JSON line: pictures, kind, question, answer, boxes in pixels.
std::string to_json(const std::vector<std::string>& pictures, const scenes::Question& question) {
  std::string line = "{\"pictures\": [";
  for (size_t i = 0; i < pictures.size(); ++i) line += (i > 0 ? ", " : "") + quoted(pictures[i]);
  line += "], \"kind\": " + quoted(std::string(scenes::kind_names[static_cast<size_t>(question.kind)])) +
          ", \"question\": " + quoted(question.question) + ", \"answer\": " + quoted(question.answer) +
          ", \"boxes\": [";
  for (const scenes::Box& box : question.boxes) {
    char text[96];
    std::snprintf(text, sizeof text, "[%.2f, %.2f, %.2f, %.2f]", box.left / 64.0, box.top / 64.0, box.right / 64.0,
                  box.bottom / 64.0);
    line += text;
  }
  return line + "]}";
}

void draw_all(Arguments arguments) {
  if (!arguments.kind.empty()) {
    const auto place = std::find(scenes::kind_names.begin(), scenes::kind_names.end(), arguments.kind);
    if (place == scenes::kind_names.end()) throw std::invalid_argument("--kind: unknown kind " + arguments.kind);
    arguments.options.kind = static_cast<scenes::Kind>(place - scenes::kind_names.begin());
  }
  if (arguments.boxes) arguments.options.place = scenes::Place::boxes;
  std::filesystem::create_directories(arguments.output);
  for (int number = 0; number < arguments.count; ++number) {
    const scenes::Case made = scenes::make_case(arguments.options, number);
    const std::vector<std::string> pictures = write_pictures(arguments, number, made);
    for (const scenes::Question& question : made.questions) std::printf("%s\n", to_json(pictures, question).c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Draws scenes as PNG files and prints a JSON line for each question about them.", "draw_scenes"};
  Arguments arguments;
  scenes::CaseOptions& options = arguments.options;
  app.add_option("--seed", options.seed, "the same seed draws the same scenes (default: 0)")->type_name("N");
  app.add_option("--count", arguments.count, "scenes (default: 10)")->type_name("N")->check(CLI::PositiveNumber);
  app.add_option("--output", arguments.output, "directory for the pictures")->required()->type_name("DIR");
  app.add_option("--kind", arguments.kind,
                 "describe|count|colour|shape|where|read, which (of several pictures), move (frames of a clip); "
                 "default: any about a single picture")
      ->type_name("KIND");
  app.add_option("--questions", options.questions, "about each scene (default: 1)")
      ->type_name("N")
      ->check(CLI::PositiveNumber);
  app.add_flag("--boxes", arguments.boxes, "answer \"where\" with a box in Qwen2-VL's syntax");
  app.add_option("--smallest-side", options.smallest_side, "pixels (default: 112)")
      ->type_name("N")
      ->check(CLI::Range(48, 4096));
  app.add_option("--largest-side", options.largest_side, "pixels (default: 336)")
      ->type_name("N")
      ->check(CLI::Range(48, 4096));
  return run_program(app, argc, argv, [&] {
    if (options.smallest_side > options.largest_side)
      throw std::invalid_argument("--smallest-side: expected at most --largest-side");
    draw_all(arguments);
  });
}
