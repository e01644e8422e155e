#include "ops/rotary.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>

#include "ops/device.hpp"
#include "ops/parallel.hpp"
#include "ops/rows.hpp"
#include "ops/vectorised.hpp"
#ifdef ORIEL_CUDA
#include "ops/cuda/launch.hpp"
#endif

namespace oriel::ops {
namespace {

at::Tensor rotate_half(const at::Tensor& x) {
  const int64_t half = x.size(-1) / 2;
  return at::cat({x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)}, -1);
}

/// One token of q or k: x [heads, head_dim] in place. `Step` is what products are rounded to before they are added.
template <typename T, typename Step>
inline void rotate_values(T* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim) {
  const auto step = [](float value) { return static_cast<float>(static_cast<Step>(value)); };
  const int64_t half = head_dim / 2;
  for (int64_t head = 0; head < heads; ++head, x += head_dim)
    for (int64_t j = 0; j < half; ++j) {
      const auto low = static_cast<float>(x[j]);
      const auto high = static_cast<float>(x[j + half]);
      x[j] = static_cast<T>(step(low * step(cos[j])) - step(high * step(sin[j])));
      x[j + half] = static_cast<T>(step(high * step(cos[j + half])) + step(low * step(sin[j + half])));
    }
}

/// The types of a tower, and whether products are rounded to it.
ORIEL_VECTORISED void rotate_token(float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim,
                                   bool /*working*/) {
  rotate_values<float, float>(x, cos, sin, heads, head_dim);
}
ORIEL_VECTORISED void rotate_token(c10::BFloat16* x, const float* cos, const float* sin, int64_t heads,
                                   int64_t head_dim, bool working) {
  if (working) return rotate_values<c10::BFloat16, c10::BFloat16>(x, cos, sin, heads, head_dim);
  rotate_values<c10::BFloat16, float>(x, cos, sin, heads, head_dim);
}
ORIEL_VECTORISED void rotate_token(c10::Half* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim,
                                   bool working) {
  if (working) return rotate_values<c10::Half, c10::Half>(x, cos, sin, heads, head_dim);
  rotate_values<c10::Half, float>(x, cos, sin, heads, head_dim);
}

/// x [T, heads, head_dim] with dense heads, in place, without a copy in float32.
template <typename T>
void rotate_rows(const at::Tensor& x, const Rotary& rotary, bool working) {
  const at::Tensor cos_table = rotary.cos.to(at::kFloat).contiguous();
  const at::Tensor sin_table = rotary.sin.to(at::kFloat).contiguous();
  const auto* cos = cos_table.const_data_ptr<float>();
  const auto* sin = sin_table.const_data_ptr<float>();
  auto* data = x.mutable_data_ptr<T>();
  const int64_t stride = x.stride(0);
  const int64_t heads = x.size(1);
  const int64_t head_dim = x.size(2);
  parallel_for(x.size(0), 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      rotate_token(data + t * stride, cos + t * head_dim, sin + t * head_dim, heads, head_dim, working);
  });
}

}  // namespace

double rotate_query_key(const at::Tensor& qkv, const Rotary& rotary, RotaryPrecision precision,
                        [[maybe_unused]] double query_scale) {
#ifdef ORIEL_CUDA
  if (cuda::rotate_query_key(qkv, rotary, query_scale)) return query_scale;
#endif
  for (const int64_t part : {0, 1}) rotate_in_place(qkv.select(1, part), rotary, precision);
  return 1.0;
}

void rotate_in_place(const at::Tensor& x, const Rotary& rotary, RotaryPrecision precision) {
  const bool working = precision == RotaryPrecision::working;
  if (x.is_cpu() && x.stride(2) == 1 && x.stride(1) == x.size(2)) {
    if (x.scalar_type() == at::kFloat) return rotate_rows<float>(x, rotary, working);
    if (x.scalar_type() == at::kBFloat16) return rotate_rows<c10::BFloat16>(x, rotary, working);
    if (x.scalar_type() == at::kHalf) return rotate_rows<c10::Half>(x, rotary, working);
  }
  x.copy_(rotate(x, rotary, precision));
}

Rotary reorder(const Rotary& rotary, const at::Tensor& order) {
  return {gather_rows(rotary.cos, order), gather_rows(rotary.sin, order),
          rotary.turns.defined() ? gather_rows(rotary.turns, order) : at::Tensor()};
}

at::Tensor rotate(const at::Tensor& x, const Rotary& rotary, RotaryPrecision precision) {
  const auto dtype = precision == RotaryPrecision::working ? x.scalar_type() : at::kFloat;
  const at::Tensor wide = x.to(dtype);
  const at::Tensor cos = rotary.cos.to(dtype).unsqueeze(1);  // [T, 1, head_dim]
  const at::Tensor sin = rotary.sin.to(dtype).unsqueeze(1);
  return (wide * cos + rotate_half(wide) * sin).to(x.scalar_type());
}

at::Tensor inverse_frequencies(double theta, int64_t dimensions) {
  const at::Tensor exponents = at::arange(0, dimensions, 2, at::kLong).to(at::kFloat) / dimensions;
  return at::pow(theta, exponents).reciprocal();
}

Rotary token_rotary(const at::Tensor& positions, const at::Tensor& frequencies, const at::Tensor& axes) {
  const at::Tensor place = upload(positions, frequencies.device()).to(at::kFloat);  // [axes, T]
  const at::Tensor by_pair = axes.defined() ? place.index_select(0, axes) : place.narrow(0, 0, 1);
  const at::Tensor half = by_pair.transpose(0, 1) * frequencies;  // [T, head_dim / 2]
  const at::Tensor angles = at::cat({half, half}, 1);
  return {at::cos(angles), at::sin(angles), {}};
}

Rotary axial_rotary(const at::Tensor& rows, const at::Tensor& columns, const at::Tensor& row_frequencies,
                    const at::Tensor& column_frequencies) {
  const at::Tensor quarter_rows = rows.to(at::kFloat).unsqueeze(1) * upload(row_frequencies, rows.device());
  const at::Tensor quarter_columns = columns.to(at::kFloat).unsqueeze(1) * upload(column_frequencies, rows.device());
  const at::Tensor angles = at::cat({quarter_rows, quarter_columns}, 1);
  const at::Tensor cos = at::cos(angles);
  const at::Tensor sin = at::sin(angles);
  return {at::cat({cos, cos}, 1), at::cat({sin, sin}, 1), rows.is_cuda() ? at::cat({cos, sin}, 1) : at::Tensor()};
}

}  // namespace oriel::ops
