// chat_image: asks a vision-language model about pictures.
#include "chat_program.hpp"

namespace {

std::vector<oriel::MMEmbedding> embed(const ChatArguments& arguments, const std::vector<std::string>& files) {
  if (files.empty()) return {};
  std::vector<oriel::Image> images;
  for (const std::string& file : files) images.push_back(oriel::Image::open(file));
  const oriel::VisionTower tower = arguments.compute.load_tower(arguments.model);
  ProgressLine progress("looking at the pictures");
  return tower.get_image_embeddings(images, {.progress = std::ref(progress)});
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Asks a vision-language model about pictures. Without --question and --text it answers questions from stdin, a "
      "line each.",
      "chat_image"};
  ChatArguments arguments;
  std::vector<std::string> images;
  arguments.add_to(app);
  app.add_option("--image", images, "JPEG, PNG, WebP, BMP or GIF file; once for each picture, in order")
      ->allow_extra_args(false)
      ->type_name("FILE");
  return run_program(app, argc, argv, [&] {
    arguments.compute.apply();
    run_chat(arguments, embed(arguments, images));
  });
}
