// embed_image: pictures in, the rows and token ids that a language model reads out, as a safetensors file.
#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "command_line.hpp"

namespace {

struct Arguments {
  std::string model;
  ComputeArguments compute;
  oriel::ResizeBackend resize = oriel::ResizeBackend::torchvision;
  oriel::ExifPolicy exif = oriel::ExifPolicy::apply;
  std::string alpha = "drop";
  std::optional<int64_t> min_pixels, max_pixels, max_tokens;
  bool together = false;
  bool dump_pixels = false;
  std::string out;
  std::vector<std::string> images;
};

void add_options(CLI::App& app, Arguments& arguments) {
  app.add_option("--model", arguments.model, "Hugging Face checkpoint directory")->required()->type_name("DIR");
  arguments.compute.add_to(app);
  add_choice<oriel::ResizeBackend>(app, "--resize", arguments.resize,
                                   "whose pixels (default: torchvision, as transformers)",
                                   {{"torchvision", oriel::ResizeBackend::torchvision},
                                    {"pillow", oriel::ResizeBackend::pillow},
                                    {"pillow12", oriel::ResizeBackend::pillow12}});
  add_choice<oriel::ExifPolicy>(app, "--exif", arguments.exif, "the camera's orientation (default: apply)",
                                {{"apply", oriel::ExifPolicy::apply}, {"ignore", oriel::ExifPolicy::ignore}});
  add_choice<std::string>(app, "--alpha", arguments.alpha,
                          "transparency: drop it as transformers does, or put white behind it (default: drop)",
                          {{"drop", "drop"}, {"white", "white"}});
  app.add_option("--min-pixels", arguments.min_pixels, "enlarge smaller pictures to about N pixels")->type_name("N");
  app.add_option("--max-pixels", arguments.max_pixels, "shrink larger pictures to about N pixels")->type_name("N");
  app.add_option("--max-tokens", arguments.max_tokens, "refuse pictures that need more rows")->type_name("N");
  app.add_flag("--together", arguments.together, "pack all pictures into one call");
  app.add_flag("--dump-pixels", arguments.dump_pixels, "write the patches that the tower read, too");
  app.add_option("--out", arguments.out, "file to write: embeddings.i, token_ids.i, grid.i, pixels.i")
      ->required()
      ->type_name("FILE.safetensors");
  app.add_option("images", arguments.images, "JPEG, PNG, WebP, BMP or GIF files")->required()->type_name("IMAGE");
}

class Stopwatch {
 public:
  /// Milliseconds since the last call, or since construction.
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double, std::milli> elapsed = now - begin_;
    begin_ = now;
    return elapsed.count();
  }

 private:
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

/// One picture's tensors under the names that end with its index.
void add_tensors(std::vector<oriel::NamedTensor>& out, size_t index, const oriel::MMEmbedding& embedding,
                 const std::optional<oriel::Tensor>& pixels) {
  const std::string suffix = "." + std::to_string(index);
  const oriel::Grid grid = embedding.grid();
  const std::vector<int64_t> thw{grid.t, grid.h, grid.w};
  out.push_back({"embeddings" + suffix, embedding.embeddings().to(oriel::DType::float32)});
  out.push_back({"grid" + suffix, oriel::Tensor::copy_of(std::span<const int64_t>(thw), {3})});
  if (const std::string& reason = embedding.info().tokens_unavailable; !reason.empty())
    std::fprintf(stderr, "embed_image: no token_ids%s: %s\n", suffix.c_str(), reason.c_str());
  else if (const std::vector<int64_t>& tokens = embedding.placeholder_tokens(); !tokens.empty())
    out.push_back(
        {"token_ids" + suffix, oriel::Tensor::copy_of(std::span(tokens), {static_cast<int64_t>(tokens.size())})});
  if (pixels) out.push_back({"pixels" + suffix, *pixels});
}

void print_header() {
  std::printf("%-28s %14s %14s %8s %10s %10s %10s\n", "image", "size", "resized to", "tokens", "decode ms", "resize ms",
              "tower ms");
}

void print_row(const std::string& name, const oriel::MMEmbedding& embedding, double decode_ms, double resize_ms,
               double tower_ms) {
  const std::string file = std::filesystem::path(name).filename().string();
  std::printf("%-28s %14s %14s %8lld %10.2f %10.2f %10.2f\n", file.c_str(), to_text(embedding.original_size()).c_str(),
              to_text(embedding.preprocessed_size()).c_str(), static_cast<long long>(embedding.length()), decode_ms,
              resize_ms, tower_ms);
  std::fflush(stdout);
}

/// Preprocesses and encodes one group of pictures in one call, prints a line each, and keeps their tensors.
void embed_group(const oriel::VisionTower& tower, const Arguments& arguments, std::span<const oriel::Image> images,
                 std::span<const double> decode_ms, std::vector<oriel::NamedTensor>& out, size_t first_index) {
  Stopwatch watch;
  const oriel::Patches patches = tower.preprocess(images, {.min_pixels = arguments.min_pixels,
                                                           .max_pixels = arguments.max_pixels,
                                                           .max_tokens = arguments.max_tokens,
                                                           .resize = arguments.resize});
  const double resize_ms = watch.lap();
  std::vector<oriel::MMEmbedding> embeddings;
  {
    ProgressLine progress("encoding");
    embeddings = tower.get_image_embeddings(patches, {.progress = std::ref(progress)});
  }
  const double tower_ms = watch.lap();
  int64_t begin = 0;
  for (size_t i = 0; i < embeddings.size(); ++i) {
    const int64_t end = begin + embeddings[i].grid().patches();
    std::optional<oriel::Tensor> pixels;
    if (arguments.dump_pixels) pixels = patches.values.rows(begin, end);
    begin = end;
    add_tensors(out, first_index + i, embeddings[i], pixels);
    print_row(images[i].name(), embeddings[i], decode_ms[i], resize_ms, tower_ms);
  }
}

void embed(const Arguments& arguments) {
  arguments.compute.apply();
  const oriel::VisionTower tower = arguments.compute.load_tower(arguments.model);
  std::printf("%s tower: %lld blocks of width %lld, rows of %lld columns, %s on %s\n\n", tower.family().c_str(),
              static_cast<long long>(tower.depth()), static_cast<long long>(tower.width()),
              static_cast<long long>(tower.hidden_size()), std::string(to_string(tower.dtype())).c_str(),
              to_string(tower.device()).c_str());
  print_header();

  const oriel::ImageOptions options{
      .exif = arguments.exif,
      .alpha = arguments.alpha == "white" ? oriel::AlphaPolicy::white() : oriel::AlphaPolicy::drop()};
  std::vector<oriel::NamedTensor> out;
  std::vector<oriel::Image> images;
  std::vector<double> decode_ms;
  for (size_t i = 0; i < arguments.images.size(); ++i) {
    Stopwatch watch;
    images.push_back(oriel::Image::open(arguments.images[i], options));
    decode_ms.push_back(watch.lap());
    if (arguments.together) continue;
    embed_group(tower, arguments, images, decode_ms, out, i);
    images.clear();
    decode_ms.clear();
  }
  if (arguments.together) {
    embed_group(tower, arguments, images, decode_ms, out, 0);
    std::printf("(resize and tower ms are of all pictures together)\n");
  }
  oriel::save_safetensors(arguments.out, out);
  std::printf("\nwrote %s\n", arguments.out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Embeds pictures with the vision tower of a Hugging Face checkpoint.", "embed_image"};
  Arguments arguments;
  add_options(app, arguments);
  return run_program(app, argc, argv, [&] { embed(arguments); });
}
