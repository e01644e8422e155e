// bench_kernels_gpu: every kernel of a tower by itself, in the sizes of one call, and what the card allows. This one
// looks behind the public headers: it calls the launchers of kernels/.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <sstream>
#include <stdexcept>

#include "attention.h"
#include "attention_plan.h"
#include "bench.hpp"
#include "kernels.h"
#include "matmul.h"
#include "matmul_apart.h"
#include "matmul_sm90.h"

namespace {

using namespace oriel::kernels;

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

/// Device memory with random bfloat16 values around `scale`.
class Buffer {
 public:
  explicit Buffer(int64_t values, float scale = 1) {
    check(cudaMalloc(&data_, static_cast<size_t>(values) * 2));
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, scale);
    std::vector<uint16_t> host(static_cast<size_t>(std::min<int64_t>(values, 1 << 20)));
    for (uint16_t& value : host) value = static_cast<uint16_t>(std::bit_cast<uint32_t>(normal(random)) >> 16);
    for (int64_t at = 0; at < values; at += static_cast<int64_t>(host.size())) {
      const auto count = static_cast<size_t>(std::min<int64_t>(static_cast<int64_t>(host.size()), values - at));
      check(cudaMemcpy(static_cast<uint16_t*>(data_) + at, host.data(), 2 * count, cudaMemcpyHostToDevice));
    }
  }
  ~Buffer() { (void)cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  [[nodiscard]] void* get() const { return data_; }

 private:
  void* data_ = nullptr;
};

/// Several of one size, so that what one call left in the L2 cache is not what the next one reads.
class Buffers {
 public:
  explicit Buffers(int64_t values, float scale = 1) {
    for (int i = 0; i < 3; ++i) all_.emplace_back(values, scale);
  }
  [[nodiscard]] void* operator[](int call) const { return all_[static_cast<size_t>(call) % all_.size()].get(); }

 private:
  std::vector<Buffer> all_;
};

/// Microseconds of one call among many in a row: the fastest of three rounds.
double time(const std::function<void(int)>& call) {
  cudaEvent_t begin{};
  cudaEvent_t end{};
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) call(i);
  double best = INFINITY;
  for (int round = 0; round < 3; ++round) {
    constexpr int calls = 12;
    check(cudaEventRecord(begin, nullptr));
    for (int i = 0; i < calls; ++i) call(i);
    check(cudaEventRecord(end, nullptr));
    check(cudaEventSynchronize(end));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end));
    best = std::min(best, 1000.0 * static_cast<double>(ms) / calls);
  }
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return best;
}

void print(const std::string& kernel, const std::string& name, double us, double flop, double bytes) {
  bench::JsonLine()
      .add("kernel", kernel)
      .add("name", name)
      .add("us", std::vector{us})
      .add("flop", static_cast<int64_t>(flop))
      .add("bytes", static_cast<int64_t>(bytes))
      .print();
}

/// NAME,number,number...
struct Shape {
  std::string name;
  std::vector<int64_t> numbers;

  Shape(const std::string& text, size_t least) {
    std::istringstream stream(text);
    std::getline(stream, name, ',');
    for (std::string part; std::getline(stream, part, ',');) numbers.push_back(std::stoll(part));
    if (numbers.size() < least) throw std::invalid_argument("expected NAME and numbers, got " + text);
  }
  int64_t operator[](size_t i) const { return numbers[i]; }
};

struct Device {
  Matmul products;
  Buffer workspace{Matmul::workspace_bytes / 2};
  int processors = 0;
  Device() { check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0)); }
};

/// rows,in,out,bias,residual
void bench_product(Device& device, const std::string& text) {
  const Shape s(text, 5);
  const int64_t rows = s[0], in = s[1], out = s[2];
  const Buffers x(rows * in), weight(out * in, 1 / std::sqrt(static_cast<float>(in))), y(rows * out);
  const Buffer bias(out), residual(s[4] != 0 ? rows * out : 8);
  const double us = time([&](int i) {
    check(device.products({.x = x[i],
                           .weight = weight[i],
                           .bias = s[3] != 0 ? bias.get() : nullptr,
                           .residual = s[4] != 0 ? residual.get() : nullptr,
                           .y = y[i],
                           .rows = rows,
                           .in = in,
                           .out = out,
                           .x_stride = in,
                           .workspace = device.workspace.get(),
                           .workspace_bytes = Matmul::workspace_bytes},
                          nullptr));
  });
  print("product", s.name, us, 2.0 * static_cast<double>(rows * in) * static_cast<double>(out),
        2.0 * static_cast<double>(rows * in + out * in + rows * out * (s[4] != 0 ? 2 : 1)));
}

