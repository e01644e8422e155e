#pragma once
#include <ATen/core/Tensor.h>

namespace oriel::ops {

/// In which precision a rotation runs. Both take float32 angles.
enum class RotaryPrecision {
  working,  ///< cos and sin are rounded to x's dtype and every step is rounded (spec/pixtral.md 3)
  float32,  ///< x is widened, rotated and rounded once (spec/qwen_vl.md 4)
};

/// cos and sin of the rotation angles, float32 [T, head_dim].
struct Rotary {
  at::Tensor cos;
  at::Tensor sin;
  /// What the GPU's kernel reads, float32 [T, head_dim]: cos of the lower half of a head, then sin. Undefined where the
  /// halves of cos and sin differ, or on the CPU.
  at::Tensor turns = {};
  [[nodiscard]] bool defined() const { return cos.defined(); }
};

/// The reference: x * cos + rotate_half(x) * sin, rotate_half(x) = concat(-x[D/2:], x[:D/2]), for x [T, heads,
/// head_dim].
[[nodiscard]] at::Tensor rotate(const at::Tensor& x, const Rotary& rotary, RotaryPrecision precision);

/// Rotates q and k of a packed product qkv [T, 3, heads, head_dim] where they lie; v is left alone. One pass over
/// memory on the CPU and on a GPU (there in float32, rounded once, whatever the precision:
/// nearer to the truth than rounding every step); for other types `rotate`, copied back. Returns the factor by which q was
/// multiplied besides: query_scale where the kernel ran, else 1.
double rotate_query_key(const at::Tensor& qkv, const Rotary& rotary, RotaryPrecision precision,
                        double query_scale = 1.0);

/// Rotates x [T, heads, head_dim] where it lies; its heads lie side by side, its tokens may be apart.
void rotate_in_place(const at::Tensor& x, const Rotary& rotary, RotaryPrecision precision);

/// The rows of `rotary` in another order: row i of the result is row order[i].
[[nodiscard]] Rotary reorder(const Rotary& rotary, const at::Tensor& order);

/// theta^(-2k / dimensions), k = 0 .. dimensions / 2 - 1, in float32 as transformers computes them.
[[nodiscard]] at::Tensor inverse_frequencies(double theta, int64_t dimensions);

/// Angles of tokens of a text: `positions` int64 [axes, T], `frequencies` float32 [head_dim / 2]. Pair k of a head
/// turns with row axes[k] of `positions`; all with row 0 where `axes` (int64 [head_dim / 2]) is undefined. The second
/// half of a head repeats the first. All in float32, on the device of `frequencies`.
[[nodiscard]] Rotary token_rotary(const at::Tensor& positions, const at::Tensor& frequencies, const at::Tensor& axes);

/// Angles of a two-dimensional rotary embedding: `rows` and `columns` are int64 [T] patch indices, `row_frequencies`
/// and `column_frequencies` float32 [head_dim / 4]. The first quarter of the head turns with the row, the second with
/// the column, and the second half repeats the first. All in float32, on the device of `rows`.
[[nodiscard]] Rotary axial_rotary(const at::Tensor& rows, const at::Tensor& columns, const at::Tensor& row_frequencies,
                                  const at::Tensor& column_frequencies);

}  // namespace oriel::ops
