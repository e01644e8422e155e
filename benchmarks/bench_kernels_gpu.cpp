// bench_kernels_gpu: every kernel of a tower by itself, in the sizes of one call, and what the card allows. This one
// looks behind the public headers: it calls the launchers of kernels/.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
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

/// A million values of a normal distribution, drawn once.
const std::vector<float>& normal_values() {
  static const std::vector<float> values = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> drawn(size_t{1} << 20);
    for (float& value : drawn) value = normal(random);
    return drawn;
  }();
  return values;
}

/// Device memory with random bfloat16 values around `scale`: one or several of a size.
class Buffers {
 public:
  explicit Buffers(int64_t values, float scale = 1, int64_t count = 1)
      : bytes_(2 * values), stride_((bytes_ + 255) / 256 * 256), count_(count) {
    check(cudaMalloc(&data_, static_cast<size_t>(stride_ * count_)));
    std::vector<uint16_t> host;
    for (const float value : normal_values())
      host.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(scale * value) >> 16));
    const auto period = static_cast<int64_t>(2 * host.size());
    check(cudaMemcpy(data_, host.data(), static_cast<size_t>(std::min(period, bytes_)), cudaMemcpyHostToDevice));
    for (int64_t at = period; at < bytes_; at += period) copy_to(at, std::min(period, bytes_ - at));
    for (int64_t i = 1; i < count_; ++i) copy_to(i * stride_, bytes_);
  }
  ~Buffers() { (void)cudaFree(data_); }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;

  [[nodiscard]] void* get() const { return data_; }
  [[nodiscard]] void* operator[](int64_t turn) const {
    return static_cast<std::byte*>(data_) + turn % count_ * stride_;
  }

 private:
  /// From the beginning.
  void copy_to(int64_t at, int64_t bytes) {
    check(cudaMemcpy(static_cast<std::byte*>(data_) + at, data_, static_cast<size_t>(bytes), cudaMemcpyDeviceToDevice));
  }

  int64_t bytes_;
  int64_t stride_;
  int64_t count_;
  void* data_ = nullptr;
};

/// So many that what one call left in the L2 cache is not what the next one reads, if a call is long.
constexpr int64_t several = 3;

/// Which of several buffers a call takes.
struct Turn {
  int64_t weight = 0;
  int64_t activation = 0;
};

using Call = std::function<void(Turn turn, cudaStream_t stream)>;

class Events {
 public:
  Events() {
    check(cudaEventCreate(&begin_));
    check(cudaEventCreate(&end_));
  }
  ~Events() {
    (void)cudaEventDestroy(begin_);
    (void)cudaEventDestroy(end_);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  /// Microseconds on the GPU of what `work` enqueues on the default stream.
  template <typename Work>
  double time(const Work& work) const {
    check(cudaEventRecord(begin_, nullptr));
    work();
    check(cudaEventRecord(end_, nullptr));
    check(cudaEventSynchronize(end_));
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin_, end_));
    return 1000.0 * static_cast<double>(ms);
  }

 private:
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

/// Microseconds of one call among a dozen in a row: the fastest of three rounds.
double time_in_a_row(const Events& events, const Call& call) {
  constexpr int64_t calls = 12;
  for (int64_t i = 0; i < several; ++i) call({i, i}, nullptr);
  double best = INFINITY;
  for (int round = 0; round < 3; ++round)
    best = std::min(best, events.time([&] {
      for (int64_t i = 0; i < calls; ++i) call({i, i}, nullptr);
    }) / calls);
  return best;
}

