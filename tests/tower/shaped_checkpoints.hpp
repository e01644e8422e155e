#pragma once
// Checkpoints with the head dims of the models that people use, which have attention kernels of their own on a GPU; the
// tiny ones of assets/ have others. Two or three narrow blocks of random weights, written by the process that asks.
#include <bit>
#include <cmath>
#include <cstddef>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "tower/scratch.hpp"

namespace oriel {

/// A tiny checkpoint with another tower, and with what `edits` say in its files.
struct ShapedCheckpoint {
  struct Edit {
    std::string file, from, to;
  };
  std::string base;
  std::string vision_config;
  std::vector<Edit> edits = {};
};

/// By family and head dim; those of one patch are as small as a tower with pictures of one size can be.
inline const std::map<std::string, ShapedCheckpoint>& shaped_checkpoints() {
  static const auto siglip_of = [](const std::string& width, const std::string& heads, const std::string& depth,
                                   const std::string& side) {
    return R"({"model_type": "siglip_vision_model", "hidden_size": )" + width + R"(, "num_attention_heads": )" + heads +
           R"(, "intermediate_size": 304, "num_hidden_layers": )" + depth + R"(, "patch_size": 14, "image_size": )" +
           side + R"(, "vision_use_head": false})";
  };
  static const auto pixtral_of = [](const std::string& width, const std::string& heads, const std::string& patch) {
    return R"({"model_type": "pixtral", "hidden_size": )" + width + R"(, "num_attention_heads": )" + heads +
           R"(, "head_dim": 64, "intermediate_size": 176, "num_hidden_layers": 3, "patch_size": )" + patch +
           R"(, "image_size": 4096, "hidden_act": "silu", "rope_theta": 10000.0})";
  };
  static const auto sides = [](const std::string& from, const std::string& to) {
    return std::vector<ShapedCheckpoint::Edit>{{"preprocessor_config.json", "\"height\": " + from, "\"height\": " + to},
                                               {"preprocessor_config.json", "\"width\": " + from, "\"width\": " + to}};
  };
  static const std::vector<ShapedCheckpoint::Edit> one_token{
      {"preprocessor_config.json", "\"height\": 112", "\"height\": 14"},
      {"preprocessor_config.json", "\"width\": 112", "\"width\": 14"},
      {"processor_config.json", "\"image_seq_length\": 16", "\"image_seq_length\": 1"},
      {"config.json", "\"mm_tokens_per_image\": 16", "\"mm_tokens_per_image\": 1"}};
  static const std::map<std::string, ShapedCheckpoint> all{
      {"pixtral_64",
       {"pixtral",
        pixtral_of("192", "3", "16"),
        {{"preprocessor_config.json", "\"longest_edge\": 1024", "\"longest_edge\": 4096"}}}},
      {"mistral3_64", {"mistral3", pixtral_of("128", "2", "14")}},
      {"gemma3_72", {"gemma3", siglip_of("144", "2", "3", "224"), sides("112", "224")}},
      {"gemma3_72_one_patch", {"gemma3", siglip_of("144", "2", "3", "14"), one_token}},
      {"siglip_72", {"siglip", siglip_of("216", "3", "2", "238"), sides("120", "238")}},
      {"siglip_72_one_patch", {"siglip", siglip_of("216", "3", "2", "14"), sides("120", "14")}},
      {"qwen2_vl_80",
       {"qwen2_vl",
        R"({"depth": 2, "embed_dim": 160, "hidden_size": 32, "in_chans": 3, "mlp_ratio": 2, "num_heads": 2,
            "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2})"}},
      {"qwen2_5_vl_80",
       {"qwen2_5_vl",
        R"({"depth": 3, "fullatt_block_indexes": [1], "hidden_act": "silu", "hidden_size": 160, "in_chans": 3,
            "intermediate_size": 172, "num_heads": 2, "out_hidden_size": 48, "patch_size": 14, "spatial_merge_size": 2,
            "spatial_patch_size": 14, "temporal_patch_size": 2, "tokens_per_second": 2, "window_size": 112})"}},
  };
  return all;
}

/// Weights that keep the size of what goes through them, in bfloat16, so that 16-bit towers have those of float32.
class DrawnTensors {
 public:
  StoredTensor draw(const std::string& name, const std::vector<int64_t>& shape) {
    const auto count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    const bool is_vector = shape.size() == 1;
    const double centre = is_vector && name.ends_with("weight") ? 1 : 0;
    double spread = is_vector ? 0.1 : 1 / std::sqrt(static_cast<double>(count / shape[0]));
    // Queries and keys that tell patches apart: a softmax over equal logits would hide most of what attention does.
    for (const char* part : {"q_proj", "k_proj", "qkv"})
      if (!is_vector && name.find(part) != std::string::npos) spread *= 1.5;
    std::normal_distribution<float> values(static_cast<float>(centre), static_cast<float>(spread));
    StoredTensor tensor{name, "BF16", shape, {}};
    for (int64_t i = 0; i < count; ++i) {
      const uint32_t bits = std::bit_cast<uint32_t>(values(random_)) >> 16;
      tensor.bytes.push_back(static_cast<std::byte>(bits & 0xff));
      tensor.bytes.push_back(static_cast<std::byte>(bits >> 8));
    }
    return tensor;
  }

 private:
  std::mt19937 random_{1};
};

/// Rewrites a copy of `shaped.base`.
inline void reshape(const Scratch& scratch, const ShapedCheckpoint& shaped) {
  for (const auto& [file, from, to] : shaped.edits) scratch.replace(file, from, to);
  std::string config = scratch.read("config.json");
  const std::string key = "\"vision_config\": ";
  const size_t begin = config.find(key) + key.size();
  scratch.write("config.json", config.replace(begin, config.find('}', begin) + 1 - begin, shaped.vision_config));

  // Which tensors the tower wants, and in which shapes, is what it says of those of the tiny one.
  const ModelReport report = inspect_model(scratch.path());
  std::vector<StoredTensor> tensors;
  DrawnTensors drawn;
  for (const ReportedTensor& tensor : report.found) tensors.push_back(drawn.draw(tensor.name, tensor.shape));
  for (const std::string& sentence : report.mismatched) {  // "name: expected [1, 2], got [3, 4]"
    const size_t colon = sentence.find(": expected [");
    std::istringstream sides(sentence.substr(colon + 12));
    std::vector<int64_t> shape;
    char separator = ',';
    for (int64_t side = 0; separator == ',' && sides >> side >> separator;) shape.push_back(side);
    tensors.push_back(drawn.draw(sentence.substr(0, colon), shape));
  }
  scratch.write_tensors(tensors);
}

/// The directory of one of assets/tiny or of shaped_checkpoints(), which is written when it is first asked for and goes
/// with the process. Safe from many threads.
inline std::string checkpoint(const std::string& name) {
  const auto shaped = shaped_checkpoints().find(name);
  if (shaped == shaped_checkpoints().end()) return tiny(name);
  static std::mutex mutex;
  static std::map<std::string, Scratch> written;
  const std::lock_guard lock(mutex);
  const auto [place, is_new] = written.try_emplace(name, shaped->second.base);
  if (is_new) reshape(place->second, shaped->second);
  return place->second.path();
}

}  // namespace oriel
