#pragma once
// Attention of a decoder's runs by a kernel of oriel's or libtorch's; see ops/causal_runs.hpp. Compiled with ORIEL_CUDA
// only.
#include <span>

#include "ops/causal_runs.hpp"

namespace oriel::ops::cuda {

/// oriel's own kernel: 16-bit types, heads of 64, 128 or 256 values, on sm_90 where the build has it.
[[nodiscard]] bool has_tiles(std::span<const CausalRun> runs, const DecodeShape& shape, at::ScalarType dtype,
                             c10::Device device);
[[nodiscard]] CausalTiles place_tiles(std::span<const CausalRun> runs, const DecodeShape& shape, int64_t window,
                                      c10::Device device);
[[nodiscard]] at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const CausalTiles& tiles, double scale);

/// libtorch's: 16-bit types, heads of up to 256 values that are a multiple of 8, on chips from sm_80 on.
[[nodiscard]] bool has_flash(std::span<const CausalRun> runs, const DecodeShape& shape, at::ScalarType dtype,
                             c10::Device device);
[[nodiscard]] FlashStretches place_stretches(std::span<const CausalRun> runs, c10::Device device);
[[nodiscard]] at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const FlashStretches& stretches, int64_t window, double scale);

}  // namespace oriel::ops::cuda
