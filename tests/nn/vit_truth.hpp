#pragma once
// A vision transformer in double-precision loops, written from the formulas of VitSpec alone: pre-norm blocks,
// x += proj(attention(norm1(x))); x += mlp(norm2(x)).
#include <cstdint>
#include <vector>

#include "nn/vit.hpp"

namespace oriel::nn {

/// Rows of equal width.
struct Matrix {
  int64_t rows = 0;
  int64_t columns = 0;
  std::vector<double> values;
  [[nodiscard]] double& at(int64_t row, int64_t column) { return values[static_cast<size_t>(row * columns + column)]; }
  [[nodiscard]] double at(int64_t row, int64_t column) const {
    return values[static_cast<size_t>(row * columns + column)];
  }
};

[[nodiscard]] Matrix to_matrix(const at::Tensor& x);  ///< of one dimension: one row

/// A linear layer's own tensors, before they are packed; bias may be undefined.
struct LinearTensors {
  at::Tensor weight;
  at::Tensor bias;
};
struct BlockTensors {
  NormWeights norm1, norm2;
  LinearTensors q, k, v, proj, gate, up, down;  ///< gate is undefined where the MLP is plain
};
struct VitTensors {
  LinearTensors patch;
  NormWeights before_blocks, after_blocks;
  std::vector<BlockTensors> blocks;
};

/// All hidden states, the input of the first block first; norm_after_blocks is not applied to them.
[[nodiscard]] std::vector<Matrix> hidden_states_in_double(const VitSpec& spec, const VitTensors& tensors,
                                                          const VitInput& input);
/// The chosen states side by side, after norm_after_blocks.
[[nodiscard]] Matrix features_in_double(const VitSpec& spec, const VitTensors& tensors,
                                        const std::vector<Matrix>& hidden_states);

}  // namespace oriel::nn
