// chat_image: asks a vision-language model about pictures.
#include "chat_program.hpp"

namespace {

std::vector<oriel::PictureViews> embed(const ChatArguments& arguments, const std::vector<std::string>& files,
                                       bool crops) {
  if (files.empty()) return {};
  std::vector<oriel::Image> images;
  for (const std::string& file : files) images.push_back(oriel::Image::open(file));
  const oriel::VisionTower tower = arguments.compute.load_tower(arguments.model);
  ProgressLine progress("looking at the pictures");
  std::vector<oriel::PictureViews> pictures;
  if (crops) {
    for (const oriel::Image& image : images)
      pictures.push_back(tower.get_image_views(image, {}, {.progress = std::ref(progress)}));
  } else {
    for (oriel::MMEmbedding& embedding : tower.get_image_embeddings(images, {.progress = std::ref(progress)}))
      pictures.push_back({std::move(embedding)});
  }
  return pictures;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Asks a vision-language model about pictures. Without --question and --text it answers questions from stdin, a "
      "line each.",
      "chat_image"};
  ChatArguments arguments;
  std::vector<std::string> images;
  bool crops = false;
  arguments.add_to(app);
  app.add_option("--image", images, "JPEG, PNG, WebP, BMP or GIF file; once for each picture, in order")
      ->allow_extra_args(false)
      ->type_name("FILE");
  app.add_flag("--crops", crops, "show long pictures as a whole and in crops, where the family can (pan and scan)");
  return run_program(app, argc, argv, [&] {
    arguments.compute.apply();
    run_chat(arguments, embed(arguments, images, crops));
  });
}