/// Microseconds of one call of a graph of `calls` of them, as in a tower: a weight comes from memory and an activation,
/// which the kernel before has just written, from the L2 cache. The first of two replays hides how the second starts.
double time_in_graph(const Events& events, const Call& call, int64_t calls) {
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int64_t i = 0; i < calls; ++i) call({i, 0}, stream);
  check(cudaStreamEndCapture(stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  double best = INFINITY;
  for (int round = 0; round < 5; ++round) {
    check(cudaGraphLaunch(executable, nullptr));
    const double us = events.time([&] { check(cudaGraphLaunch(executable, nullptr)); });
    best = std::min(best, us / static_cast<double>(calls));
  }
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
  return best;
}

/// Microseconds of one call that finds `weights` copies of its weight. A short one takes less than its launch from the
/// CPU, and is timed in a graph of some two milliseconds.
double time(const Call& call, int64_t weights) {
  constexpr double short_us = 50, graph_us = 2000;
  constexpr int64_t most_calls = 512;
  const Events events;
  const double us = time_in_a_row(events, call);
  if (us >= short_us) return us;
  const auto wanted = std::min(most_calls, static_cast<int64_t>(graph_us / us));
  // Whole rounds over the copies: a replay begins where the cache holds the others.
  return time_in_graph(events, call, (wanted + weights - 1) / weights * weights);
}

/// Copies of a weight that together are more than the L2 cache holds, twice.
int64_t weight_copies(int64_t values) {
  constexpr int64_t most = 128;
  int cache = 0;
  check(cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, 0));
  return std::clamp(int64_t{cache} / values + 1, several, most);  // 2 caches of bytes by 2 bytes a value
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
  Buffers workspace{Matmul::workspace_bytes / 2};
  int processors = 0;
  Device() { check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0)); }
};

/// rows,in,out,bias,residual
void bench_product(Device& device, const std::string& text) {
  const Shape s(text, 5);
  const int64_t rows = s[0], in = s[1], out = s[2];
  const int64_t copies = weight_copies(out * in);
  const Buffers x(rows * in, 1, several), y(rows * out, 1, several);
  const Buffers weight(out * in, 1 / std::sqrt(static_cast<float>(in)), copies);
  const Buffers bias(out), residual(s[4] != 0 ? rows * out : 8);
  const Call call = [&](Turn turn, cudaStream_t stream) {
    check(device.products({.x = x[turn.activation],
                           .weight = weight[turn.weight],
                           .bias = s[3] != 0 ? bias.get() : nullptr,
                           .residual = s[4] != 0 ? residual.get() : nullptr,
                           .y = y[turn.activation],
                           .rows = rows,
                           .in = in,
                           .out = out,
                           .x_stride = in,
                           .workspace = device.workspace.get(),
                           .workspace_bytes = Matmul::workspace_bytes},
                          stream));
  };
  const double us = time(call, copies);
  print("product", s.name, us, 2.0 * static_cast<double>(rows * in) * static_cast<double>(out),
        2.0 * static_cast<double>(rows * in + out * in + rows * out * (s[4] != 0 ? 2 : 1)));
}

/// rows,in,out,gated,function (as ElementwiseFunction),bias: as the tower would, one kernel or two.
void bench_activated(Device& device, const std::string& text) {
  const Shape s(text, 6);
  const int64_t rows = s[0], in = s[1], out = s[2], columns = s[3] != 0 ? 2 * out : out;
  const auto function = static_cast<ElementwiseFunction>(s[4]);
  const int64_t copies = weight_copies(columns * in);
  const Buffers x(rows * in, 1, several), y(rows * columns, 1, several);
  const Buffers weight(columns * in, 1 / std::sqrt(static_cast<float>(in)), copies);
  const Buffers bias(columns), gated(rows * out);
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
  const Call call = [&](Turn turn, cudaStream_t stream) {
    void* const result = y[turn.activation];
    if (inside) {
      one.x = x[turn.activation], one.weight = weight[turn.weight], one.y = result;
      return check(matmul_sm90(one, device.processors, stream));
    }
    product.x = x[turn.activation], product.weight = weight[turn.weight], product.y = result;
    check(device.products(product, stream));
    if (one.gated)
      check(gate({result, gated.get(), rows, out, function}, stream));
    else if (!in_library)
      check(elementwise({result, result, rows * out, function}, stream));
  };
  const double us = time(call, copies);
  print(inside ? "activated inside" : "activated", s.name, us,
        2.0 * static_cast<double>(rows * in) * static_cast<double>(columns),
        2.0 * static_cast<double>(rows * in + columns * in + rows * out));
}

