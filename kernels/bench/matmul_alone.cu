// Launches matmul_sm90 and nothing else, for compute-sanitizer: its racecheck fails where cuBLASLt is in the process.
//
//   nvcc -O3 -std=c++20 -lineinfo -gencode arch=compute_90a,code=sm_90a -I kernels -o matmul_alone
//       kernels/bench/matmul_alone.cu kernels/matmul_sm90.cu kernels/tensor_map.cpp
//   compute-sanitizer --tool racecheck ./matmul_alone 1000 1024 1024 gated
//
// usage: matmul_alone ROWS IN OUT gated|quick_gelu [LAUNCHES]
//
// x is 1 everywhere and a weight 1 / IN, so that every sum is 1, and every element of the result the activation of 1.
// The exit code is 1 where one is not, within a percent.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "matmul_sm90.h"

namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

__nv_bfloat16* filled(int64_t count, float value) {
  const std::vector<__nv_bfloat16> host(static_cast<size_t>(count), __float2bfloat16(value));
  void* device = nullptr;
  check(cudaMalloc(&device, host.size() * sizeof(host[0])), "cudaMalloc");
  check(cudaMemcpy(device, host.data(), host.size() * sizeof(host[0]), cudaMemcpyHostToDevice), "cudaMemcpy");
  return static_cast<__nv_bfloat16*>(device);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace oriel::kernels;
  if (argc < 5) {
    std::fprintf(stderr, "usage: matmul_alone ROWS IN OUT gated|quick_gelu [LAUNCHES]\n");
    return 2;
  }
  const bool gated = std::string(argv[4]) == "gated";
  MatmulSm90Params p;
  p.rows = std::atoll(argv[1]);
  p.in = p.x_stride = std::atoll(argv[2]);
  p.out = std::atoll(argv[3]);
  p.gated = gated;
  p.function = gated ? ElementwiseFunction::silu : ElementwiseFunction::quick_gelu;
  p.x = filled(p.rows * p.in, 1.F);
  p.weight = filled((gated ? 2 : 1) * p.out * p.in, 1.F / static_cast<float>(p.in));
  __nv_bfloat16* const y = filled(p.rows * p.out, NAN);
  p.y = y;
  int processors = 0;
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
  const int launches = argc > 5 ? std::atoi(argv[5]) : 1;
  for (int i = 0; i < launches; ++i) check(matmul_sm90(p, processors, nullptr), "matmul_sm90");
  check(cudaDeviceSynchronize(), "matmul_sm90");

  std::vector<__nv_bfloat16> result(static_cast<size_t>(p.rows * p.out));
  check(cudaMemcpy(result.data(), y, result.size() * sizeof(result[0]), cudaMemcpyDeviceToHost), "cudaMemcpy");
  const double expected = 1 / (1 + std::exp(gated ? -1. : -1.702));
  int64_t wrong = 0;
  for (const __nv_bfloat16 value : result)
    if (!(std::abs(__bfloat162float(value) - expected) < 0.01 * expected)) ++wrong;
  std::printf("%lld of %zu values are not %.4f\n", static_cast<long long>(wrong), result.size(), expected);
  return wrong == 0 ? 0 : 1;
}
