#include "arch/decoder_config.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/error.hpp"
#include "ops/rotary.hpp"

namespace oriel::arch {
namespace {

constexpr int64_t widest = 1 << 16;
constexpr int64_t most_layers = 1000;
constexpr int64_t most_tokens = int64_t{1} << 40;

// Scores of attention grow by its square, and must neither vanish nor leave float32.
constexpr double least_attention_factor = 1e-3;
constexpr double most_attention_factor = 1e3;

double positive_number(const Json& value) {
  const double number = value.number();
  if (!std::isfinite(number) || number <= 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a positive number, got {}", value.where(), value.dump());
  return number;
}

/// The value, or `fallback` for null and for an absent key alike.
int64_t integer_or_none(const Json& value, int64_t low, int64_t high, int64_t fallback) {
  return value.has_value() ? value.integer_in(low, high) : fallback;
}

void expect_whole_rotation(const Json& factor) {
  if (factor.has_value() && factor.number() != 1)
    throw_error(ErrorCode::unsupported_model, "{}: expected 1, got {}", factor.where(), factor.dump());
}

/// The length that the model was first trained for.
double original_positions(const RopeKeys& keys, int64_t max_positions) {
  if (keys.original_positions) return static_cast<double>(keys.original_positions->integer_in(1, most_tokens));
  const Json own = keys.parameters["original_max_position_embeddings"];
  return static_cast<double>(own.integer_in_or(1, most_tokens, max_positions));
}

/// Frequencies of Llama 3.1: long waves slowed by the factor, short ones left, those between in between.
at::Tensor llama3_frequencies(const at::Tensor& plain, const RopeKeys& rope, int64_t max_positions) {
  const Json& keys = rope.parameters;
  const double factor = positive_number(keys["factor"]);
  const double low = positive_number(keys["low_freq_factor"]);
  const double high = positive_number(keys["high_freq_factor"]);
  if (high <= low)
    throw_error(ErrorCode::malformed_model, "{}: expected more than low_freq_factor {}, got {}",
                keys["high_freq_factor"].where(), low, high);
  const double context = original_positions(rope, max_positions);
  const at::Tensor wavelength = plain.reciprocal() * (2 * std::numbers::pi);
  const at::Tensor slowed = at::where(wavelength > context / low, plain / factor, plain);
  const at::Tensor smooth = (wavelength.reciprocal() * context - low) / (high - low);
  const at::Tensor between = (1 - smooth) * slowed / factor + smooth * slowed;
  return at::where(at::logical_and(wavelength >= context / high, wavelength <= context / low), between, slowed);
}

/// The value, or `fallback` for 0, null and an absent key alike.
double number_or_if_zero(const Json& value, double fallback) {
  const double number = value.has_value() ? value.number() : 0;
  return number == 0 ? fallback : number;
}

bool is_attention_factor(double number) { return number >= least_attention_factor && number <= most_attention_factor; }

/// The factor of cos and sin that YaRN's paper proposes (section 3.4), unless the keys say another.
double yarn_attention_factor(const Json& keys, double factor) {
  const Json own = keys["attention_factor"];
  if (own.has_value() && !is_attention_factor(own.number()))
    throw_error(ErrorCode::malformed_model, "{}: expected a number in [{}, {}], got {}", own.where(),
                least_attention_factor, most_attention_factor, own.dump());
  if (own.has_value()) return own.number();
  const auto grown = [&](double scale) { return factor <= 1 ? 1.0 : 0.1 * scale * std::log(factor) + 1; };
  const double scale = number_or_if_zero(keys["mscale"], 0);
  const double all_scale = number_or_if_zero(keys["mscale_all_dim"], 0);
  const double proposed = scale != 0 && all_scale != 0 ? grown(scale) / grown(all_scale) : grown(1);
  if (!is_attention_factor(proposed))
    throw_error(ErrorCode::malformed_model,
                "{}: expected mscale and mscale_all_dim that give an attention factor in [{}, {}], got {} and {}",
                keys.where(), least_attention_factor, most_attention_factor, scale, all_scale);
  return proposed;
}

/// YaRN (section 3.2 of its paper, with transformers' bounds): waves that turn often within the original length are
/// left, those that hardly turn are slowed by the factor, with a ramp over the pairs between.
ScaledRotary yarn_rotary(const RopeKeys& rope, int64_t head_dim, int64_t max_positions) {
  const Json& keys = rope.parameters;
  const double original = original_positions(rope, max_positions);
  const Json given = keys["factor"];
  const double factor = given.is_null() ? static_cast<double>(max_positions) / original : positive_number(given);
  if (rope.theta == 1)
    throw_error(ErrorCode::malformed_model, "{}: expected a rope_theta other than 1 for yarn, got 1", keys.where());
  const auto dimensions = static_cast<double>(head_dim);
  // The place among all dimensions of the wave that turns so often within the original length.
  const auto place = [&](double turns) {
    return dimensions * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
  };
  const double turns_fast = number_or_if_zero(keys["beta_fast"], 32);
  const double turns_slow = number_or_if_zero(keys["beta_slow"], 1);
  if (turns_fast < 0 || turns_slow < 0)
    throw_error(ErrorCode::malformed_model, "{}: expected positive beta_fast and beta_slow, got {} and {}",
                keys.where(), turns_fast, turns_slow);
  double low = place(turns_fast);
  double high = place(turns_slow);
  const Json truncate = keys["truncate"];
  if (!rope.hears_truncate || (!truncate.is_null() && truncate.boolean_or(true))) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dimensions - 1);
  if (low == high) high += 0.001;
  const at::Tensor plain = ops::inverse_frequencies(rope.theta, head_dim);
  const at::Tensor slowed = plain / factor;
  const at::Tensor left = 1 - ((at::arange(head_dim / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  return {.rotary = {.frequencies = slowed * (1 - left) + plain * left, .axes = {}},
          .attention_factor = yarn_attention_factor(keys, factor)};
}

ScaledRotary rotary_of_type(const RopeKeys& keys, int64_t head_dim, int64_t max_positions) {
  expect_whole_rotation(keys.parameters["partial_rotary_factor"]);
  if (!std::isfinite(keys.theta) || keys.theta <= 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a positive rope_theta, got {}", keys.parameters.where(),
                keys.theta);
  if (keys.type == "yarn") return yarn_rotary(keys, head_dim, max_positions);
  const at::Tensor plain = ops::inverse_frequencies(keys.theta, head_dim);
  const auto with = [](at::Tensor frequencies) {
    return ScaledRotary{.rotary = {.frequencies = std::move(frequencies), .axes = {}}};
  };
  if (keys.type == "default") return with(plain);
  if (keys.type == "dynamic") {
    positive_number(keys.parameters["factor"]);  // of no effect up to max_positions
    return with(plain);
  }
  if (keys.type == "linear") return with(plain / positive_number(keys.parameters["factor"]));
  if (keys.type == "llama3") return with(llama3_frequencies(plain, keys, max_positions));
  throw_error(ErrorCode::unsupported_model, "{}: expected rope type default, linear, dynamic, yarn or llama3, got {}",
              keys.parameters.where(), quote_json(keys.type));
}

}  // namespace

void read_decoder(const Json& text, const DecoderDefaults& defaults, TextTraits& traits) {
  nn::DecoderSpec& spec = traits.decoder;
  spec.vocabulary = text["vocab_size"].integer_in_or(1, 1 << 24, defaults.vocabulary);
  spec.width = text["hidden_size"].integer_in_or(1, widest, defaults.width);
  spec.mlp_width = text["intermediate_size"].integer_in_or(1, widest * 16, defaults.mlp_width);
  spec.heads = text["num_attention_heads"].integer_in_or(1, 4096, defaults.heads);
  const Json kv_heads = text["num_key_value_heads"];
  spec.kv_heads =
      kv_heads.is_null() ? spec.heads : kv_heads.integer_in_or(1, 4096, defaults.kv_heads.value_or(spec.heads));
  if (spec.heads % spec.kv_heads != 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a divisor of num_attention_heads {}, got {}",
                kv_heads.where(), spec.heads, spec.kv_heads);
  const Json head_dim = text["head_dim"];
  const int64_t quotient = spec.width / spec.heads;
  spec.head_dim = quotient;
  if (defaults.reads_head_dim && defaults.head_dim)
    spec.head_dim = head_dim.integer_in_or(2, 4096, *defaults.head_dim);
  else if (defaults.reads_head_dim)
    spec.head_dim = integer_or_none(head_dim, 2, 4096, quotient);
  if (spec.head_dim < 2 || spec.head_dim % 2 != 0)
    throw_error(ErrorCode::malformed_model, "{}: expected an even number, got {}", head_dim.where(), spec.head_dim);
  spec.layers.resize(static_cast<size_t>(text["num_hidden_layers"].integer_in_or(1, most_layers, defaults.depth)));
  const Json eps = text["rms_norm_eps"];
  spec.norm_eps = eps.number_or(defaults.norm_eps);
  if (!std::isfinite(spec.norm_eps) || spec.norm_eps < 0)
    throw_error(ErrorCode::malformed_model, "{}: expected a small positive number, got {}", eps.where(), eps.dump());
  const Json activation = text[defaults.activation_key];
  spec.activation = ops::parse_activation(activation.string_or(defaults.activation), activation.where());
  spec.attention_scale = 1 / std::sqrt(static_cast<double>(spec.head_dim));
  traits.max_positions = text["max_position_embeddings"].integer_in_or(1, most_tokens, defaults.max_positions);
}

RopeKeys read_rope_keys(const Json& text, double default_theta) {
  const Json scaling = text["rope_scaling"];
  const bool is_old = scaling.has_value() && !scaling.members().empty();
  const Json keys = is_old ? scaling : text["rope_parameters"];
  expect_whole_rotation(text["partial_rotary_factor"]);
  RopeKeys result{.parameters = keys, .theta = default_theta, .type = "default"};
  const Json original = text["original_max_position_embeddings"];
  if (original.has_value()) result.original_positions = original;
  for (const Json& theta : {text["rope_theta"], keys["rope_theta"]})
    if (theta.has_value()) result.theta = theta.number();
  for (const char* key : {"type", "rope_type"})
    if (keys[key].has_value()) result.type = keys[key].string();
  return result;
}

ScaledRotary make_rotary(const RopeKeys& keys, int64_t head_dim, int64_t max_positions) {
  ScaledRotary result = rotary_of_type(keys, head_dim, max_positions);
  if (!at::isfinite(result.rotary.frequencies).all().item<bool>())
    throw_error(ErrorCode::malformed_model, "{}: expected finite frequencies in float32, got others of rope_theta {}{}",
                keys.parameters.where(), keys.theta,
                keys.parameters.has_value() ? " and " + keys.parameters.dump() : std::string());
  return result;
}

void set_rotary(const RopeKeys& keys, TextTraits& traits) {
  nn::DecoderSpec& decoder = traits.decoder;
  ScaledRotary scaled = make_rotary(keys, decoder.head_dim, traits.max_positions);
  decoder.attention_scale *= scaled.attention_factor * scaled.attention_factor;
  decoder.rotaries = {std::move(scaled.rotary)};
}

std::optional<int64_t> read_window(const Json& text, std::optional<int64_t> fallback) {
  const Json window = text["sliding_window"];
  if (window.is_null()) return std::nullopt;
  return window.is_absent() ? fallback : std::optional(window.integer_in(1, most_tokens));
}

std::optional<std::vector<bool>> read_layer_types(const Json& text, int64_t depth) {
  const Json types = text["layer_types"];
  if (!types.has_value()) return std::nullopt;
  std::vector<bool> slides;
  for (const Json& type : types.elements()) {
    const std::string name = type.string();
    if (name != "sliding_attention" && name != "full_attention")
      throw_error(ErrorCode::unsupported_model, "{}: expected sliding_attention or full_attention, got \"{}\"",
                  type.where(), name);
    slides.push_back(name == "sliding_attention");
  }
  if (static_cast<int64_t>(slides.size()) != depth)
    throw_error(ErrorCode::malformed_model, "{}: expected num_hidden_layers = {} entries, got {}", types.where(), depth,
                slides.size());
  return slides;
}

int64_t read_image_token(const Json& config, int64_t fallback) {
  const Json index = config["image_token_index"];
  return index.has_value() ? index.integer() : config["image_token_id"].integer_or(fallback);
}

void refuse_quantised_text(const Json& text) {
  const Json quantisation = text["quantization_config"];
  if (quantisation.has_value())
    throw_error(ErrorCode::unsupported_model, "{}: quantised checkpoints are not supported; use the float checkpoint",
                quantisation.where());
}

NameRules prefixed_text_names() {
  return {.prefixes = {{"language_model.lm_head.", "lm_head."},
                       {"language_model.model.", "model.language_model."},
                       {"language_model.", "model.language_model."},
                       {"model.language_model.model.", "model.language_model."},
                       {"model.language_model.", "language_model."}},
          .wanted = {"language_model.", "lm_head."}};
}

}  // namespace oriel::arch
