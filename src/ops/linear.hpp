#pragma once
#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <optional>

#include "ops/activation.hpp"
#include "ops/few_rows.hpp"

namespace oriel::ops {

// Of products on a GPU. Rows of 16-bit values start at multiples of 16 bytes where their length is a multiple of this.
inline constexpr int64_t column_multiple = 8;
inline constexpr int64_t product_workspace_bytes = int64_t{32} << 20;  ///< held while a product of cuBLASLt is enqueued

/// While one lives, products of its thread on a GPU take one algorithm whatever the number of rows, and libtorch's
/// attention one segment at a time, so that a row's bits do not depend on the other rows. Ten to twenty percent slower
/// below some thousand rows; where libtorch attends (float32, odd head dims), many segments of one length cost more.
class DeterministicProducts {
 public:
  explicit DeterministicProducts(bool wanted);
  ~DeterministicProducts();
  DeterministicProducts(const DeterministicProducts&) = delete;
  DeterministicProducts& operator=(const DeterministicProducts&) = delete;
  [[nodiscard]] static bool wanted();

 private:
  bool before_;
};

/// y = activation(x W^T + b), with the weight packed once for the processor. A cheap value; safe from many threads.
class Linear {
 public:
  Linear() = default;
  /// weight [out, in] and bias [out] (or undefined), of one dtype and device. On the CPU the weight is reordered into
  /// oneDNN's blocked layout where that library takes the dtype, and the given tensor is not kept.
  Linear(at::Tensor weight, at::Tensor bias);
  /// The same without packing, for a weight that has other users: it is kept and shared.
  [[nodiscard]] static Linear sharing(at::Tensor weight);
  /// Whether weights of this dtype and device get reordered, so that the given one is not kept.
  [[nodiscard]] static bool packs(at::ScalarType dtype, at::Device device);

  /// Says that products of few rows are what the weight is for, as in a decoder: it moves to huge pages where it can.
  void expect_few_rows() const;

  /// x [T, in] -> [T, out]. On a GPU, x may have columns beyond `in` up to the next multiple of 8: zeros.
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, Activation activation = Activation::identity) const;
  /// residual [T, out] + x W^T + b.
  [[nodiscard]] at::Tensor add_to(const at::Tensor& residual, const at::Tensor& x) const;

  /// other [T, out] * (x W^T + b), elementwise: the second half of a gated MLP.
  [[nodiscard]] at::Tensor multiply_with(const at::Tensor& other, const at::Tensor& x) const;

  [[nodiscard]] bool defined() const { return out_ > 0; }
  [[nodiscard]] int64_t in_features() const { return in_; }
  [[nodiscard]] int64_t out_features() const { return out_; }
  /// Whether oneDNN's packed product runs (else at::linear): tests ask, so that they know which path they test.
  [[nodiscard]] bool is_packed() const { return packed_; }
  /// Whether products of few rows are our own (few_rows.hpp), from the weight where it lies.
  [[nodiscard]] bool is_readable() const { return readable_.has_value(); }

 private:
  friend class GatedLinear;
  [[nodiscard]] at::Tensor checked(const at::Tensor& x) const;
  [[nodiscard]] bool reads(const at::Tensor& x) const;

  at::Tensor weight_;  ///< on a GPU [out, in rounded up to a multiple of 8], the rest zeros
  at::Tensor bias_;
  int64_t in_ = 0;
  int64_t out_ = 0;
  bool packed_ = false;
  std::optional<ReadableWeight> readable_;  ///< views weight_
};

/// What the first half of a gated MLP makes.
struct GateShape {
  int64_t rows = 0;
  int64_t columns = 0;
  Activation activation = Activation::silu;
};

/// The first half of a gated MLP: activation(x G^T + g) * (x U^T + u). On a GPU both products are one, and the result
/// is wider by columns of zeros where `out` is no multiple of 8; Linear takes it as it is.
class GatedLinear {
 public:
  GatedLinear() = default;
  GatedLinear(Linear gate, Linear up);
  void expect_few_rows() const;  ///< as Linear's

  /// x [T, in] -> [T, out], or a few columns of zeros more.
  [[nodiscard]] at::Tensor operator()(const at::Tensor& x, Activation activation) const;
  /// How many tensors of the result's size there are at once while it runs, the result counted.
  [[nodiscard]] static int64_t results_held(const GateShape& shape, at::ScalarType dtype, at::Device device);

 private:
  Linear gate_;
  Linear up_;
  Linear both_;  ///< [2 * padded out, in], instead of the two
};

/// The same in a few ATen lines: the fallback, and what tests compare with.
[[nodiscard]] at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                                          Activation activation = Activation::identity);

}  // namespace oriel::ops
