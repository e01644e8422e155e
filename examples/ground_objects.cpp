// ground_objects: asks where things are in a picture, and draws the boxes of the answer into it.
#include <algorithm>
#include <array>
#include <cmath>

#include "chat_program.hpp"
#include "grounding.hpp"

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb_image_write.h>

namespace {

struct Arguments {
  ChatArguments chat;
  std::string image, out;
  std::optional<std::string> answer;
};

using Colour = std::array<uint8_t, 3>;
constexpr std::array<Colour, 6> colours{Colour{230, 25, 75}, {60, 180, 75},  {0, 130, 200},
                                        {245, 130, 48},      {145, 30, 180}, {70, 240, 240}};

/// A copy of a picture that can be drawn into.
class Canvas {
 public:
  explicit Canvas(const oriel::Image& image) : size_(image.size()), pixels_(image.rgb().begin(), image.rgb().end()) {}

  /// The outline of a rectangle, inside of the picture.
  void draw(oriel::Point first, oriel::Point last, Colour colour) {
    const auto clamp = [](double value, int64_t side) {
      return static_cast<int64_t>(std::lround(std::clamp(value, 0.0, static_cast<double>(side - 1))));
    };
    const int64_t left = clamp(std::min(first.x, last.x), size_.width);
    const int64_t right = clamp(std::max(first.x, last.x), size_.width);
    const int64_t top = clamp(std::min(first.y, last.y), size_.height);
    const int64_t bottom = clamp(std::max(first.y, last.y), size_.height);
    const int64_t pen = 1 + std::max(size_.width, size_.height) / 400;
    for (int64_t y = top; y <= bottom; ++y)
      for (int64_t x = left; x <= right; ++x)
        if (x - left < pen || right - x < pen || y - top < pen || bottom - y < pen)
          std::copy(colour.begin(), colour.end(), pixels_.begin() + (y * size_.width + x) * 3);
  }
  void write_png(const std::string& path) const {
    const auto width = static_cast<int>(size_.width);
    if (stbi_write_png(path.c_str(), width, static_cast<int>(size_.height), 3, pixels_.data(), 3 * width) == 0)
      throw std::runtime_error("--out: can't write " + path);
  }

 private:
  oriel::Size size_;
  std::vector<uint8_t> pixels_;
};

/// The model's answer, with the special tokens that mark boxes.
std::string ask(const Arguments& arguments, const oriel::MMEmbedding& embedding) {
  const Chat chat(arguments.chat);
  const std::vector embeddings{embedding};
  const Prompt prompt = chat.render(std::vector{Chat::question(embeddings, *arguments.chat.question)});
  oriel::JobOptions options = chat.job_options(prompt);
  options.decode.skip_special_tokens = false;
  oriel::Generator generator = chat.make_generator(chat.tokens_of(prompt));
  const std::string answer = stream_answer(generator, prompt, options, [](const std::string& text) {
                               std::fwrite(text.data(), 1, text.size(), stderr);
                             }).text;
  std::fputc('\n', stderr);
  return answer;
}

void ground(const Arguments& arguments) {
  arguments.chat.compute.apply();
  const oriel::Image image = oriel::Image::open(arguments.image);
  const oriel::MMEmbedding embedding =
      arguments.chat.compute.load_tower(arguments.chat.model).get_image_embeddings(image);
  const std::string answer = arguments.answer ? *arguments.answer : ask(arguments, embedding);
  const std::vector<FoundObject> objects = boxes_in_picture(answer, embedding);
  Canvas canvas(image);
  for (size_t i = 0; i < objects.size(); ++i) {
    const auto& [label, first, last] = objects[i];
    std::printf("%s: (%.0f, %.0f) to (%.0f, %.0f)\n", label.c_str(), first.x, first.y, last.x, last.y);
    canvas.draw(first, last, colours[i % colours.size()]);
  }
  canvas.write_png(arguments.out);
  std::printf("%zu boxes drawn: %s\n", objects.size(), arguments.out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Asks a Qwen vision-language model where things are in a picture and draws the boxes.",
               "ground_objects"};
  Arguments arguments;
  arguments.chat.question = "Detect all objects in the picture and return their locations and labels as JSON.";
  arguments.chat.add_answer_options(app);
  app.add_option("--question", arguments.chat.question, "what to ask")->capture_default_str();
  app.add_option("--image", arguments.image, "JPEG, PNG, WebP, BMP or GIF file")->required()->type_name("FILE");
  app.add_option("--answer", arguments.answer, "draw the boxes of this answer instead of asking")->type_name("TEXT");
  app.add_option("--out", arguments.out, "the picture with the boxes")->required()->type_name("FILE.png");
  return run_program(app, argc, argv, [&] { ground(arguments); });
}