/// rows,in,out,gated,function (as ElementwiseFunction),bias: as the tower would, one kernel or two.
void bench_activated(Device& device, const std::string& text) {
  const Shape s(text, 6);
  const int64_t rows = s[0], in = s[1], out = s[2], columns = s[3] != 0 ? 2 * out : out;
  const auto function = static_cast<ElementwiseFunction>(s[4]);
  const Buffers x(rows * in), weight(columns * in, 1 / std::sqrt(static_cast<float>(in))), y(rows * columns);
  const Buffer bias(columns), gated(rows * out);
  MatmulSm90Params one{.bias = s[5] != 0 ? bias.get() : nullptr, .rows = rows, .in = in, .out = out, .x_stride = in};
  one.function = function;
  one.gated = s[3] != 0;
  one.x = x[0], one.weight = weight[0], one.y = gated.get();
  const MatmulApartRoom room{y[0], device.workspace.get(), Matmul::workspace_bytes};
  const bool inside = matmul_sm90_supports(one, 9, 0) &&
                      (matmul_sm90_is_close(one, device.processors)
                           ? matmul_sm90_is_faster(device.products, one, room, device.processors, nullptr)
                           : matmul_sm90_pays(one, device.processors));
  const bool in_library = function == ElementwiseFunction::gelu_tanh;
  MatmulParams product{.bias = one.bias, .rows = rows, .in = in, .out = columns, .x_stride = in};
  product.gelu_tanh = in_library;
  product.workspace = device.workspace.get();
  product.workspace_bytes = Matmul::workspace_bytes;
  const double us = time([&](int i) {
    if (inside) {
      one.x = x[i], one.weight = weight[i], one.y = y[i];
      return check(matmul_sm90(one, device.processors, nullptr));
    }
    product.x = x[i], product.weight = weight[i], product.y = y[i];
    check(device.products(product, nullptr));
    if (one.gated)
      check(gate({y[i], gated.get(), rows, out, function}, nullptr));
    else if (!in_library)
      check(elementwise({y[i], y[i], rows * out, function}, nullptr));
  });
  print(inside ? "activated inside" : "activated", s.name, us,
        2.0 * static_cast<double>(rows * in) * static_cast<double>(columns),
        2.0 * static_cast<double>(rows * in + columns * in + rows * out));
}

/// rows,width,layer
void bench_norm(const std::string& text) {
  const Shape s(text, 3);
  const int64_t rows = s[0], width = s[1];
  const Buffers x(rows * width), y(rows * width);
  const Buffer weight(width), bias(width);
  const double us = time([&](int i) {
    if (s[2] != 0)
      check(layer_norm({x[i], weight.get(), bias.get(), y[i], rows, width, 1e-6F}, nullptr));
    else
      check(rms_norm({x[i], weight.get(), y[i], rows, width, 1e-6F}, nullptr));
  });
  print("norm", s.name, us, 0, 4.0 * static_cast<double>(rows * width));
}

/// tokens,heads,head_dim
void bench_rotary(const std::string& text) {
  const Shape s(text, 3);
  const int64_t tokens = s[0], heads = s[1], head_dim = s[2];
  const Buffers qkv(tokens * 3 * heads * head_dim);
  const Buffer turns(2 * tokens * head_dim);
  const double us = time([&](int i) {
    check(rotate_query_key({qkv[i], static_cast<const float*>(turns.get()), tokens, heads, head_dim}, nullptr));
  });
  print("rotary", s.name, us, 0,
        static_cast<double>(tokens) * static_cast<double>(8 * heads * head_dim + 4 * head_dim));
}

