// Times products with an activation behind them: matmul_bench [ROWS...]
//
//   nvcc -std=c++17 -O3 -gencode arch=compute_90a,code=sm_90a -I kernels kernels/bench/matmul_bench.cu
//     kernels/{activation,matmul_sm90}.cu kernels/{matmul,tensor_map,timing}.cpp -lcublasLt -o matmul_bench
//
// Prints one line a case: microseconds and TFLOP/s of the product alone by cuBLASLt, microseconds of that with the
// activation in a kernel behind it, and both of the one kernel that does all; then the largest difference of the two
// results, relative to the largest value, and whether the tower takes the one kernel. Calls go round several weights
// and outputs, so that neither is found in the L2 cache by chance.
#include <cuda_bf16.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <vector>

#include "../matmul.h"
#include "../matmul_sm90.h"

namespace oriel::kernels {
namespace {

using Value = __nv_bfloat16;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

/// Normal values on the GPU.
struct Buffer {
  Value* data = nullptr;
  int64_t count = 0;

  Buffer(int64_t size, float scale, unsigned seed) : count(size) {
    check(cudaMalloc(&data, sizeof(Value) * static_cast<size_t>(size)));
    if (scale == 0) {
      check(cudaMemset(data, 0, sizeof(Value) * static_cast<size_t>(size)));
      return;
    }
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.F, scale);
    std::vector<Value> values(static_cast<size_t>(std::min<int64_t>(size, 1 << 21)));
    for (Value& value : values) value = __float2bfloat16(normal(random));
    for (int64_t at = 0; at < size; at += static_cast<int64_t>(values.size()))
      check(cudaMemcpy(data + at, values.data(), sizeof(Value) * std::min<size_t>(values.size(), size - at),
                       cudaMemcpyHostToDevice));
  }
  ~Buffer() { cudaFree(data); }
  Buffer(Buffer&& other) noexcept : data(other.data), count(other.count) { other.data = nullptr; }

  [[nodiscard]] std::vector<float> values() const {
    std::vector<Value> host(static_cast<size_t>(count));
    check(cudaMemcpy(host.data(), data, sizeof(Value) * host.size(), cudaMemcpyDeviceToHost));
    return std::vector<float>(host.begin(), host.end());
  }
};

struct Case {
  const char* name;
  int64_t rows, in, out;
  bool gated, bias;
  ElementwiseFunction function;
};

/// Microseconds of one call among many in a row; the fastest of three rounds.
double time(const std::function<void(int)>& call) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) call(i);
  double best = 1e30;
  for (int round = 0; round < 3; ++round) {
    constexpr int calls = 20;
    check(cudaEventRecord(begin));
    for (int i = 0; i < calls; ++i) call(i);
    check(cudaEventRecord(end));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    best = std::min(best, 1000.0 * ms / calls);
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return best;
}

void run(Matmul& matmul, const Case& c, Value* workspace, int processors) {
  const int64_t columns = c.gated ? 2 * c.out : c.out;
  constexpr int sets = 3;
  std::vector<Buffer> weights, xs, products, outputs;
  for (unsigned i = 0; i < sets; ++i) {
    weights.emplace_back(columns * c.in, 1.F / std::sqrt(static_cast<float>(c.in)), i);
    xs.emplace_back(c.rows * c.in, 1.F, 10 + i);
    products.emplace_back(c.rows * columns, 0.F, 0);
    outputs.emplace_back(c.rows * c.out, 0.F, 0);
  }
  const Buffer bias(columns, 1.F, 99);
  const Buffer fused(c.rows * c.out, 0.F, 0);
  MatmulParams product;
  product.bias = c.bias ? bias.data : nullptr;
  product.rows = c.rows, product.in = c.in, product.out = columns, product.x_stride = c.in;
  product.workspace = workspace, product.workspace_bytes = Matmul::workspace_bytes;
  const auto multiply = [&](int i) {
    product.x = xs[i % sets].data, product.weight = weights[i % sets].data, product.y = products[i % sets].data;
    check(matmul(product, nullptr));
  };
  const auto both = [&](int i) {
    multiply(i);
    if (c.gated)
      check(gate({products[i % sets].data, outputs[i % sets].data, c.rows, c.out, c.function}, nullptr));
    else
      check(elementwise({products[i % sets].data, products[i % sets].data, c.rows * c.out, c.function}, nullptr));
  };
  MatmulSm90Params own;
  own.bias = product.bias;
  own.rows = c.rows, own.in = c.in, own.out = c.out, own.x_stride = c.in;
  own.function = c.function, own.gated = c.gated;
  const auto one = [&](int i, Value* y) {
    own.x = xs[i % sets].data, own.weight = weights[i % sets].data, own.y = y;
    check(matmul_sm90(own, processors, nullptr));
  };
  both(1);
  one(1, fused.data);
  const std::vector<float> theirs = (c.gated ? outputs[1] : products[1]).values(), ours = fused.values();
  float most = 0, difference = 0;
  for (size_t i = 0; i < ours.size(); ++i) {
    most = std::max(most, std::abs(theirs[i]));
    if (!(std::abs(ours[i] - theirs[i]) <= difference)) difference = std::abs(ours[i] - theirs[i]);
  }
  const double flop = 2.0 * static_cast<double>(c.rows) * static_cast<double>(c.in) * static_cast<double>(columns);
  const double alone = time([&](int i) { multiply(i); });
  const double apart = time(both);
  const double together = time([&](int i) { one(i, outputs[i % sets].data); });
  std::printf(
      "%-26s %6lld rows  product %8.1f us %4.0f TF  + activation %8.1f us  one kernel %8.1f us %4.0f TF  x %.3f  "
      "%.1e%s\n",
      c.name, static_cast<long long>(c.rows), alone, flop / alone / 1e6, apart, together, flop / together / 1e6,
      apart / together, difference / most, matmul_sm90_pays(own, processors) ? "  taken" : "");
  std::fflush(stdout);
}

}  // namespace
}  // namespace oriel::kernels

int main(int count, char** arguments) {
  using namespace oriel::kernels;
  using E = ElementwiseFunction;
  int processors = 0;
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  const Buffer workspace(Matmul::workspace_bytes / 2, 0.F, 0);
  Matmul matmul;
  std::vector<int64_t> sizes;
  for (int i = 1; i < count; ++i) sizes.push_back(std::atoll(arguments[i]));
  if (sizes.empty()) sizes = {256, 1024, 4096, 32768};
  for (const int64_t rows : sizes) {
    run(matmul, {"Pixtral gate", rows, 1024, 4096, true, false, E::silu}, workspace.data, processors);
    run(matmul, {"Qwen2.5-VL gate", rows, 1280, 3424, true, true, E::silu}, workspace.data, processors);
    run(matmul, {"Qwen2-VL fc1 quick GELU", rows, 1280, 5120, false, true, E::quick_gelu}, workspace.data, processors);
  }
  return 0;
}
