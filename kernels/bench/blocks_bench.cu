// Times the blocks of a tower's small call as one CUDA graph:
//   blocks_bench TOWER ROWS [--each-without] [--nodes] [--layers N] [--deterministic]
//
//   nvcc -std=c++20 -O3 -gencode arch=compute_90a,code=sm_90a -I kernels kernels/bench/blocks_bench.cu
//     kernels/{activation,attention_sm90,attention_window,matmul_sm90,norm,rotary}.cu
//     kernels/{attention_plan,matmul,matmul_apart,tensor_map,timing}.cpp -lcublasLt -o blocks_bench
//
// TOWER is pixtral, qwen2_vl or qwen2_5_vl: the widths, kernels and layers of their blocks, with random weights of
// their own for each block, so that weights come from where they come from in a call. Prints a JSON line: milliseconds
// of the first run, which chooses algorithms and loads code, and of a replay (median of 30), microseconds a block and a
// kernel, how many of the graph's edges are programmatic, and the sums of what an eager run and a replay made.
//
// --each-without prints a line for each kernel left out, whose buffers then hold what they held: what it adds to a
// block, latency included, is the difference. --nodes prints kernels and edges. With --deterministic products are not
// chosen by timing, so that two builds of the same kernels give the same sums.
#include <cuda.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "../attention.h"
#include "../attention_plan.h"
#include "../matmul.h"
#include "../matmul_apart.h"
#include "../matmul_sm90.h"

namespace oriel::kernels {
namespace {

using Value = __nv_bfloat16;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

/// Device memory, normal values around `scale`, or zeros.
class Buffer {
 public:
  explicit Buffer(int64_t values, float scale = 0, unsigned seed = 1) {
    const auto bytes = sizeof(Value) * static_cast<size_t>(values);
    check(cudaMalloc(&data_, bytes), "cudaMalloc");
    check(cudaMemset(data_, 0, bytes), "cudaMemset");
    if (scale == 0) return;
    static const std::vector<float> normal = draw(1 << 18);
    const auto count = std::min<int64_t>(values, static_cast<int64_t>(normal.size()));
    std::vector<Value> host(static_cast<size_t>(count));
    for (size_t i = 0; i < host.size(); ++i)
      host[i] = __float2bfloat16(scale * normal[(i + 7919 * seed) % normal.size()]);
    check(cudaMemcpy(data_, host.data(), sizeof(Value) * host.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
    for (int64_t at = count; at < values; at += count)
      check(cudaMemcpy(static_cast<Value*>(data_) + at, data_,
                       sizeof(Value) * static_cast<size_t>(std::min(count, values - at)), cudaMemcpyDeviceToDevice),
            "cudaMemcpy");
    check(cudaDeviceSynchronize(), "Buffer");
  }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  [[nodiscard]] void* get() const { return data_; }

 private:
  static std::vector<float> draw(size_t count) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0.F, 1.F);
    std::vector<float> result(count);
    for (float& value : result) value = normal(random);
    return result;
  }

