#pragma once
// Products of a few rows with a weight on the CPU: what a step of a decoder consists of. They are bound by reading the
// weight, which is read once, front to back, at the speed of memory; libraries' products stay well below that.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace oriel::ops {

/// A weight [out, in] of float32 or bfloat16 in host memory that somebody else owns, and how it lies there.
struct ReadableWeight {
  enum class Layout {
    rows,    ///< [out, in]
    panels,  ///< oneDNN's for AVX-512: [out / 64, in / pair, 64, pair], ends filled up with zeros, pairs of 4 bytes
  };
  const void* data = nullptr;
  at::ScalarType dtype = at::kFloat;
  Layout layout = Layout::rows;
  int64_t out = 0;
  int64_t in = 0;

  /// Above, a library's product is as fast.
  [[nodiscard]] int64_t most_rows() const { return layout == Layout::panels ? 4 : 8; }
};

/// A dense `weight` as it lies, if its dtype can be read. It must outlive the result.
[[nodiscard]] std::optional<ReadableWeight> readable_rows(const at::Tensor& weight);
/// What oneDNN made of a dense `weight` and put, `bytes` long, at `packed`: if that is one of the layouts above. Its
/// layout is no promise of oneDNN's, so the ends of what lies there are compared with the weight, bit for bit.
[[nodiscard]] std::optional<ReadableWeight> readable_packed(const at::Tensor& weight, const void* packed,
                                                            int64_t bytes);

/// What becomes of a sum before it is rounded to the dtype: (sum + bias + plus) * times, undefined ones left out.
struct SumEnd {
  at::Tensor bias = {};  ///< [out], dense
  at::Tensor plus = {};  ///< [rows, out], dense, like `times`
  at::Tensor times = {};
};
/// x [up to weight.most_rows(), in], dense and of the weight's dtype -> [rows, out]. Sums are float32. A row's bits do
/// not depend on the others.
[[nodiscard]] at::Tensor few_rows_product(const at::Tensor& x, const ReadableWeight& weight, const SumEnd& end);

/// Asks for huge pages under a block that has been written already: reading it once a step in small ones, a third of
/// the time goes to finding them. A wish: where the system does not know how, nothing happens.
void wish_for_huge_pages_under(const void* begin, int64_t bytes);

}  // namespace oriel::ops
