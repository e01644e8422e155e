#include "nn/vit_truth.hpp"

#include <cmath>

#include "ops/random_tensors.hpp"

namespace oriel::nn {
namespace {

Matrix linear(const Matrix& x, const LinearTensors& layer) {
  const Matrix weight = to_matrix(layer.weight);  // [out, in]
  const std::vector<double> bias =
      layer.bias.defined() ? doubles(layer.bias) : std::vector<double>(static_cast<size_t>(weight.rows), 0.0);
  Matrix y{x.rows, weight.rows, std::vector<double>(static_cast<size_t>(x.rows * weight.rows))};
  for (int64_t row = 0; row < x.rows; ++row)
    for (int64_t out = 0; out < weight.rows; ++out) {
      double sum = bias[static_cast<size_t>(out)];
      for (int64_t in = 0; in < x.columns; ++in) sum += x.at(row, in) * weight.at(out, in);
      y.at(row, out) = sum;
    }
  return y;
}

Matrix norm(const VitSpec& spec, const Matrix& x, const NormWeights& weights) {
  const bool centred = spec.norm == NormKind::layer_norm;
  const std::vector<double> weight = doubles(weights.weight);
  Matrix y = x;
  for (int64_t row = 0; row < x.rows; ++row) {
    double mean = 0;
    for (int64_t i = 0; centred && i < x.columns; ++i) mean += x.at(row, i) / static_cast<double>(x.columns);
    double square = 0;
    for (int64_t i = 0; i < x.columns; ++i)
      square += (x.at(row, i) - mean) * (x.at(row, i) - mean) / static_cast<double>(x.columns);
    for (int64_t i = 0; i < x.columns; ++i) {
      y.at(row, i) = (x.at(row, i) - mean) / std::sqrt(square + spec.norm_eps) * weight[static_cast<size_t>(i)];
      if (centred) y.at(row, i) += doubles(weights.bias)[static_cast<size_t>(i)];
    }
  }
  return y;
}

double activate(double x, ops::Activation activation) {
  switch (activation) {
    case ops::Activation::silu:
      return x / (1 + std::exp(-x));
    case ops::Activation::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case ops::Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case ops::Activation::gelu_erf:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case ops::Activation::relu:
      return x > 0 ? x : 0;
    case ops::Activation::identity:
      return x;
  }
  return NAN;
}

void rotate(const VitSpec& spec, Matrix& x, const ops::Rotary& rotary) {
  const Matrix cos = to_matrix(rotary.cos);
  const Matrix sin = to_matrix(rotary.sin);
  const Matrix before = x;
  const int64_t dim = spec.head_dim();
  for (int64_t row = 0; row < x.rows; ++row)
    for (int64_t head = 0; head < spec.heads; ++head)
      for (int64_t i = 0; i < dim; ++i) {
        const int64_t partner = i < dim / 2 ? i + dim / 2 : i - dim / 2;
        const double other = before.at(row, head * dim + partner) * (i < dim / 2 ? -1 : 1);
        x.at(row, head * dim + i) = before.at(row, head * dim + i) * cos.at(row, i) + other * sin.at(row, i);
      }
}

Matrix attend(const VitSpec& spec, const Matrix& q, const Matrix& k, const Matrix& v,
              const std::vector<int64_t>& bounds) {
  Matrix out{q.rows, q.columns, std::vector<double>(q.values.size(), 0.0)};
  const int64_t dim = spec.head_dim();
  const auto segment_of = [&](int64_t row) {
    size_t segment = 0;
    while (bounds[segment + 1] <= row) ++segment;
    return segment;
  };
  for (int64_t head = 0; head < spec.heads; ++head)
    for (int64_t i = 0; i < q.rows; ++i) {
      double total = 0;
      for (int64_t j = 0; j < q.rows; ++j) {
        if (segment_of(i) != segment_of(j)) continue;
        double score = 0;
        for (int64_t d = head * dim; d < (head + 1) * dim; ++d) score += q.at(i, d) * k.at(j, d);
        const double weight = std::exp(score / std::sqrt(static_cast<double>(dim)));
        total += weight;
        for (int64_t d = head * dim; d < (head + 1) * dim; ++d) out.at(i, d) += weight * v.at(j, d);
      }
      for (int64_t d = head * dim; d < (head + 1) * dim; ++d) out.at(i, d) /= total;
    }
  return out;
}

void add(Matrix& x, const Matrix& y) {
  for (size_t i = 0; i < x.values.size(); ++i) x.values[i] += y.values[i];
}

Matrix mlp(const VitSpec& spec, const Matrix& x, const BlockTensors& block) {
  Matrix middle = linear(x, block.up);
  if (spec.gated_mlp) {
    const Matrix gate = linear(x, block.gate);
    for (size_t i = 0; i < middle.values.size(); ++i) middle.values[i] *= activate(gate.values[i], spec.activation);
  } else {
    for (double& value : middle.values) value = activate(value, spec.activation);
  }
  return linear(middle, block.down);
}

}  // namespace

Matrix to_matrix(const at::Tensor& x) {
  return x.dim() == 1 ? Matrix{1, x.size(0), doubles(x)} : Matrix{x.size(0), x.size(1), doubles(x)};
}

std::vector<Matrix> hidden_states_in_double(const VitSpec& spec, const VitTensors& tensors, const VitInput& input) {
  Matrix x = linear(to_matrix(input.patches), tensors.patch);
  if (input.positions.defined()) add(x, to_matrix(input.positions));
  if (spec.norm_before_blocks) x = norm(spec, x, tensors.before_blocks);
  std::vector<Matrix> states{x};
  for (size_t i = 0; i < tensors.blocks.size(); ++i) {
    const BlockTensors& block = tensors.blocks[i];
    const Matrix normed = norm(spec, x, block.norm1);
    Matrix q = linear(normed, block.q);
    Matrix k = linear(normed, block.k);
    if (input.rotary.defined()) {
      rotate(spec, q, input.rotary);
      rotate(spec, k, input.rotary);
    }
    const bool windowed = !spec.windowed.empty() && spec.windowed[i];
    const std::vector<int64_t>& bounds = windowed ? input.window_segments.bounds : input.segments.bounds;
    add(x, linear(attend(spec, q, k, linear(normed, block.v), bounds), block.proj));
    add(x, mlp(spec, norm(spec, x, block.norm2), block));
    states.push_back(x);
  }
  return states;
}

Matrix features_in_double(const VitSpec& spec, const VitTensors& tensors, const std::vector<Matrix>& hidden_states) {
  const int64_t rows = hidden_states.front().rows;
  const int64_t columns = spec.width * static_cast<int64_t>(spec.feature_layers.size());
  Matrix result{rows, columns, std::vector<double>(static_cast<size_t>(rows * columns))};
  for (size_t layer = 0; layer < spec.feature_layers.size(); ++layer) {
    Matrix state = hidden_states[static_cast<size_t>(spec.feature_layers[layer])];
    if (spec.norm_after_blocks) state = norm(spec, state, tensors.after_blocks);
    for (int64_t row = 0; row < rows; ++row)
      for (int64_t i = 0; i < spec.width; ++i)
        result.at(row, static_cast<int64_t>(layer) * spec.width + i) = state.at(row, i);
  }
  return result;
}

}  // namespace oriel::nn
