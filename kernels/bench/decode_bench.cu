// Times the kernels of a decoder's step and whole steps: decode_bench [products|attention|steps]...
//
//   nvcc -std=c++17 -O3 -gencode arch=compute_90a,code=sm_90a -I kernels kernels/bench/decode_bench.cu
//     kernels/{wide_norm,decode_rotary,decode_attention,decode_attention_mma,greedy}.cu -o decode_bench
//
// First the speed of a copy between two buffers larger than the L2 cache, bytes read and written; all percentages are
// of that. Products: microseconds, TB/s of the weight, for shapes of three models and several shapes of block.
// Attention: the same of keys and values, both launches, on the matrix units and by multiplications, and with half and
// a quarter of the parts that a token may be cut into. Steps: random decoders of full size with the launches of
// nn::Decoder's step as one CUDA graph, for one to eight sequences; then each kind of launch by itself, as often as in
// a step.
#include "../few_rows.cu"

#include <cuda_bf16.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace oriel::kernels {
namespace {

using Value = __nv_bfloat16;

void check(cudaError_t error, const char* what = "") {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

__global__ void fill(Value* data, int64_t count, float scale, unsigned seed) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    uint32_t x = static_cast<uint32_t>(i) * 2654435761U + seed;
    x ^= x >> 15;
    x *= 2246822519U;
    x ^= x >> 13;
    data[i] = __float2bfloat16_rn((static_cast<float>(x) / 2147483648.0F - 1.0F) * scale);
  }
}

template <typename T>
T* allocate(int64_t count) {
  void* data = nullptr;
  check(cudaMalloc(&data, sizeof(T) * static_cast<size_t>(count)), "cudaMalloc");
  check(cudaMemset(data, 0, sizeof(T) * static_cast<size_t>(count)));
  return static_cast<T*>(data);
}

Value* random_values(int64_t count, float scale) {
  static unsigned seed = 1;
  auto* data = allocate<Value>(count);
  fill<<<1024, 256>>>(data, count, scale, seed++);
  check(cudaDeviceSynchronize());
  return data;
}

/// Microseconds of what `enqueue` does, as a graph that is replayed.
double time_graph(cudaStream_t stream, int repeats, const std::function<void(cudaStream_t)>& enqueue) {
  enqueue(stream);
  check(cudaStreamSynchronize(stream), "first run");
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t ready = nullptr;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  enqueue(stream);
  check(cudaStreamEndCapture(stream, &graph), "capture");
  check(cudaGraphInstantiate(&ready, graph, 0), "instantiate");
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  for (int i = 0; i < 3; ++i) check(cudaGraphLaunch(ready, stream));
  check(cudaEventRecord(begin, stream));
  for (int i = 0; i < repeats; ++i) check(cudaGraphLaunch(ready, stream));
  check(cudaEventRecord(end, stream));
  check(cudaStreamSynchronize(stream), "replays");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin, end));
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  check(cudaGraphExecDestroy(ready));
  check(cudaGraphDestroy(graph));
  return 1e3 * milliseconds / repeats;
}

__global__ void copy_kernel(const uint4* from, uint4* to) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  to[at] = from[at];
}

/// Bytes a second that a copy reads and writes. By a kernel: a graph's memcpy reached two thirds of it.
double copy_speed(cudaStream_t stream) {
  constexpr int64_t bytes = int64_t{2} << 30;
  constexpr int threads = 512;
  auto* from = allocate<uint4>(bytes / 16);
  auto* to = allocate<uint4>(bytes / 16);
  check(cudaMemsetAsync(from, 1, bytes, stream));
  const double us = time_graph(stream, 20, [&](cudaStream_t s) {
    copy_kernel<<<static_cast<unsigned>(bytes / 16 / threads), threads, 0, s>>>(from, to);
    check(cudaGetLastError());
  });
  check(cudaFree(from));
  check(cudaFree(to));
  return 2.0 * bytes / (us * 1e-6);
}

template <int Tiles, int Warps, int Loads, int Threads>
void time_variant(const std::vector<FewRowsParams>& calls, double bytes, double copy, cudaStream_t stream) {
  const double us = time_graph(stream, 5, [&](cudaStream_t s) {
    for (const FewRowsParams& p : calls)
      check(launch_overlapping(tensor_kernel<Value, Warps, Tiles, Loads, Threads>,
                               Grid{dim3(static_cast<unsigned>(divide_up(p.out, tile))), dim3(Warps * warp)}, s, p));
  });
  const double speed = bytes * static_cast<double>(calls.size()) / (us * 1e-6);
  std::printf("  %d/%d/%d %.1f us %.2f TB/s %.0f %%", Warps, Loads, Threads, us / static_cast<double>(calls.size()),
              speed * 1e-12, 100 * speed / copy);
}

