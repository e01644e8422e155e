// chat_video: asks a vision-language model about a video, given as a folder of frames.
#include "chat_program.hpp"
#include "picture_files.hpp"

namespace {

/// The pictures of a folder, sorted by name.
std::vector<oriel::Image> open_frames(const std::string& folder) {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.is_regular_file() && is_picture(entry.path())) files.push_back(entry.path());
  if (files.empty()) throw std::invalid_argument("--frames: expected a folder with pictures, found none in " + folder);
  std::sort(files.begin(), files.end());
  std::vector<oriel::Image> frames;
  for (const std::filesystem::path& file : files) frames.push_back(oriel::Image::open(file));
  return frames;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Asks a vision-language model about a video. Without --question and --text it answers questions from stdin, a "
      "line each.",
      "chat_video"};
  ChatArguments arguments;
  std::string folder;
  double fps = oriel::VideoOptions().fps;
  arguments.add_to(app);
  app.add_option("--frames", folder, "folder whose JPEG, PNG, WebP, BMP and GIF files, sorted by name, are the frames")
      ->required()
      ->type_name("DIR");
  app.add_option("--fps", fps, "how many of the frames were a second (default: 24)")->type_name("F");
  return run_program(app, argc, argv, [&] {
    arguments.compute.apply();
    const std::vector<oriel::Image> frames = open_frames(folder);
    std::vector<oriel::PictureViews> video;
    {
      const oriel::VisionTower tower = arguments.compute.load_tower(arguments.model);
      ProgressLine progress("looking at the frames");
      video.push_back({tower.get_video_embeddings(frames, {.fps = fps, .embed = {.progress = std::ref(progress)}})});
    }
    run_chat(arguments, video);
  });
}
