// Gemma 3's text side: sandwich norms, norms of q and k, windows in most layers, pictures that see themselves in both
// directions. spec/text.md 5 and 6.
#include <algorithm>
#include <cmath>
#include <utility>

#include "arch/decoder_config.hpp"
#include "core/error.hpp"

namespace oriel::arch {
namespace {

class Gemma3Text final : public TextArchitecture {
 public:
  explicit Gemma3Text(const ModelFiles& files) {
    const Json& config = files.config;
    const Json text = config["text_config"];
    traits_.family = "Gemma 3";
    traits_.names = prefixed_text_names();
    traits_.tied_head = config["tie_word_embeddings"].boolean_or(true);
    image_token_ = read_image_token(config, 262144);
    traits_.placeholder_tokens = {image_token_};
    refuse_others(text);
    read_decoder(text,
                 {.vocabulary = 262208,
                  .width = 2304,
                  .mlp_width = 9216,
                  .depth = 26,
                  .heads = 8,
                  .kv_heads = 4,
                  .norm_eps = 1e-6,
                  .max_positions = 131072,
                  .head_dim = 256,
                  .activation_key = "hidden_activation",
                  .activation = "gelu_pytorch_tanh"},
                 traits_);
    nn::DecoderSpec& decoder = traits_.decoder;
    decoder.norm = nn::DecoderNorm::rms_norm_offset;
    decoder.sandwich_norms = true;
    decoder.query_key_norms = true;
    decoder.embedding_scale = std::sqrt(static_cast<double>(decoder.width));
    decoder.attention_scale =
        1 / std::sqrt(static_cast<double>(text["query_pre_attn_scalar"].integer_in_or(1, 1 << 20, 256)));
    traits_.query_key_value_bias = traits_.projection_bias = text["attention_bias"].boolean_or(false);
    read_layers(text);
    read_rotaries(text);
  }

  // Neighbouring pictures without a token between them are one block, as in transformers.
  std::vector<nn::TokenRange> blocks(std::span<const int64_t> ids, std::span<const VisionRun> runs) const override {
    std::vector<bool> is_image(ids.size());
    for (size_t i = 0; i < ids.size(); ++i) is_image[i] = ids[i] == image_token_;  // typed ones count too
    for (const VisionRun& run : runs)
      std::fill(is_image.begin() + run.tokens.begin, is_image.begin() + run.tokens.end, true);
    std::vector<nn::TokenRange> result;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (!is_image[i]) continue;
      const auto token = static_cast<int64_t>(i);
      if (result.empty() || result.back().end != token) result.push_back({token, token});
      result.back().end = token + 1;
    }
    return result;
  }

 private:
  static void refuse_others(const Json& text) {
    refuse_quantised_text(text);
    const Json type = text["model_type"];
    if (type.string_or("gemma3_text") != "gemma3_text")
      throw_error(ErrorCode::unsupported_model, "{}: expected \"gemma3_text\", got {}", type.where(), type.dump());
    const Json cap = text["attn_logit_softcapping"];
    if (cap.has_value())
      throw_error(ErrorCode::unsupported_model, "{}: expected null, got {}", cap.where(), cap.dump());
    const Json both_ways = text["use_bidirectional_attention"];
    if (both_ways.has_value() && both_ways.boolean())
      throw_error(ErrorCode::unsupported_model, "{}: expected false, got true", both_ways.where());
  }

  void read_layers(const Json& text) {
    nn::DecoderSpec& decoder = traits_.decoder;
    const Json pattern = text["sliding_window_pattern"];
    const int64_t period = pattern.integer_in_or(1, 1000, 6);
    const auto slides = read_layer_types(text, decoder.depth());
    const auto window = read_window(text, 4096);
    for (int64_t i = 0; i < decoder.depth(); ++i) {
      const bool sliding = slides ? (*slides)[static_cast<size_t>(i)] : (i + 1) % period != 0;
      if (sliding && !window)
        throw_error(ErrorCode::malformed_model, "{}: expected a number for the sliding layers, got null",
                    text["sliding_window"].where());
      decoder.layers[static_cast<size_t>(i)] = {.window = sliding ? *window : 0, .rotary = sliding ? 1 : 0};
    }
  }

  void read_rotaries(const Json& text) {
    nn::DecoderSpec& decoder = traits_.decoder;
    for (const RopeKeys& keys : {full_keys(text), sliding_keys(text)}) {
      ScaledRotary scaled = make_rotary(keys, decoder.head_dim, traits_.max_positions);
      // All layers have one attention scale.
      if (scaled.attention_factor != 1)
        throw_error(ErrorCode::unsupported_model, "{}: expected yarn with an attention_factor of 1, got {}",
                    keys.parameters.where(), scaled.attention_factor);
      decoder.rotaries.push_back(std::move(scaled.rotary));
    }
  }

  /// rope_scaling speaks of the full layers alone; its old key "type" is not heard there.
  static RopeKeys full_keys(const Json& text) {
    const Json own = text["rope_parameters"]["full_attention"];
    const Json scaling = text["rope_scaling"];
    RopeKeys keys = read_own(own, text["rope_theta"], 1000000.0);
    if (!scaling.has_value()) return keys;
    keys.parameters = scaling;
    if (scaling["rope_type"].has_value()) keys.type = scaling["rope_type"].string();
    if (scaling["rope_theta"].has_value()) keys.theta = scaling["rope_theta"].number();
    return keys;
  }

  static RopeKeys sliding_keys(const Json& text) {
    return read_own(text["rope_parameters"]["sliding_attention"], text["rope_local_base_freq"], 10000.0);
  }

  static RopeKeys read_own(const Json& own, const Json& old_theta, double default_theta) {
    // transformers looks for "truncate" outside of the layer types.
    RopeKeys keys{.parameters = own, .theta = default_theta, .type = "default", .hears_truncate = false};
    for (const Json& theta : {old_theta, own["rope_theta"]})
      if (theta.has_value()) keys.theta = theta.number();
    for (const char* key : {"type", "rope_type"})
      if (own[key].has_value()) keys.type = own[key].string();
    return keys;
  }

  int64_t image_token_ = 0;
};

}  // namespace

std::unique_ptr<TextArchitecture> make_gemma3_text(const ModelFiles& files) {
  return std::make_unique<Gemma3Text>(files);
}

}  // namespace oriel::arch