void time_products(cudaStream_t stream, double copy) {
  struct Shape {
    const char* name;
    int64_t in, out;
    bool gated;
  };
  for (const Shape& shape : {Shape{"Qwen2-7B qkv", 3584, 4608, false},
                             {"Qwen2-7B proj", 3584, 3584, false},
                             {"Qwen2-7B gate", 3584, 18944, true},
                             {"Qwen2-7B down", 18944, 3584, false},
                             {"Qwen2-7B head", 3584, 152064, false},
                             {"Mistral-7B qkv", 4096, 6144, false},
                             {"Mistral-7B gate", 4096, 14336, true},
                             {"Mistral-7B down", 14336, 4096, false},
                             {"Qwen2-2B qkv", 1536, 2048, false},
                             {"Qwen2-2B gate", 1536, 8960, true},
                             {"Qwen2-2B down", 8960, 1536, false}}) {
    const int64_t count = shape.in * shape.out * (shape.gated ? 2 : 1);
    const auto copies = static_cast<int>(std::max<int64_t>(2, (int64_t{300} << 20) / (2 * count)));
    std::vector<Value*> weights;
    for (int i = 0; i < copies; ++i) weights.push_back(random_values(count, 0.02F));
    Value* x = random_values(8 * shape.in, 1);
    auto* y = allocate<Value>(8 * shape.out);
    for (const int64_t rows : {1, 8}) {
      std::vector<FewRowsParams> calls;
      for (Value* weight : weights)
        calls.push_back({.x = x,
                         .weight = weight,
                         .y = y,
                         .rows = rows,
                         .in = shape.in,
                         .out = shape.out,
                         .function = shape.gated ? ElementwiseFunction::silu : ElementwiseFunction::identity,
                         .gated = shape.gated});
      const double bytes = 2.0 * static_cast<double>(count);
      const double chosen = time_graph(stream, 5, [&](cudaStream_t s) {
        for (const FewRowsParams& p : calls) check(multiply_few_rows(p, s));
      });
      std::printf("%s, %d rows: %.1f us\n ", shape.name, static_cast<int>(rows), chosen / copies);
      if (shape.gated) {
        time_variant<2, 4, 8, 1024>(calls, bytes, copy, stream);
        time_variant<2, 8, 8, 1024>(calls, bytes, copy, stream);
        time_variant<2, 16, 8, 1024>(calls, bytes, copy, stream);
        time_variant<2, 4, 16, 512>(calls, bytes, copy, stream);
        time_variant<2, 8, 16, 512>(calls, bytes, copy, stream);
        time_variant<2, 4, 4, 1536>(calls, bytes, copy, stream);
      } else {
        time_variant<1, 4, 8, 1024>(calls, bytes, copy, stream);
        time_variant<1, 8, 8, 1024>(calls, bytes, copy, stream);
        time_variant<1, 16, 8, 1024>(calls, bytes, copy, stream);
        time_variant<1, 4, 16, 512>(calls, bytes, copy, stream);
        time_variant<1, 8, 16, 512>(calls, bytes, copy, stream);
        time_variant<1, 16, 4, 1536>(calls, bytes, copy, stream);
      }
      std::printf("\n");
    }
    for (Value* weight : weights) check(cudaFree(weight));
    check(cudaFree(x));
    check(cudaFree(y));
  }
}

