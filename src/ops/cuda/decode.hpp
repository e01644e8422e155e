#pragma once
// The kernels of a decoder's step on tensors; see ops/decode.hpp. Compiled with ORIEL_CUDA only.
#include "ops/decode.hpp"

namespace oriel::ops::cuda {

[[nodiscard]] bool has_decode_kernels(const DecodeShape& shape, at::ScalarType dtype, c10::Device device);
[[nodiscard]] at::Tensor token_turns(const at::Tensor& positions, const at::Tensor& frequencies,
                                     const at::Tensor& axes);
void rotate_and_store(const at::Tensor& qkv, const at::Tensor& turns, const HeadNorms& norms, int64_t heads,
                      const CachedTokens& cached);
[[nodiscard]] at::Tensor decode_attention(const at::Tensor& qkv, int64_t heads, const CachedTokens& cached,
                                          int64_t window, double scale);
[[nodiscard]] at::Tensor greedy_choices(const at::Tensor& logits);

}  // namespace oriel::ops::cuda
