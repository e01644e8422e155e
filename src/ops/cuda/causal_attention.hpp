#pragma once
// Attention of a decoder's runs by libtorch's flash attention; see ops/causal_runs.hpp. Compiled with ORIEL_CUDA only.
#include <span>

#include "ops/causal_runs.hpp"

namespace oriel::ops::cuda {

/// It takes 16-bit types, heads of up to 256 values that are a multiple of 8, and chips from sm_80 on.
[[nodiscard]] bool takes_causal_runs(std::span<const CausalRun> runs, const DecodeShape& shape, at::ScalarType dtype,
                                     c10::Device device);
[[nodiscard]] FlashStretches place_stretches(std::span<const CausalRun> runs, c10::Device device);
[[nodiscard]] at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const FlashStretches& stretches, int64_t window, double scale);

}  // namespace oriel::ops::cuda