/// Sequences of equal length over so many caches that none is in the L2 cache when it is read again.
void time_attention(cudaStream_t stream, double copy) {
  struct Shape {
    const char* name;
    int64_t heads, kv_heads, head_dim;
  };
  for (const Shape& shape : {Shape{"Qwen2-7B", 28, 4, 128}, {"Mistral-7B", 32, 8, 128}, {"Gemma3-4B", 8, 4, 256}})
    for (const int64_t length : {512, 4096, 16384})
      for (const int64_t rows : {1, 8}) {
        const int64_t width = shape.kv_heads * shape.head_dim;
        const int64_t bytes = 4 * rows * length * width;
        const int64_t caches = std::max<int64_t>(2, divide_up(int64_t{400} << 20, bytes));
        const int32_t splits = decode_attention_splits(shape.kv_heads, length);
        Value* keys = random_values(caches * rows * length * width, 1);
        Value* values = random_values(caches * rows * length * width, 1);
        Value* q = random_values(rows * shape.heads * shape.head_dim, 1);
        auto* out = allocate<Value>(rows * shape.heads * shape.head_dim);
        auto* partial = allocate<float>(decode_attention_scratch(rows, shape.heads, shape.head_dim, splits));
        auto* slots = allocate<int64_t>(rows);
        auto* lengths = allocate<int64_t>(rows);
        const std::vector<int64_t> order{0, 1, 2, 3, 4, 5, 6, 7};
        const std::vector<int64_t> same(8, length);
        check(cudaMemcpy(slots, order.data(), sizeof(int64_t) * rows, cudaMemcpyHostToDevice));
        check(cudaMemcpy(lengths, same.data(), sizeof(int64_t) * rows, cudaMemcpyHostToDevice));
        std::printf("%s, %d of %d:", shape.name, static_cast<int>(rows), static_cast<int>(length));
        const auto time = [&](const char* name, int32_t parts, bool on_matrix_units) {
          const double us = time_graph(stream, 10, [&](cudaStream_t s) {
            for (int64_t i = 0; i < caches; ++i) {
              const int64_t first = i * rows * length * width;
              check(decode_attention({q, keys + first, values + first, slots, lengths, partial, out,
                                      shape.heads * shape.head_dim, rows, shape.heads, shape.kv_heads, shape.head_dim,
                                      length, 0, parts, 0.09F, Element::bfloat16, on_matrix_units},
                                     s),
                    "attention");
            }
          });
          const double speed = static_cast<double>(bytes * caches) / (us * 1e-6);
          std::printf(" %s %.1f us %.2f TB/s %.0f %%,", name, us / static_cast<double>(caches), speed * 1e-12,
                      100 * speed / copy);
        };
        time("units", splits, true);
        time("half the parts", static_cast<int32_t>(divide_up(splits, 2)), true);
        time("a quarter", static_cast<int32_t>(divide_up(splits, 4)), true);
        time("multiplications", splits, false);
        std::printf("\n");
        for (void* data :
             {static_cast<void*>(keys), static_cast<void*>(values), static_cast<void*>(q), static_cast<void*>(out),
              static_cast<void*>(partial), static_cast<void*>(slots), static_cast<void*>(lengths)})
          check(cudaFree(data));
      }
}

struct Model {
  const char* name;
  int64_t width, heads, kv_heads, head_dim, mlp, layers, vocabulary;
  bool sandwich;
};

/// The kinds of launches in a step.
enum Part {
  norms = 1,
  qkv = 2,
  rotation = 4,
  attention = 8,
  proj = 16,
  gate_up = 32,
  down = 64,
  head = 128,
  all = 255
};

struct Decoder {
  Model m;
  int64_t slots = 8;
  int64_t capacity = 8192;
  std::vector<Value*> qkv_weight, proj_weight, gate_weight, down_weight, keys, values;
  Value *head_weight, *bias, *norm_weight, *hidden, *normed, *packed, *attended, *middle, *added, *logits16;
  float *frequencies, *turns, *partial, *logits;
  int64_t *positions, *slot_of, *lengths;
  void* scratch;
  double* choices;

