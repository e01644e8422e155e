// The first largest logit of each row and its log-probability, in two launches: blocks look through a part of a row
// each, then a warp joins the parts.
//
// Both keep, of what they have seen, the largest logit m, its first index, and the sum of exp(logit - m): one pass over
// memory. NaN makes the sum NaN, wherever it stands.
#include <cfloat>

#include "decode.h"
#include "element.cuh"
#include "launch.cuh"
#include "warp.cuh"

namespace oriel::kernels {
namespace {

constexpr int threads = 256;
constexpr int parts = GreedyParams::parts;
constexpr float lowest = -INFINITY;

struct Seen {
  int64_t index;
  float largest;
  float sum;
};
static_assert(sizeof(Seen) == 16 && parts % warp == 0);

__device__ Seen nothing() { return {INT64_MAX, lowest, 0.0F}; }

/// exp(x - largest), also where both are minus infinity.
__device__ float weight_of(float x, float largest) { return x == lowest ? 0.0F : expf(x - largest); }

__device__ Seen join(const Seen& a, const Seen& b) {
  const bool takes_b = b.largest > a.largest || (b.largest == a.largest && b.index < a.index);
  const Seen& best = takes_b ? b : a;
  const Seen& other = takes_b ? a : b;
  // A part with nothing but minus infinity has a sum of 0, or NaN.
  return {best.index, best.largest, best.sum + other.sum * weight_of(other.largest, best.largest)};
}

__device__ Seen join_over_warp(Seen seen) {
  for (int distance = warp / 2; distance > 0; distance /= 2)
    seen = join(seen, {__shfl_xor_sync(~0U, seen.index, distance), __shfl_xor_sync(~0U, seen.largest, distance),
                       __shfl_xor_sync(~0U, seen.sum, distance)});
  return seen;
}

__global__ void __launch_bounds__(threads) look_through_part(const GreedyParams p) {
  let_next_kernel_begin();
  wait_for_kernels_before();
  const float* logits = p.logits + static_cast<int64_t>(blockIdx.y) * p.stride;
  const int64_t per_part = (p.width + parts - 1) / parts;
  const int64_t begin = blockIdx.x * per_part;
  const int64_t end = min(begin + per_part, p.width);
  Seen seen = nothing();
  for (int64_t i = begin + threadIdx.x; i < end; i += threads)
    seen = join(seen, {i, logits[i], weight_of(logits[i], logits[i])});
  seen = join_over_warp(seen);
  __shared__ Seen of_warps[threads / warp];
  if (threadIdx.x % warp == 0) of_warps[threadIdx.x / warp] = seen;
  __syncthreads();
  if (threadIdx.x >= warp) return;
  seen = join_over_warp(threadIdx.x < threads / warp ? of_warps[threadIdx.x] : nothing());
  if (threadIdx.x == 0) static_cast<Seen*>(p.scratch)[blockIdx.y * parts + blockIdx.x] = seen;
}

__global__ void __launch_bounds__(warp) join_parts(const GreedyParams p) {
  let_next_kernel_begin();
  wait_for_kernels_before();
  const int64_t row = blockIdx.x;
  const Seen* of_parts = static_cast<const Seen*>(p.scratch) + row * parts;
  Seen seen = nothing();
  for (int i = threadIdx.x; i < parts; i += warp) seen = join(seen, of_parts[i]);
  seen = join_over_warp(seen);
  if (threadIdx.x != 0) return;
  // largest - (largest + log(sum)), infinity minus infinity being NaN.
  const float logprob = seen.largest - (seen.largest + logf(seen.sum));
  p.choices[row] = seen.index == INT64_MAX ? 0.0 : static_cast<double>(seen.index);
  p.choices[p.rows + row] = isfinite(seen.largest) ? -logf(seen.sum) : logprob;
}

}  // namespace

cudaError_t choose_greedily(const GreedyParams& p, cudaStream_t stream) {
  if (p.rows < 0 || p.rows > UINT16_MAX || p.width < 1 || p.stride < p.width || !is_aligned(p.scratch, 16))
    return cudaErrorInvalidValue;
  if (p.rows == 0) return cudaSuccess;
  const auto rows = static_cast<unsigned>(p.rows);
  const cudaError_t error = launch_overlapping(look_through_part, Grid{dim3(parts, rows), dim3(threads)}, stream, p);
  return error == cudaSuccess ? launch_overlapping(join_parts, Grid{dim3(rows), dim3(warp)}, stream, p) : error;
}

}  // namespace oriel::kernels