/// heads,head_dim,windows (0 or 1),lengths...
void bench_attention(const Device& device, const std::string& text) {
  const Shape s(text, 4);
  const int64_t heads = s[0], head_dim = s[1];
  std::vector<int32_t> bounds{0};
  double flop = 0;
  for (size_t i = 3; i < s.numbers.size(); ++i) {
    bounds.push_back(bounds.back() + static_cast<int32_t>(s[i]));
    flop += 4.0 * static_cast<double>(s[i]) * static_cast<double>(s[i] * heads * head_dim);
  }
  const int64_t tokens = bounds.back();
  const Buffers qkv(tokens * 3 * heads * head_dim), out(tokens * heads * head_dim);
  AttentionPlan plan = plan_attention(bounds, static_cast<int>(heads), static_cast<int>(head_dim), device.processors);
  const size_t plan_bytes = plan.bytes.size();
  const Buffer on_device(static_cast<int64_t>(std::max(plan_bytes, 4 * bounds.size()) / 2 + 1));
  const bool windows = s[2] != 0;
  check(cudaMemcpy(on_device.get(), windows ? static_cast<const void*>(bounds.data()) : plan.bytes.data(),
                   windows ? 4 * bounds.size() : plan_bytes, cudaMemcpyHostToDevice));
  const auto set = [&](AttentionInputs& inputs, int i) {
    inputs = {.qkv = qkv[i],
              .out = out[i],
              .token_stride = 3 * heads * head_dim,
              .tokens = static_cast<int32_t>(tokens),
              .heads = static_cast<int32_t>(heads),
              .head_dim = static_cast<int32_t>(head_dim),
              .q_prescaled = true};
  };
  const double us = time([&](int i) {
    if (windows) {
      AttentionWindowParams params;
      set(params, i);
      params.cu_seqlens = static_cast<const int32_t*>(on_device.get());
      params.windows = static_cast<int32_t>(bounds.size()) - 1;
      params.longest = kAttentionWindow;
      check(attention_window(params, nullptr));
    } else {
      AttentionSm90Params params;
      set(params, i);
      params.plan = on_device.get();
      params.blocks = plan.blocks;
      check(attention_sm90(params, nullptr));
    }
  });
  print(windows ? "windows" : "attention", s.name, us, flop, 8.0 * static_cast<double>(tokens * heads * head_dim));
}

/// What the card gives: bytes a second of a copy (read and written), FLOP/s of a large product.
void bench_limits(Device& device) {
  constexpr int64_t values = int64_t{1} << 30;
  {
    const Buffer from(values), to(values);
    const double us =
        time([&](int) { check(cudaMemcpyAsync(to.get(), from.get(), 2 * values, cudaMemcpyDeviceToDevice, nullptr)); });
    print("copy", "copy", us, 0, 4.0 * values);
  }
  bench_product(device, "peak,16384,8192,8192,0,0");
}

struct Arguments {
  std::vector<std::string> products, activated, norms, rotaries, attentions;
};

void add_options(CLI::App& app, Arguments& a) {
  app.add_option("--product", a.products, "NAME,rows,in,out,bias,residual");
  app.add_option("--activated", a.activated, "NAME,rows,in,out,gated,function,bias");
  app.add_option("--norm", a.norms, "NAME,rows,width,layer");
  app.add_option("--rotary", a.rotaries, "NAME,tokens,heads,head_dim");
  app.add_option("--attention", a.attentions, "NAME,heads,head_dim,windows,length,length...");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times kernels by themselves in bfloat16 on a Hopper GPU, one JSON line each.", "bench_kernels_gpu"};
  Arguments arguments;
  add_options(app, arguments);
  return run_program(app, argc, argv, [&] {
    Device device;
    bench_limits(device);
    for (const std::string& text : arguments.products) bench_product(device, text);
    for (const std::string& text : arguments.activated) bench_activated(device, text);
    for (const std::string& text : arguments.norms) bench_norm(text);
    for (const std::string& text : arguments.rotaries) bench_rotary(text);
    for (const std::string& text : arguments.attentions) bench_attention(device, text);
  });
}