  explicit Decoder(const Model& model) : m(model) {
    const int64_t packed_width = (m.heads + 2 * m.kv_heads) * m.head_dim;
    for (int64_t i = 0; i < m.layers; ++i) {
      qkv_weight.push_back(random_values(packed_width * m.width, 0.02F));
      proj_weight.push_back(random_values(m.width * m.heads * m.head_dim, 0.02F));
      gate_weight.push_back(random_values(2 * m.mlp * m.width, 0.02F));
      down_weight.push_back(random_values(m.width * m.mlp, 0.02F));
      keys.push_back(random_values(slots * capacity * m.kv_heads * m.head_dim, 1));
      values.push_back(random_values(slots * capacity * m.kv_heads * m.head_dim, 1));
    }
    head_weight = random_values(m.vocabulary * m.width, 0.02F);
    bias = random_values(packed_width, 0.1F);
    norm_weight = random_values(m.width, 1);
    hidden = random_values(8 * m.width, 1);
    normed = allocate<Value>(8 * m.width);
    added = allocate<Value>(8 * m.width);
    packed = allocate<Value>(8 * packed_width);
    attended = allocate<Value>(8 * m.heads * m.head_dim);
    middle = allocate<Value>(8 * m.mlp);
    logits16 = allocate<Value>(8 * m.vocabulary);
    logits = allocate<float>(8 * m.vocabulary);
    frequencies = allocate<float>(m.head_dim / 2);
    turns = allocate<float>(8 * m.head_dim);
    partial = allocate<float>(
        decode_attention_scratch(8, m.heads, m.head_dim, decode_attention_splits(m.kv_heads, capacity)));
    positions = allocate<int64_t>(8);
    slot_of = allocate<int64_t>(8);
    lengths = allocate<int64_t>(8);
    scratch = allocate<char>(8 * GreedyParams::parts * 16);
    choices = allocate<double>(16);
  }
  ~Decoder() {
    for (const auto* list : {&qkv_weight, &proj_weight, &gate_weight, &down_weight, &keys, &values})
      for (Value* data : *list) (void)cudaFree(data);
    for (void* data : {static_cast<void*>(head_weight), static_cast<void*>(bias), static_cast<void*>(norm_weight),
                       static_cast<void*>(hidden), static_cast<void*>(normed), static_cast<void*>(packed),
                       static_cast<void*>(attended), static_cast<void*>(middle), static_cast<void*>(added),
                       static_cast<void*>(logits16), static_cast<void*>(frequencies), static_cast<void*>(turns),
                       static_cast<void*>(partial), static_cast<void*>(logits), static_cast<void*>(positions),
                       static_cast<void*>(slot_of), static_cast<void*>(lengths), scratch, static_cast<void*>(choices)})
      (void)cudaFree(data);
  }
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  void set_length(int64_t length) const {
    const std::vector<int64_t> order{0, 1, 2, 3, 4, 5, 6, 7};
    const std::vector<int64_t> same(8, length);
    check(cudaMemcpy(slot_of, order.data(), 64, cudaMemcpyHostToDevice));
    check(cudaMemcpy(lengths, same.data(), 64, cudaMemcpyHostToDevice));
    check(cudaMemcpy(positions, same.data(), 64, cudaMemcpyHostToDevice));
  }
  [[nodiscard]] double weight_bytes() const {
    const int64_t layer =
        (m.heads + 2 * m.kv_heads) * m.head_dim * m.width + m.width * m.heads * m.head_dim + 3 * m.width * m.mlp;
    return 2.0 * static_cast<double>(m.layers * layer + m.vocabulary * m.width);
  }

  void norm(const Value* x, const Value* residual, Value* y, int64_t rows, cudaStream_t stream) const {
    check(rms_norm_wide({x, norm_weight, residual, y, rows, m.width, 1e-6F, false, Element::bfloat16}, stream), "norm");
  }
  void multiply(const Value* x, const Value* weight, const Value* with_bias, const Value* residual, Value* y,
                int64_t rows, int64_t in, int64_t out, bool gated, cudaStream_t stream) const {
    check(
        multiply_few_rows({x, weight, with_bias, residual, y, rows, in, out,
                           gated ? ElementwiseFunction::silu : ElementwiseFunction::identity, gated, Element::bfloat16},
                          stream),
        "product");
  }

