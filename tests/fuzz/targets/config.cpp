// The JSON files of a checkpoint, through the public calls: loading, plans for sizes, reports, small pictures; and what
// a text architecture makes of them.
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
#include "oriel/text_model.hpp"
#include "oriel/vision_tower.hpp"

namespace {

using namespace oriel;
using fuzz::require;
using fuzz::succeeds;

constexpr size_t choice_bytes = 8;
constexpr std::array names{"config.json",           "processor_config.json", "preprocessor_config.json",
                           "tokenizer.json",        "tokenizer_config.json", "video_preprocessor_config.json",
                           "generation_config.json"};

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

void check_decoder(const nn::DecoderSpec& decoder) {
  require(decoder.depth() > 0 && decoder.vocabulary > 0 && decoder.width > 0, "sizes are positive");
  require(decoder.heads % decoder.kv_heads == 0 && decoder.head_dim % 2 == 0, "heads share keys evenly");
  for (const nn::RotarySpec& rotary : decoder.rotaries) {
    require(rotary.frequencies.numel() == decoder.head_dim / 2, "a frequency for every pair");
    require(rotary.axes.empty() || static_cast<int64_t>(rotary.axes.size()) == decoder.head_dim / 2,
            "an axis for every pair");
    for (const int64_t axis : rotary.axes) require(axis >= 0 && axis < decoder.position_axes, "axes exist");
  }
  for (const nn::DecoderLayerSpec& layer : decoder.layers)
    require(layer.window >= 0 && layer.rotary >= 0 && layer.rotary < static_cast<int64_t>(decoder.rotaries.size()),
            "layers have a window and a rotation");
}

void ask_text(const std::filesystem::path& path, fuzz::Reader choice) {
  succeeds([&] {
    const auto architecture = arch::make_text_architecture(arch::ModelFiles::read(path));
    check_decoder(architecture->traits().decoder);
    const Grid grid{choice.in(1, 4), choice.in(1, 20), choice.in(1, 20)};
    const int64_t rows = grid.t * (grid.h / 2) * (grid.w / 2);
    const std::vector<arch::VisionRun> runs{{.tokens = {1, 1 + rows},
                                             .first_row = 0,
                                             .all_rows = rows,
                                             .grid = grid,
                                             .seconds_per_slot = 0.5 * choice.u8(),
                                             .name = "run"}};
    succeeds([&] {
      const at::Tensor positions = architecture->positions(rows + 3, runs);
      require(positions.size(0) == architecture->traits().decoder.position_axes && positions.size(1) == rows + 3,
              "a place for every token");
    });
    const std::vector<int64_t> ids(static_cast<size_t>(rows) + 3);
    for (const nn::TokenRange& block : architecture->blocks(ids, runs))
      require(block.begin < block.end && block.end <= rows + 3, "blocks lie in the prompt");
  });
  require(!succeeds([&] { (void)TextModel::load(path); }), "without tensors no model loads");
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
  } else if (question % 8 == 2) {
    ask_text(checkpoint.path(), choice);
  } else if (question % 2 == 0) {
    ask_architecture(checkpoint.path(), choice);
  } else {
    ask_tower(checkpoint.path(), choice);
  }
  return 0;
}
