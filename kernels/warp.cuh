#pragma once
// A warp and what its lanes do together.

namespace oriel::kernels {

constexpr int warp = 32;

/// Of all lanes, in every lane.
__device__ inline float sum_over_warp(float x) {
  for (int distance = warp / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(~0U, x, distance);
  return x;
}

}  // namespace oriel::kernels