  void step(int64_t rows, int parts, cudaStream_t stream) const {
    const int64_t packed_width = (m.heads + 2 * m.kv_heads) * m.head_dim;
    const int64_t inner = m.heads * m.head_dim;
    if (parts & rotation)
      check(token_turns({positions, frequencies, nullptr, turns, rows, m.head_dim / 2, rows}, stream), "turns");
    for (size_t i = 0; i < static_cast<size_t>(m.layers); ++i) {
      if (parts & norms) norm(hidden, nullptr, normed, rows, stream);
      if (parts & qkv)
        multiply(normed, qkv_weight[i], bias, nullptr, packed, rows, m.width, packed_width, false, stream);
      if (parts & rotation)
        check(rotate_and_store({packed, turns, m.sandwich ? norm_weight : nullptr, m.sandwich ? norm_weight : nullptr,
                                keys[i], values[i], slot_of, lengths, rows, m.heads, m.kv_heads, m.head_dim, capacity,
                                1e-6F, true, Element::bfloat16},
                               stream),
              "rotation");
      if (parts & attention)
        check(decode_attention({packed, keys[i], values[i], slot_of, lengths, partial, attended, packed_width, rows,
                                m.heads, m.kv_heads, m.head_dim, capacity, 0,
                                decode_attention_splits(m.kv_heads, capacity), 0.09F, Element::bfloat16, true},
                               stream),
              "attention");
      if (parts & proj)
        multiply(attended, proj_weight[i], nullptr, m.sandwich ? nullptr : hidden, m.sandwich ? added : hidden, rows,
                 inner, m.width, false, stream);
      if (m.sandwich && (parts & norms)) norm(added, hidden, hidden, rows, stream);
      if (parts & norms) norm(hidden, nullptr, normed, rows, stream);
      if (parts & gate_up)
        multiply(normed, gate_weight[i], nullptr, nullptr, middle, rows, m.width, m.mlp, true, stream);
      if (parts & down)
        multiply(middle, down_weight[i], nullptr, m.sandwich ? nullptr : hidden, m.sandwich ? added : hidden, rows,
                 m.mlp, m.width, false, stream);
      if (m.sandwich && (parts & norms)) norm(added, hidden, hidden, rows, stream);
    }
    if (parts & norms) norm(hidden, nullptr, normed, rows, stream);
    if (parts & head) {
      multiply(normed, head_weight, nullptr, nullptr, logits16, rows, m.width, m.vocabulary, false, stream);
      check(choose_greedily({logits, scratch, choices, rows, m.vocabulary, m.vocabulary}, stream), "greedy");
    }
  }
};

void time_steps(cudaStream_t stream, double copy) {
  for (const Model& model : {Model{"Qwen2-7B", 3584, 28, 4, 128, 18944, 28, 152064, false},
                             {"Mistral-7B", 4096, 32, 8, 128, 14336, 32, 32768, false},
                             {"Gemma3-4B", 2560, 8, 4, 256, 10240, 34, 262208, true},
                             {"Qwen2-2B", 1536, 12, 2, 128, 8960, 28, 151936, false}}) {
    const Decoder decoder(model);
    std::printf("%s: %.2f GB of weights\n", model.name, decoder.weight_bytes() * 1e-9);
    for (const int64_t length : {512, 4096})
      for (const int64_t rows : {1, 2, 4, 8}) {
        decoder.set_length(length);
        const double us = time_graph(stream, 20, [&](cudaStream_t s) { decoder.step(rows, all, s); });
        const double cache = 4.0 * static_cast<double>(rows * length * model.kv_heads * model.head_dim * model.layers);
        const double speed = (decoder.weight_bytes() + cache) / (us * 1e-6);
        std::printf("  %d sequences of %d: %.0f us, %.0f tokens/s, %.2f TB/s, %.0f %% of the copy\n",
                    static_cast<int>(rows), static_cast<int>(length), us, 1e6 * static_cast<double>(rows) / us,
                    speed * 1e-12, 100 * speed / copy);
      }
    for (const auto& [rows, length] : {std::pair<int64_t, int64_t>{1, 512}, {8, 4096}}) {
      decoder.set_length(length);
      std::printf("  alone, %d of %d:", static_cast<int>(rows), static_cast<int>(length));
      for (const auto& [part, name] : {std::pair<int, const char*>{norms, "norms"},
                                       {qkv, "qkv"},
                                       {rotation, "rotation"},
                                       {attention, "attention"},
                                       {proj, "proj"},
                                       {gate_up, "gate and up"},
                                       {down, "down"},
                                       {head, "head"}})
        std::printf(" %s %.0f us,", name, time_graph(stream, 10, [&](cudaStream_t s) { decoder.step(rows, part, s); }));
      std::printf("\n");
    }
  }
}

}  // namespace
}  // namespace oriel::kernels

int main(int argc, char** argv) {
  using namespace oriel::kernels;
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  const double copy = copy_speed(stream);
  std::printf("copy: %.2f TB/s read and written\n", copy * 1e-12);
  const auto wants = [&](const char* what) {
    for (int i = 1; i < argc; ++i)
      if (std::strcmp(argv[i], what) == 0) return true;
    return argc == 1;
  };
  if (wants("products")) time_products(stream, copy);
  if (wants("attention")) time_attention(stream, copy);
  if (wants("steps")) time_steps(stream, copy);
}
