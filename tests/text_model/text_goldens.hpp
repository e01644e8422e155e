#pragma once
// The goldens of tests/data/text: prompts with pictures, as ids in which this process's embeddings stand.
#include <ATen/core/Tensor.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <oriel/oriel.hpp>
#include <oriel/torch.hpp>
#include <string>
#include <vector>

#include "tower/checkpoints.hpp"
#include "tower/golden.hpp"

namespace oriel {

inline const std::string text_root = std::string(ORIEL_TEST_DATA) + "/text";

/// A checkpoint and what transformers makes of it. Named "gemma3_window", or "tiny/gemma3" for those of assets/tiny.
struct TextGolden {
  explicit TextGolden(const std::string& checkpoint)
      : is_tiny(checkpoint.starts_with("tiny/")),
        directory(is_tiny ? std::filesystem::path(tiny(checkpoint.substr(5)))
                          : std::filesystem::path(text_root) / checkpoint),
        golden(is_tiny ? std::filesystem::path(text_root) / (checkpoint + ".safetensors")
                       : directory / "golden.safetensors") {}

  bool is_tiny;
  std::filesystem::path directory;
  Golden golden;

  [[nodiscard]] TextModel load(const TextLoadOptions& options = {}) const {
    set_compute_threads(1);  // for tensors this small, threads only wait for each other
    return TextModel::load(directory, options);
  }

  /// The prompts that the file has.
  [[nodiscard]] std::vector<std::string> cases() const {
    std::vector<std::string> names;
    for (const char* name : {"text", "one", "several", "again", "video", "two_videos", "fast_video"})
      if (golden.has(std::string(name) + ".new_ids")) names.emplace_back(name);
    return names;
  }
  /// The logits of the others would be long, and show what those of these show.
  [[nodiscard]] bool has_logits(const std::string& name) const { return golden.has(name + ".logits"); }
};

/// One prompt: transformers' ids with the ids of embeddings in place of placeholders.
struct TextCase {
  std::vector<MMEmbedding> embeddings;
  std::vector<int64_t> ids;
};

/// The embeddings of all prompts of a golden, made by its own tower.
class TextCases {
 public:
  explicit TextCases(const TextGolden& text) : golden_(text.golden) {
    const VisionTower tower = VisionTower::load(text.directory, {.threads = 1});
    for (const Image& image : golden_.images()) pictures_.push_back(tower.get_image_embeddings(image));
    if (!golden_.has("video.frames")) return;
    const std::vector<Image> first = frames("video.frames");
    const double fps = golden_.values<double>("video.fps").front();
    videos_["video"] = {tower.get_video_embeddings(first, {.fps = fps})};
    videos_["two_videos"] = {videos_["video"][0], tower.get_video_embeddings(frames("video.1.frames"), {.fps = fps})};
    videos_["fast_video"] = {tower.get_video_embeddings(first, {.fps = 24})};
  }

  [[nodiscard]] TextCase get(const std::string& name) const {
    TextCase result;
    if (const auto videos = videos_.find(name); videos != videos_.end()) result.embeddings = videos->second;
    const size_t pictures = name == "several" ? 2 : name == "one" || name == "again" || name == "video" ? 1 : 0;
    result.embeddings.insert(result.embeddings.end(), pictures_.begin(),
                             pictures_.begin() + static_cast<std::ptrdiff_t>(pictures));
    result.ids = golden_.values<int64_t>(name + ".prompt_ids");
    std::vector<std::pair<int64_t, int64_t>> rows;  // placeholder and id of each row, in the order of the prompt
    for (const MMEmbedding& embedding : result.embeddings)
      for (const int64_t id : embedding.ids()) rows.emplace_back(embedding.info().placeholder_id, id);
    size_t next = 0;
    for (int64_t& id : result.ids)
      if (next < rows.size() && id == rows[next].first) id = rows[next++].second;
    EXPECT_EQ(next, rows.size()) << name << ": the prompt has a place for every row";
    return result;
  }

 private:
  [[nodiscard]] std::vector<Image> frames(const std::string& name) const {
    const auto pixels = golden_.values<uint8_t>(name);
    const auto sides = golden_.shape(name);
    std::vector<Image> result;
    for (int64_t t = 0; t < sides[0]; ++t)
      result.push_back(Image::from_pixels({pixels.data() + t * sides[1] * sides[2] * 3, {sides[2], sides[1]}}));
    return result;
  }

  const Golden& golden_;
  std::vector<MMEmbedding> pictures_;
  std::map<std::string, std::vector<MMEmbedding>> videos_;  // by prompt
};

/// The largest error in units of the expected values' largest magnitude, or of `least_scale` where that is larger;
/// infinite for NaN and other lengths.
inline double golden_error(const std::vector<float>& got, const std::vector<float>& expected, double least_scale = 0) {
  if (got.size() != expected.size() || expected.empty()) return std::numeric_limits<double>::infinity();
  double scale = least_scale;
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (std::isnan(error)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, error);
    scale = std::max(scale, std::abs(static_cast<double>(expected[i])));
  }
  return scale > 0 ? worst / scale : std::numeric_limits<double>::infinity();
}

/// The same for log-probabilities: differences of logits, so that they are no more exact than logits of that size.
/// Those of a model that is sure are smaller (tiny/gemma3: 6e-5) than the rounding of its logits (20).
inline double logprob_error(const std::vector<float>& got, const std::vector<float>& expected) {
  return golden_error(got, expected, 1);
}

inline std::vector<std::string> text_checkpoints() {
  std::vector<std::string> names;
  for (const std::string& name : tiny_names)
    if (name != "siglip") names.push_back("tiny/" + name);
  for (const std::string& name : checkpoints_under(text_root))
    if (name != "tiny") names.push_back(name);
  return names;
}

inline std::string test_name(std::string checkpoint) {
  std::replace(checkpoint.begin(), checkpoint.end(), '/', '_');
  return checkpoint;
}

}  // namespace oriel