  void* data_ = nullptr;
};

using Names = std::set<std::string>;

struct Tower {
  const char* name;
  int64_t width, heads, mlp, layers;
  bool layer_norm, gated, biased;
  int64_t window;     // patches of a window, or 0
  int64_t full_each;  // with windows: every so many layers one is whole
};

constexpr Tower towers[] = {{"pixtral", 1024, 16, 4096, 24, false, true, false, 0, 1},
                            {"qwen2_vl", 1280, 16, 5120, 32, true, false, true, 0, 1},
                            {"qwen2_5_vl", 1280, 16, 3424, 32, false, true, true, 64, 8}};

struct Block {
  Buffer norm, qkv, output, up, down;
  Block(const Tower& t, unsigned seed)
      : norm(2 * t.width, 1, seed),
        qkv(3 * t.width * t.width, 1 / std::sqrt(static_cast<float>(t.width)), seed),
        output(t.width * t.width, 0.1F / std::sqrt(static_cast<float>(t.width)), seed),
        up((t.gated ? 2 : 1) * t.mlp * t.width, 1 / std::sqrt(static_cast<float>(t.width)), seed),
        down(t.mlp * t.width, 0.1F / std::sqrt(static_cast<float>(t.mlp)), seed) {}
};

/// All blocks on `rows` patches of one picture.
class Chain {
 public:
  Chain(const Tower& tower, int64_t rows, bool deterministic)
      : t_(tower),
        rows_(rows),
        deterministic_(deterministic),
        hidden_(rows * t_.width, 1),
        middle_(rows * t_.width),
        normed_(rows * t_.width),
        qkv_(rows * 3 * t_.width),
        attended_(rows * t_.width),
        both_(rows * 2 * t_.mlp),
        gated_(rows * t_.mlp),
        bias_(2 * t_.mlp, 0.1F),
        workspace_(Matmul::workspace_bytes / 2) {
    check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, 0), "cudaDeviceGetAttribute");
    for (int64_t i = 0; i < t_.layers; ++i) blocks_.push_back(std::make_unique<Block>(t_, static_cast<unsigned>(i)));
    place_bounds();
    const int64_t head_dim = t_.width / t_.heads;
    std::vector<float> turns(static_cast<size_t>(rows * head_dim));
    for (size_t i = 0; i < turns.size(); ++i)
      turns[i] = static_cast<int64_t>(i) % head_dim < head_dim / 2 ? 0.8F : 0.6F;
    check(cudaMalloc(&turns_, sizeof(float) * turns.size()), "cudaMalloc");
    check(cudaMemcpy(turns_, turns.data(), sizeof(float) * turns.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }

  void leave_out(const Names& without) { without_ = without; }

  void run(cudaStream_t stream) {
    for (int64_t i = 0; i < t_.layers; ++i) block(i, stream);
  }

  /// Of what the blocks made, to see that two builds compute the same.
  [[nodiscard]] double sum() const {
    double result = 0;
    for (const float value : values(hidden_, rows_ * t_.width)) result += std::abs(static_cast<double>(value));
    return result;
  }

  void reset() {
    const Buffer fresh(rows_ * t_.width, 1);
    check(cudaMemcpy(hidden_.get(), fresh.get(), sizeof(Value) * static_cast<size_t>(rows_ * t_.width),
                     cudaMemcpyDeviceToDevice),
          "cudaMemcpy");
  }

 private:
  static constexpr float query_scale = 0.18F;

  static std::vector<float> values(const Buffer& buffer, int64_t count) {
    std::vector<Value> host(static_cast<size_t>(count));
    check(cudaMemcpy(host.data(), buffer.get(), sizeof(Value) * host.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return std::vector<float>(host.begin(), host.end());
  }

  void place_bounds() {
    std::vector<int32_t> whole{0, static_cast<int32_t>(rows_)};
    const auto plan =
        plan_attention(whole, static_cast<int>(t_.heads), static_cast<int>(t_.width / t_.heads), processors_);
    plan_blocks_ = plan.blocks;
    check(cudaMalloc(&plan_, plan.bytes.size()), "cudaMalloc");
    check(cudaMemcpy(plan_, plan.bytes.data(), plan.bytes.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
    if (t_.window == 0) return;
    std::vector<int32_t> windows{0};
    while (windows.back() < rows_)
      windows.push_back(static_cast<int32_t>(std::min<int64_t>(rows_, windows.back() + t_.window)));
    windows_ = static_cast<int32_t>(windows.size()) - 1;
    check(cudaMalloc(&bounds_, sizeof(int32_t) * windows.size()), "cudaMalloc");
    check(cudaMemcpy(bounds_, windows.data(), sizeof(int32_t) * windows.size(), cudaMemcpyHostToDevice), "cudaMemcpy");
  }

  [[nodiscard]] bool wants(const char* kernel) const { return without_.count(kernel) == 0; }

  void block(int64_t index, cudaStream_t stream) {
    const Block& w = *blocks_[static_cast<size_t>(index)];
    if (wants("qkv")) query_key_value(w, stream);
    if (wants("attention")) attention(t_.window > 0 && (index + 1) % t_.full_each != 0, stream);
    if (wants("output")) product(attended_, w.output, &hidden_, middle_, t_.width, t_.width, stream);
    norm(middle_, w, stream);
    if (wants("gate")) first_half(w, stream);
    if (wants("down")) product(gated_, w.down, &middle_, hidden_, t_.mlp, t_.width, stream);
  }

  void query_key_value(const Block& w, cudaStream_t stream) {
    norm(hidden_, w, stream);
    product(normed_, w.qkv, nullptr, qkv_, t_.width, 3 * t_.width, stream);
    if (wants("rotation"))
      check(rotate_query_key({qkv_.get(), turns_, rows_, t_.heads, t_.width / t_.heads, query_scale}, stream),
            "rotation");
  }

  void norm(const Buffer& x, const Block& w, cudaStream_t stream) {
    if (!wants("norm")) return;
    const void* bias = static_cast<const Value*>(w.norm.get()) + t_.width;
    if (t_.layer_norm)
      check(layer_norm({x.get(), w.norm.get(), bias, normed_.get(), rows_, t_.width, 1e-6F}, stream), "norm");
    else
      check(rms_norm({x.get(), w.norm.get(), normed_.get(), rows_, t_.width, 1e-6F}, stream), "norm");
  }

  void product(const Buffer& x, const Buffer& weight, const Buffer* residual, const Buffer& y, int64_t in, int64_t out,
               cudaStream_t stream) {
    MatmulParams p;
    p.x = x.get(), p.weight = weight.get(), p.y = y.get();
    p.bias = t_.biased ? bias_.get() : nullptr;
    p.residual = residual != nullptr ? residual->get() : nullptr;
    p.rows = rows_, p.in = in, p.out = out, p.x_stride = in;
    p.workspace = workspace_.get(), p.workspace_bytes = Matmul::workspace_bytes;
    p.deterministic = deterministic_;
    check(products_(p, stream), "product");
  }

  /// As src/ops/cuda/linear.cpp does it.
  void first_half(const Block& w, cudaStream_t stream) {
    MatmulSm90Params p;
    p.x = normed_.get(), p.weight = w.up.get(), p.bias = t_.biased ? bias_.get() : nullptr, p.y = gated_.get();
    p.rows = rows_, p.in = t_.width, p.out = t_.mlp, p.x_stride = t_.width;
    p.function = t_.gated ? ElementwiseFunction::silu : ElementwiseFunction::quick_gelu, p.gated = t_.gated;
    p.deterministic = deterministic_;
    const MatmulApartRoom room{both_.get(), workspace_.get(), Matmul::workspace_bytes};
    const bool inside = deterministic_ ? true
                        : matmul_sm90_is_close(p, processors_)
                            ? matmul_sm90_is_faster(products_, p, room, processors_, stream)
                            : matmul_sm90_pays(p, processors_);
    check(inside ? matmul_sm90(p, processors_, stream) : matmul_apart(products_, p, room, stream), "gate");
  }

  void attention(bool windowed, cudaStream_t stream) {
    const AttentionInputs inputs{.qkv = qkv_.get(),
                                 .out = attended_.get(),
                                 .token_stride = 3 * t_.width,
                                 .tokens = static_cast<int32_t>(rows_),
                                 .heads = static_cast<int32_t>(t_.heads),
                                 .head_dim = static_cast<int32_t>(t_.width / t_.heads),
                                 .q_prescaled = true};
    if (windowed) {
      AttentionWindowParams p;
      static_cast<AttentionInputs&>(p) = inputs;
      p.cu_seqlens = bounds_, p.windows = windows_, p.longest = kAttentionWindow;
      return check(attention_window(p, stream), "attention_window");
    }
    AttentionSm90Params p;
    static_cast<AttentionInputs&>(p) = inputs;
    p.plan = plan_, p.blocks = plan_blocks_;
    check(attention_sm90(p, stream), "attention_sm90");
  }

  Tower t_;
  int64_t rows_;
  bool deterministic_;
  Names without_;
  Buffer hidden_, middle_, normed_, qkv_, attended_, both_, gated_, bias_, workspace_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Matmul products_;
  int processors_ = 0;
  void* plan_ = nullptr;
  int32_t plan_blocks_ = 0;
  int32_t* bounds_ = nullptr;
  int32_t windows_ = 0;
  float* turns_ = nullptr;
};

template <typename Function>
Function driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  check(cudaGetDriverEntryPointByVersion(name, &function, 12030, cudaEnableDefault, &result), name);
  return reinterpret_cast<Function>(function);
}

std::string kernel_name(cudaGraphNode_t node) {
  static const auto get_params =
      driver_function<CUresult (*)(CUgraphNode, CUDA_KERNEL_NODE_PARAMS*)>("cuGraphKernelNodeGetParams");
  static const auto function_name = driver_function<CUresult (*)(const char**, CUfunction)>("cuFuncGetName");
  static const auto kernel_name = driver_function<CUresult (*)(const char**, CUkernel)>("cuKernelGetName");
  CUDA_KERNEL_NODE_PARAMS params{};
  const char* name = nullptr;
  if (get_params(node, &params) != CUDA_SUCCESS) return "no kernel";
  const bool found = params.func != nullptr ? function_name(&name, params.func) == CUDA_SUCCESS
                                            : kernel_name(&name, params.kern) == CUDA_SUCCESS;
  if (!found) return "?";
  return std::string(name).substr(0, 96) + " <<<" + std::to_string(params.gridDimX) + "," +
         std::to_string(params.gridDimY) + "," + std::to_string(params.gridDimZ) + ", " +
         std::to_string(params.blockDimX) + ", " + std::to_string(params.sharedMemBytes) + ">>>";
}

struct Edges {
  size_t all = 0;
  size_t programmatic = 0;
};

Edges look_at(cudaGraph_t graph, size_t printed) {
  Edges edges;
  check(cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &edges.all), "cudaGraphGetEdges");
  std::vector<cudaGraphNode_t> from(edges.all), to(edges.all);
  std::vector<cudaGraphEdgeData> data(edges.all);
  check(cudaGraphGetEdges(graph, from.data(), to.data(), data.data(), &edges.all), "cudaGraphGetEdges");
  for (size_t i = 0; i < edges.all; ++i) {
    const bool programmatic = data[i].type == cudaGraphDependencyTypeProgrammatic;
    edges.programmatic += programmatic ? 1 : 0;
    if (i < printed)
      std::printf("%s %s  (behind %s)\n", programmatic ? "overlaps" : "waits   ", kernel_name(to[i]).c_str(),
                  kernel_name(from[i]).c_str());
  }
  return edges;
}

/// Of a replay, one after the other.
double median_ms(cudaGraphExec_t graph, cudaStream_t stream) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<float> ms(30);
  for (int i = 0; i < 5; ++i) check(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
  for (float& one : ms) {
    check(cudaEventRecord(begin, stream), "cudaEventRecord");
    check(cudaGraphLaunch(graph, stream), "cudaGraphLaunch");
    check(cudaEventRecord(end, stream), "cudaEventRecord");
    check(cudaEventSynchronize(end), "cudaEventSynchronize");
    check(cudaEventElapsedTime(&one, begin, end), "cudaEventElapsedTime");
  }
  check(cudaEventDestroy(begin), "cudaEventDestroy");
  check(cudaEventDestroy(end), "cudaEventDestroy");
  std::nth_element(ms.begin(), ms.begin() + 15, ms.end());
  return ms[15];
}

struct Arguments {
  bool each_without = false;
  bool nodes = false;
  bool deterministic = false;
  int64_t layers = 0;
};

/// The chain as a graph.
struct Graph {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  size_t kernels = 0;

  Graph(Chain& chain, cudaStream_t stream) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    chain.run(stream);
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check(cudaGraphInstantiate(&exec, graph, 0), "cudaGraphInstantiate");
    check(cudaGraphGetNodes(graph, nullptr, &kernels), "cudaGraphGetNodes");
  }
  ~Graph() {
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
};

double run_and_wait(Chain& chain, cudaStream_t stream) {
  const auto begin = std::chrono::steady_clock::now();
  chain.run(stream);
  check(cudaStreamSynchronize(stream), "run");
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

void measure(Chain& chain, const Tower& tower, int64_t rows, const char* without, bool nodes, cudaStream_t stream) {
  chain.leave_out(without[0] == 0 ? Names{} : Names{without});
  const double first_ms = run_and_wait(chain, stream);
  chain.reset();
  run_and_wait(chain, stream);
  const double eager = chain.sum();
  const Graph graph(chain, stream);
  const Edges edges = look_at(graph.graph, nodes ? 12 : 0);
  const double ms = median_ms(graph.exec, stream);
  chain.reset();
  check(cudaGraphLaunch(graph.exec, stream), "cudaGraphLaunch");
  check(cudaStreamSynchronize(stream), "replay");
  std::printf(
      "{\"tower\": \"%s\", \"rows\": %lld, \"without\": \"%s\", \"first_ms\": %.1f, \"ms\": %.4f, \"us_a_block\": "
      "%.2f, "
      "\"kernels\": %zu, \"us_a_kernel\": %.2f, \"edges\": %zu, \"programmatic\": %zu, \"eager_sum\": %.8g, "
      "\"replay_sum\": %.8g}\n",
      tower.name, static_cast<long long>(rows), without, first_ms, ms, 1000 * ms / static_cast<double>(tower.layers),
      graph.kernels, 1000 * ms / static_cast<double>(graph.kernels), edges.all, edges.programmatic, eager, chain.sum());
  std::fflush(stdout);
}

void run(Tower tower, int64_t rows, const Arguments& a) {
  if (a.layers > 0) tower.layers = a.layers;
  Chain chain(tower, rows, a.deterministic);
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  measure(chain, tower, rows, "", a.nodes, stream);
  if (a.each_without)
    for (const char* name : {"norm", "qkv", "rotation", "attention", "output", "gate", "down"})
      measure(chain, tower, rows, name, false, stream);
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
}

}  // namespace
}  // namespace oriel::kernels

int main(int count, char** arguments) {
  using namespace oriel::kernels;
  Arguments a;
  for (int i = 3; i < count; ++i) {
    const std::string name = arguments[i];
    a.each_without |= name == "--each-without";
    a.nodes |= name == "--nodes";
    a.deterministic |= name == "--deterministic";
    if (name == "--layers" && i + 1 < count) a.layers = std::atoll(arguments[++i]);
  }
  for (const Tower& tower : towers)
    if (count > 2 && std::strcmp(tower.name, arguments[1]) == 0) {
      run(tower, std::atoll(arguments[2]), a);
      return 0;
    }
  std::fprintf(stderr, "blocks_bench pixtral|qwen2_vl|qwen2_5_vl ROWS [OPTION]...: see its source\n");
  return 2;
}
