#include "ops/rotary.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/sin.h>

namespace oriel::ops {
namespace {

at::Tensor rotate_half(const at::Tensor& x) {
  const int64_t half = x.size(-1) / 2;
  return at::cat({x.narrow(-1, half, half).neg(), x.narrow(-1, 0, half)}, -1);
}

}  // namespace

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

Rotary axial_rotary(const at::Tensor& rows, const at::Tensor& columns, const at::Tensor& row_frequencies,
                    const at::Tensor& column_frequencies) {
  const at::Tensor quarter_rows = rows.to(at::kFloat).unsqueeze(1) * row_frequencies;
  const at::Tensor quarter_columns = columns.to(at::kFloat).unsqueeze(1) * column_frequencies;
  const at::Tensor angles = at::cat({quarter_rows, quarter_columns, quarter_rows, quarter_columns}, 1);
  return {at::cos(angles), at::sin(angles)};
}

}  // namespace oriel::ops
