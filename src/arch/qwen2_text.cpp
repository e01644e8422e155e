// The text side of Qwen2-VL and Qwen2.5-VL: q, k and v with biases, positions of three axes (time, row, column).
// spec/text.md 1 to 3.
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "arch/decoder_config.hpp"
#include "core/error.hpp"

namespace oriel::arch {
namespace {

class Qwen2Text final : public TextArchitecture {
 public:
  /// `tokens_per_second` of a video's time; nothing: its slots are one position apart, like rows and columns.
  Qwen2Text(const ModelFiles& files, std::string family, std::optional<int64_t> tokens_per_second)
      : tokens_per_second_(tokens_per_second) {
    const Json& config = files.config;
    const Json nested = config["text_config"];
    const Json text = nested.has_value() ? nested : config;  // as first released, everything is on the top level
    traits_.family = std::move(family);
    traits_.names = {.prefixes = {{"model.language_model.", "language_model."},
                                  {"model.visual.", "visual."},
                                  {"model.", "language_model."}},
                     .wanted = {"language_model.", "lm_head."}};
    traits_.query_key_value_bias = true;
    traits_.tied_head =
        config["tie_word_embeddings"].boolean_or(false) || text["tie_word_embeddings"].boolean_or(false);
    traits_.placeholder_tokens = {config["image_token_id"].integer_or(151655),
                                  config["video_token_id"].integer_or(151656)};
    merge_ = config["vision_config"]["spatial_merge_size"].integer_in_or(1, 64, 2);
    refuse_quantised_text(text);
    read_decoder(text,
                 {.vocabulary = 152064,
                  .width = 8192,
                  .mlp_width = 29568,
                  .depth = 80,
                  .heads = 64,
                  .kv_heads = 8,
                  .norm_eps = 1e-5,
                  .max_positions = 32768,
                  .reads_head_dim = false},
                 traits_);
    read_windows(text);
    read_rotary(text);
  }

  at::Tensor positions(int64_t tokens, std::span<const VisionRun> runs) const override {
    at::Tensor result = at::empty({3, tokens}, at::kLong);
    auto* time = result.mutable_data_ptr<int64_t>();
    auto* row = time + tokens;
    auto* column = row + tokens;
    int64_t next = 0;
    int64_t token = 0;
    const auto text_until = [&](int64_t end) {
      for (; token < end; ++token) time[token] = row[token] = column[token] = next++;
    };
    for (const VisionRun& run : runs) {
      text_until(run.tokens.begin);
      check_whole(run);
      const int64_t rows = run.grid.h / merge_;
      const int64_t columns = run.grid.w / merge_;
      const int64_t step = run.grid.t > 1 ? time_step(run) : 1;
      for (int64_t t = 0; t < run.grid.t; ++t)
        for (int64_t y = 0; y < rows; ++y)
          for (int64_t x = 0; x < columns; ++x, ++token) {
            time[token] = next + t * step;
            row[token] = next + y;
            column[token] = next + x;
          }
      // transformers 5 does not look at the time here, so that text may stand at the place of a late slot.
      next += std::max(rows, columns);
    }
    text_until(tokens);
    return result;
  }

 private:
  void read_windows(const Json& text) {
    nn::DecoderSpec& decoder = traits_.decoder;
    const Json use = text["use_sliding_window"];
    const auto window = use.has_value() && use.boolean() ? read_window(text, 4096) : std::nullopt;
    const Json first = text["max_window_layers"];
    const int64_t first_sliding = first.has_value() ? first.integer() : 80;
    const auto slides = read_layer_types(text, decoder.depth());
    for (int64_t i = 0; i < decoder.depth(); ++i) {
      const bool sliding = slides ? (*slides)[static_cast<size_t>(i)] : window && i >= first_sliding;
      if (sliding && !window)
        throw_error(ErrorCode::malformed_model, "{}: expected a sliding_window for its sliding layers, found none",
                    text["layer_types"].where());
      decoder.layers[static_cast<size_t>(i)].window = sliding ? *window : 0;
    }
  }

