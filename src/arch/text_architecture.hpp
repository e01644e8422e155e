#pragma once
// What a text architecture tells the rest of oriel. Everything particular to a model's text side is behind this.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <oriel/types.hpp>
#include <span>
#include <string>
#include <vector>

#include "arch/model_files.hpp"
#include "arch/weights.hpp"
#include "nn/decoder.hpp"

namespace oriel::arch {

/// What is plain data about a text architecture; its constructor fills it in from config.json.
struct TextTraits {
  std::string family;
  nn::DecoderSpec decoder;
  NameRules names;
  bool query_key_value_bias = false;
  bool projection_bias = false;
  bool mlp_bias = false;
  bool tied_head = false;                   ///< as config.json asks; the files may say otherwise
  int64_t max_positions = 0;                ///< tokens of a sequence
  std::vector<int64_t> placeholder_tokens;  ///< ids that stand for rows of pictures and videos
};

/// Neighbouring rows of one picture or video in a prompt.
struct VisionRun {
  nn::TokenRange tokens;
  int64_t first_row = 0;  ///< of the embedding's rows that have a place on the grid
  int64_t all_rows = 0;   ///< so many has it
  Grid grid;              ///< patches before merging
  double seconds_per_slot = 0;
  std::string name;  ///< of the embedding, for messages
};

class TextArchitecture {
 public:
  virtual ~TextArchitecture() = default;

  [[nodiscard]] const TextTraits& traits() const { return traits_; }

  /// Where transformers puts each token of a prompt: int64 [position_axes, tokens] on the CPU. Throws invalid_argument
  /// for runs that have no place.
  [[nodiscard]] virtual at::Tensor positions(int64_t tokens, std::span<const VisionRun> runs) const;
  /// The ranges whose tokens see each other in both directions, in order.
  [[nodiscard]] virtual std::vector<nn::TokenRange> blocks(std::span<const int64_t> ids,
                                                           std::span<const VisionRun> runs) const;

 protected:
  TextTraits traits_;
};

/// Reads the decoder that `traits` describes, by the names that all families share: spec/weights.md 2 and 4.
[[nodiscard]] nn::DecoderWeights load_decoder(WeightReader& reader, const TextTraits& traits);

}  // namespace oriel::arch
