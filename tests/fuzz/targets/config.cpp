// The JSON files of a checkpoint, through the public calls: loading, plans for sizes, reports, small pictures.
// The input is eight bytes that choose what is asked, then the texts of the files of `names`, with a zero byte between
// them; a text that is missing or empty leaves out the file.
#include <array>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "arch/registry.hpp"
#include "arch/siglip_tower.hpp"
#include "core/temporary_directory.hpp"
#include "fuzz/fuzz.hpp"
#include "fuzz/json_mutator.hpp"
#include "oriel/vision_tower.hpp"

namespace {

using namespace oriel;
using fuzz::require;
using fuzz::succeeds;

constexpr size_t choice_bytes = 8;
constexpr std::array names{"config.json",    "processor_config.json", "preprocessor_config.json",
                           "tokenizer.json", "tokenizer_config.json", "video_preprocessor_config.json"};

/// Beyond these, prompts, tables and pictures are not made: they cost time, and grow with the input's numbers rightly.
constexpr int64_t most_rows = 4096;
constexpr int64_t most_pixel_bytes = 1 << 16;

class Checkpoint {
 public:
  Checkpoint() {
    // A weight file without tensors, so that a report can list all that is missing.
    directory_.write("model.safetensors", std::string("\2\0\0\0\0\0\0\0{}", 10));
  }
  /// Files that stay the same are left alone: most inputs change one of them.
  void write(std::string_view texts) {
    for (size_t i = 0; i < names.size(); ++i) {
      const std::string_view text = texts.substr(0, texts.find('\0'));
      texts.remove_prefix(std::min(texts.size(), text.size() + 1));
      if (text == written_[i]) continue;
      written_[i] = text;
      if (text.empty())
        std::filesystem::remove(directory_.path() / names[i]);
      else
        directory_.write(names[i], text);
    }
  }
  [[nodiscard]] const std::filesystem::path& path() const { return directory_.path(); }

 private:
  TemporaryDirectory directory_;
  std::array<std::string, names.size()> written_;
};

void check_plan(const VisionTower& tower, const ImagePlan& plan) {
  require(plan.resized.width > 0 && plan.resized.height > 0, "a plan's picture has pixels");
  require(plan.grid.h > 0 && plan.grid.w > 0 && plan.tokens > 0, "a plan has patches and rows");
  require(plan.pixel_bytes > 0 && plan.working_bytes > 0 && plan.embedding_bytes > 0, "a plan's bytes are positive");
  require(plan.prompt_tokens >= plan.tokens, "a prompt holds every row");
  require(plan.grid.w * tower.patch_size() <= plan.resized.width, "the grid lies in the picture");
}

void check_preprocess(const VisionTower& tower, Size size, const PreprocessOptions& options) {
  const std::vector<uint8_t> pixels(static_cast<size_t>(3 * size.width * size.height), 77);
  const Image image = Image::from_pixels({pixels.data(), size});
  succeeds([&] {
    const Patches patches = tower.preprocess({&image, 1}, options);
    require(patches.values.size(0) == patches.images[0].grid.patches(), "a row for every patch");
  });
}

void ask_tower(const std::filesystem::path& path, fuzz::Reader choice) {
  succeeds([&] {
    const VisionTower tower = VisionTower::load(path, {.threads = 1, .weights = false});
    require(tower.hidden_size() > 0 && tower.patch_size() > 0 && tower.depth() > 0, "sizes are positive");
    PreprocessOptions options;
    options.resize = static_cast<ResizeBackend>(choice.u8() % 3);
    const int shift = choice.u8() % 32;
    const Size size{choice.in(1, 400) << shift, choice.in(1, 400) << (shift / 2)};
    for (const Size asked : {size, Size{1, 1}, Size{640, 480}}) {
      succeeds([&] {
        const ImagePlan plan = tower.plan(asked, options);
        check_plan(tower, plan);
        if (plan.pixel_bytes < most_pixel_bytes && asked.width * asked.height < (1 << 16))
          check_preprocess(tower, asked, options);
      });
    }
    if (!tower.has_pixel_limits()) return;
    options.max_pixels = int64_t{1} << shift;
    succeeds([&] { check_plan(tower, tower.plan(size, options)); });
    options.max_tokens = 100;
    succeeds([&] { require(tower.plan(size, options).tokens <= 100, "max_tokens holds"); });
  });
}

void ask_architecture(const std::filesystem::path& path, fuzz::Reader choice) {
  succeeds([&] {
    const auto architecture = arch::make_architecture(arch::ModelFiles::read(path));
    const Size size{choice.in(1, 2000), choice.in(1, 2000)};
    succeeds([&] {
      const arch::ImageTarget target = architecture->plan(size, {});
      require(target.rows == architecture->rows(target.grid), "plan and rows agree");
      if (target.rows > most_rows || target.grid.patches() > most_rows) return;
      for (const bool reference : {false, true}) {
        const arch::Prompt prompt = reference ? architecture->reference_prompt(target.grid, arch::Modality::image)
                                              : architecture->prompt(target.grid, arch::Modality::image);
        const auto places = std::ranges::count(prompt.tokens, prompt.placeholder);
        require(prompt.tokens.empty() || !prompt.unavailable.empty() || places == target.rows, "a place for every row");
        require(reference || !prompt.unavailable.empty() ||
                    static_cast<int64_t>(prompt.tokens.size()) == architecture->prompt_length(target.grid),
                "prompt_length is the prompt's length");
      }
      // Learned positions come with the weights, which are not there.
      if (dynamic_cast<const arch::SiglipTower*>(architecture.get()) != nullptr) return;
      const std::vector<Grid> grids{target.grid, target.grid};
      const arch::Arrangement arrangement = architecture->arrange(grids, at::kCPU);
      require(arrangement.cu_seqlens.back() == 2 * target.grid.patches(), "segments cover the patches");
    });
    if (!architecture->traits().has_video) return;
    arch::VideoRequest request;
    request.frame = size;
    request.frames = choice.in(1, 40);
    request.cap_pixels_per_frame = choice.u8() % 2 == 1;
    succeeds([&] {
      const arch::VideoTarget video = architecture->plan_video(request);
      require(!video.frame_indices.empty() && video.frame_indices.back() < request.frames, "frames exist");
    });
  });
}

}  // namespace

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  if (size <= choice_bytes || seed % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
  return choice_bytes + fuzz::mutate_json(data + choice_bytes, size - choice_bytes, max_size - choice_bytes, seed / 4);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static Checkpoint checkpoint;
  if (size < choice_bytes) return 0;
  fuzz::Reader choice({data, choice_bytes});
  checkpoint.write(fuzz::as_text({data + choice_bytes, size - choice_bytes}));
  const uint8_t question = choice.u8();
  if (question % 8 == 0) {
    succeeds([&] { require(!inspect_model(checkpoint.path()).complete(), "without tensors a model is not complete"); });
  } else if (question % 2 == 0) {
    ask_architecture(checkpoint.path(), choice);
  } else {
    ask_tower(checkpoint.path(), choice);
  }
  return 0;
}
