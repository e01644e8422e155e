#pragma once
// Matrix products by cuBLASLt with what surrounds them in a transformer inside the product's own epilogue, and with the
// algorithm chosen by timing.
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <tuple>
#include <vector>

#include "kernels.h"
#include "timing.h"

namespace oriel::kernels {

/// y = f(x weight^T + bias) + residual. Strides and pointers should be multiples of 16 bytes: others are slow.
struct MatmulParams {
  const void* x = nullptr;         ///< [rows, in], rows x_stride apart
  const void* weight = nullptr;    ///< [out, in], dense
  const void* bias = nullptr;      ///< [out], or null
  const void* residual = nullptr;  ///< [rows, out], dense, or null; not y
  void* y = nullptr;               ///< [rows, out], dense
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  int64_t x_stride = 0;
  bool gelu_tanh = false;  ///< f; without a residual only
  /// One algorithm without split sums for every number of rows, so that a row's result does not depend on the others.
  bool deterministic = false;
  Element element = Element::bfloat16;  ///< of all matrices; sums are in float32
  void* workspace = nullptr;            ///< of workspace_bytes, for this call's duration on the stream
  int64_t workspace_bytes = 0;
};

/// What a product looks like to the choice of an algorithm. Rows are rounded up to a few sizes an octave.
struct MatmulShape {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  int64_t x_stride = 0;
  int32_t element = 0;
  /// Bits: 0 bias, 1 residual, 2 GELU, 3 deterministic; 4 of two ways, and of those 5 gated, 6 square tiles.
  int32_t epilogue = 0;

  [[nodiscard]] auto key() const { return std::tie(rows, in, out, x_stride, element, epilogue); }
  friend bool operator<(const MatmulShape& a, const MatmulShape& b) { return a.key() < b.key(); }
};

/// An algorithm that was chosen, as the numbers that tell it from others: meaningful to the same cuBLASLt version on
/// the same kind of chip.
struct MatmulChoice {
  static constexpr size_t setting_count = 9;

  MatmulShape shape;
  std::array<int64_t, setting_count> settings{};  ///< by cublasLtMatmulAlgoConfigAttributes_t; of two ways: 1 or 2
};

/// Two ways to make a product with what follows it, such as an activation in its epilogue or in a kernel behind it.
struct MatmulTwoWays {
  MatmulShape shape;  ///< with the rows as they are
  Way first, second;
  const void* weight = nullptr;  ///< [weight_rows, shape.in]
  int64_t weight_rows = 0;
  bool otherwise = false;  ///< the answer where none can be timed
};

/// The products of one device: cuBLASLt's handle and the algorithms chosen so far. Safe from many threads.
class Matmul {
 public:
  static constexpr int64_t workspace_bytes = int64_t{32} << 20;

  /// For the current device.
  Matmul();
  ~Matmul();
  Matmul(const Matmul&) = delete;
  Matmul& operator=(const Matmul&) = delete;

  /// The first product of a shape times the algorithms that cuBLASLt offers, on the operands given: some milliseconds,
  /// in which the calling thread waits and short products want memory of twice the L2 cache's size, or, where that is
  /// more than a quarter of what is free, are timed less well. While the stream is being captured, the first one
  /// offered is taken instead.
  cudaError_t operator()(const MatmulParams& params, cudaStream_t stream);

  /// Whether the first way is the faster one: timed once a shape, as algorithms are.
  bool is_faster(const MatmulTwoWays& choice, cudaStream_t stream);
  /// What is_faster said of a shape, with the rows as they are, or was told by adopt; nothing if it would have to time.
  [[nodiscard]] std::optional<bool> was_faster(MatmulShape shape);

  /// What was chosen so far.
  [[nodiscard]] std::vector<MatmulChoice> choices() const;
  /// Takes over choices of an earlier run, whatever they hold: they only pick one of the algorithms that cuBLASLt
  /// offers for a shape, without timing them. A choice that is not among these is made anew.
  void adopt(const std::vector<MatmulChoice>& choices);
  /// How many shapes were chosen for without help.
  [[nodiscard]] int64_t chosen() const;

 private:
  cudaError_t choose(const MatmulParams& params, cudaStream_t stream, cublasLtMatmulAlgo_t& algorithm);
  /// Which of them is the fastest; -1 if all fail.
  int time(const MatmulParams& params, const std::vector<cublasLtMatmulAlgo_t>& algorithms, cudaStream_t stream);

  cublasLtHandle_t handle_ = nullptr;
  mutable std::mutex mutex_;
  std::map<MatmulShape, cublasLtMatmulAlgo_t> known_;
  std::map<MatmulShape, int64_t> ways_;
  std::map<MatmulShape, MatmulChoice> adopted_;
  int64_t chosen_ = 0;
};

}  // namespace oriel::kernels
