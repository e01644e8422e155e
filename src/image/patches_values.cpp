#include "image/patches_values.hpp"

#include <bit>
#include <cmath>

#include "core/error.hpp"

namespace oriel::image {
namespace {

void check(const PixelSpec& spec) {
  if (spec.do_rescale && (spec.rescale_factor == 0.0 || !std::isfinite(spec.rescale_factor))) {
    throw_error(ErrorCode::malformed_model, "rescale_factor: expected a finite number other than 0, got {}",
                spec.rescale_factor);
  }
  if (!spec.do_normalize) return;
  for (size_t channel = 0; channel < 3; ++channel) {
    if (!std::isfinite(spec.mean[channel])) {
      throw_error(ErrorCode::malformed_model, "image_mean[{}]: expected a finite number, got {}", channel,
                  spec.mean[channel]);
    }
    if (static_cast<float>(spec.std[channel]) == 0.0F || !std::isfinite(spec.std[channel])) {
      throw_error(ErrorCode::malformed_model, "image_std[{}]: expected a finite number other than 0, got {}", channel,
                  spec.std[channel]);
    }
  }
}

/// (x - mean) / divisor, where x is the rescaled byte.
struct Normalization {
  float mean = 0.0F;
  float divisor = 1.0F;
};

bool is_fused(const PixelSpec& spec, ResizeArithmetic arithmetic) {
  return arithmetic == ResizeArithmetic::torchvision && spec.do_rescale && spec.do_normalize;
}

/// Mean and divisor as spec/resize.md 7 has them: torchvision's processors fold the rescaling into both.
Normalization normalization(const PixelSpec& spec, ResizeArithmetic arithmetic, size_t channel) {
  if (!spec.do_normalize) return {};
  const auto mean = static_cast<float>(spec.mean[channel]);
  const auto divisor = static_cast<float>(spec.std[channel]);
  if (!is_fused(spec, arithmetic)) return {mean, divisor};
  const auto inverse = static_cast<float>(1.0 / spec.rescale_factor);
  return {mean * inverse, divisor * inverse};
}

/// The byte before mean and divisor.
float rescaled(int byte, const PixelSpec& spec, ResizeArithmetic arithmetic) {
  if (!spec.do_rescale || is_fused(spec, arithmetic)) return static_cast<float>(byte);
  if (arithmetic == ResizeArithmetic::torchvision) {
    return static_cast<float>(byte) * static_cast<float>(spec.rescale_factor);
  }
  return static_cast<float>(static_cast<double>(byte) * spec.rescale_factor);
}

/// ByteToFloat's formula, operation by operation as the vector kernels compute it.
float compute(const ByteToFloat& channel, int byte) {
  const auto u = static_cast<float>(byte);
  const float x = std::fma(u, channel.scale_high, u * channel.scale_low) - channel.mean;
  const float quotient = x * channel.reciprocal;
  const float rest = std::fma(-quotient, channel.divisor, x);
  return std::fma(rest, channel.reciprocal, quotient);
}

bool gives_table(const ByteToFloat& channel) {
  for (int byte = 0; byte < 256; ++byte) {
    if (std::bit_cast<uint32_t>(compute(channel, byte)) != std::bit_cast<uint32_t>(channel.table[byte])) return false;
  }
  return true;
}

}  // namespace

ValueTable make_value_table(const PixelSpec& spec, ResizeArithmetic arithmetic) {
  check(spec);
  ValueTable table;
  for (size_t channel = 0; channel < 3; ++channel) {
    const Normalization n = normalization(spec, arithmetic, channel);
    for (int byte = 0; byte < 256; ++byte) {
      const float x = rescaled(byte, spec, arithmetic);
      table[channel][static_cast<size_t>(byte)] = spec.do_normalize ? (x - n.mean) / n.divisor : x;
    }
  }
  return table;
}

std::array<ByteToFloat, 3> find_arithmetic(const ValueTable& table, const PixelSpec& spec,
                                           ResizeArithmetic arithmetic) {
  // One multiplication in double and a rounding to float: a float product with the factor's two halves.
  const bool scales = spec.do_rescale && !is_fused(spec, arithmetic);
  const double factor = scales ? spec.rescale_factor : 1.0;
  const auto high = static_cast<float>(factor);
  const bool in_double = arithmetic != ResizeArithmetic::torchvision;
  const float low = in_double ? static_cast<float>(factor - static_cast<double>(high)) : 0.0F;

  std::array<ByteToFloat, 3> channels;
  for (size_t channel = 0; channel < 3; ++channel) {
    const Normalization n = normalization(spec, arithmetic, channel);
    channels[channel] = {table[channel].data(), false, high, low, n.mean, n.divisor, 1.0F / n.divisor};
    channels[channel].computable = gives_table(channels[channel]);
  }
  return channels;
}

}  // namespace oriel::image