  /// The pairs of a head turn with time, row and column in three stretches, one after the other.
  void read_rotary(const Json& text) {
    nn::DecoderSpec& decoder = traits_.decoder;
    RopeKeys keys = read_rope_keys(text, 1000000.0);
    if (keys.type == "mrope") keys.type = "default";
    // Positions of a video may run beyond the tokens, and with them beyond the length up to which dynamic is static.
    if (keys.type == "dynamic")
      throw_error(ErrorCode::unsupported_model,
                  "{}: expected rope type default, linear, yarn or llama3, got \"dynamic\"", keys.parameters.where());
    set_rotary(keys, traits_);
    nn::RotarySpec& rotary = decoder.rotaries[0];
    const Json section = keys.parameters["mrope_section"];
    const std::vector<int64_t> pairs = section.has_value() ? section.integers() : std::vector<int64_t>{16, 24, 24};
    const int64_t half = decoder.head_dim / 2;
    int64_t sum = 0;
    bool fits = pairs.size() == 3;
    for (const int64_t count : pairs) {
      fits = fits && count >= 0 && count <= half;
      if (fits) sum += count;
    }
    if (!fits || sum != half)
      throw_error(ErrorCode::malformed_model, "{}: expected three numbers with the sum head_dim / 2 = {}, got {}",
                  section.where(), half, section.is_absent() ? "nothing, which means [16,24,24]" : section.dump());
    for (size_t axis = 0; axis < 3; ++axis)
      rotary.axes.insert(rotary.axes.end(), static_cast<size_t>(pairs[axis]), static_cast<int64_t>(axis));
    decoder.position_axes = 3;
  }

  /// Rows have places on the grid only where all of an embedding's rows stand together.
  void check_whole(const VisionRun& run) const {
    const auto in_range = [](int64_t side) { return side >= 1 && side < (int64_t{1} << 31); };
    const Grid& grid = run.grid;
    const bool whole_cells =
        in_range(grid.t) && in_range(grid.h) && in_range(grid.w) && grid.h % merge_ == 0 && grid.w % merge_ == 0;
    const int64_t cells = whole_cells ? (grid.h / merge_) * (grid.w / merge_) : 0;  // below 2^62
    if (cells == 0 || run.all_rows % cells != 0 || run.all_rows / cells != grid.t)
      throw_error(ErrorCode::invalid_argument,
                  "embedding {}: expected a grid of {} rows after merging {} x {} patches, got [{}, {}, {}]", run.name,
                  run.all_rows, merge_, merge_, grid.t, grid.h, grid.w);
    const int64_t rows = run.tokens.end - run.tokens.begin;
    if (run.first_row != 0 || rows != run.all_rows)
      throw_error(ErrorCode::invalid_argument,
                  "embedding {}: expected the ids of its {} rows together and in order, got {} from row {} on at id {}",
                  run.name, run.all_rows, rows, run.first_row, run.tokens.begin);
  }

  /// Positions between the temporal slots of a video, with transformers' roundings: spec/text.md 3.
  [[nodiscard]] int64_t time_step(const VisionRun& run) const {
    if (!tokens_per_second_) return 1;
    const auto seconds = static_cast<float>(run.seconds_per_slot);
    if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e6F)
      throw_error(ErrorCode::invalid_argument, "embedding {}: expected 0 to 1000000 seconds per slot, got {}", run.name,
                  run.seconds_per_slot);
    return *tokens_per_second_ * static_cast<int64_t>(seconds);
  }

  std::optional<int64_t> tokens_per_second_;
  int64_t merge_ = 2;
};

}  // namespace

std::unique_ptr<TextArchitecture> make_qwen2_vl_text(const ModelFiles& files) {
  return std::make_unique<Qwen2Text>(files, "Qwen2-VL", std::nullopt);
}

std::unique_ptr<TextArchitecture> make_qwen2_5_vl_text(const ModelFiles& files) {
  const Json rate = files.config["vision_config"]["tokens_per_second"];
  return std::make_unique<Qwen2Text>(files, "Qwen2.5-VL", rate.integer_in_or(0, 1 << 20, 4));
}

}  // namespace oriel::arch