/// rows,width,layer
void bench_norm(const std::string& text) {
  const Shape s(text, 3);
  const int64_t rows = s[0], width = s[1];
  const Buffers x(rows * width, 1, several), y(rows * width, 1, several);
  const Buffers weight(width), bias(width);
  const Call call = [&](Turn turn, cudaStream_t stream) {
    const int64_t i = turn.activation;
    if (s[2] != 0)
      check(layer_norm({x[i], weight.get(), bias.get(), y[i], rows, width, 1e-6F}, stream));
    else
      check(rms_norm({x[i], weight.get(), y[i], rows, width, 1e-6F}, stream));
  };
  const double us = time(call, 1);
  print("norm", s.name, us, 0, 4.0 * static_cast<double>(rows * width));
}

/// tokens,heads,head_dim
void bench_rotary(const std::string& text) {
  const Shape s(text, 3);
  const int64_t tokens = s[0], heads = s[1], head_dim = s[2];
  const Buffers qkv(tokens * 3 * heads * head_dim, 1, several);
  const Buffers turns(2 * tokens * head_dim);
  const Call call = [&](Turn turn, cudaStream_t stream) {
    const auto* const cos_and_sin = static_cast<const float*>(turns.get());
    check(rotate_query_key({qkv[turn.activation], cos_and_sin, tokens, heads, head_dim}, stream));
  };
  const double us = time(call, 1);
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
  const Buffers qkv(tokens * 3 * heads * head_dim, 1, several), out(tokens * heads * head_dim, 1, several);
  AttentionPlan plan = plan_attention(bounds, static_cast<int>(heads), static_cast<int>(head_dim), device.processors);
  const size_t plan_bytes = plan.bytes.size();
  const Buffers on_device(static_cast<int64_t>(std::max(plan_bytes, 4 * bounds.size()) / 2 + 1));
  const bool windows = s[2] != 0;
  check(cudaMemcpy(on_device.get(), windows ? static_cast<const void*>(bounds.data()) : plan.bytes.data(),
                   windows ? 4 * bounds.size() : plan_bytes, cudaMemcpyHostToDevice));
  const auto set = [&](AttentionInputs& inputs, Turn turn) {
    inputs = {.qkv = qkv[turn.activation],
              .out = out[turn.activation],
              .token_stride = 3 * heads * head_dim,
              .tokens = static_cast<int32_t>(tokens),
              .heads = static_cast<int32_t>(heads),
              .head_dim = static_cast<int32_t>(head_dim),
              .q_prescaled = true};
  };
  const Call call = [&](Turn turn, cudaStream_t stream) {
    if (windows) {
      AttentionWindowParams params;
      set(params, turn);
      params.cu_seqlens = static_cast<const int32_t*>(on_device.get());
      params.windows = static_cast<int32_t>(bounds.size()) - 1;
      params.longest = kAttentionWindow;
      check(attention_window(params, stream));
    } else {
      AttentionSm90Params params;
      set(params, turn);
      params.plan = on_device.get();
      params.blocks = plan.blocks;
      check(attention_sm90(params, stream));
    }
  };
  const double us = time(call, 1);
  print(windows ? "windows" : "attention", s.name, us, flop, 8.0 * static_cast<double>(tokens * heads * head_dim));
}

/// What the card gives: bytes a second of a copy (read and written), FLOP/s of a large product.
void bench_limits(Device& device) {
  constexpr int64_t values = int64_t{1} << 30;
  {
    const Buffers from(values), to(values);
    const Call call = [&](Turn, cudaStream_t stream) {
      check(cudaMemcpyAsync(to.get(), from.get(), 2 * values, cudaMemcpyDeviceToDevice, stream));
    };
    const double us = time(call, 1);
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
