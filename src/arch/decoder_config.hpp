#pragma once
// The keys of a text model's configuration that families share: spec/text.md 1, spec/weights.md 3.
#include <optional>
#include <string>
#include <vector>

#include "arch/text_architecture.hpp"
#include "core/json.hpp"

namespace oriel::arch {

/// What a class takes for keys that config.json does not have.
struct DecoderDefaults {
  int64_t vocabulary;
  int64_t width;
  int64_t mlp_width;
  int64_t depth;
  int64_t heads;
  std::optional<int64_t> kv_heads;  ///< nothing: as many as heads
  double norm_eps;
  int64_t max_positions;
  std::optional<int64_t> head_dim = {};  ///< nothing: width / heads
  bool reads_head_dim = true;            ///< false: config.json's head_dim has no meaning
  const char* activation_key = "hidden_act";
  const char* activation = "silu";
};

/// Sizes, norm, activation and attention scale (1 / sqrt(head_dim)) into `traits`; `depth` layers without a window.
/// Throws malformed_model for sizes that are out of range or do not fit each other.
void read_decoder(const Json& text, const DecoderDefaults& defaults, TextTraits& traits);

/// How a rotary embedding is written down: the old rope_scaling with rope_theta beside it, or rope_parameters.
struct RopeKeys {
  Json parameters;  ///< type, factor and the like; may be absent
  double theta;
  std::string type;
  /// original_max_position_embeddings beside the keys, which comes before their own.
  std::optional<Json> original_positions = {};
  bool hears_truncate = true;  ///< whether yarn's key "truncate" has a meaning
};
[[nodiscard]] RopeKeys read_rope_keys(const Json& text, double default_theta);

struct ScaledRotary {
  nn::RotarySpec rotary;
  /// By which cos and sin are multiplied, and products of q and k by its square: in [0.001, 1000].
  double attention_factor = 1;
};
/// The frequencies for these keys, all finite. Throws unsupported_model for types other than default, linear, dynamic,
/// yarn and llama3. dynamic is the default up to max_positions, and longer sequences are not run.
[[nodiscard]] ScaledRotary make_rotary(const RopeKeys& keys, int64_t head_dim, int64_t max_positions);
/// make_rotary for all layers alike. The factor goes into the attention scale, which must be set.
void set_rotary(const RopeKeys& keys, TextTraits& traits);

/// sliding_window: a number; nothing for null; the class default if absent.
[[nodiscard]] std::optional<int64_t> read_window(const Json& text, std::optional<int64_t> fallback);
/// Which layers slide, as layer_types says; nothing if it is absent or null.
[[nodiscard]] std::optional<std::vector<bool>> read_layer_types(const Json& text, int64_t depth);

/// image_token_index, or its alias image_token_id.
[[nodiscard]] int64_t read_image_token(const Json& config, int64_t fallback);

/// Throws unsupported_model for a text_config that is quantised.
void refuse_quantised_text(const Json& text);

/// How the llava group writes the names of its text model: spec/weights.md 1.
[[nodiscard]] NameRules prefixed_text_names();

}  // namespace oriel::arch
