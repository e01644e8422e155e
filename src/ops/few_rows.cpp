#include "ops/few_rows.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/BFloat16.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ops/parallel.hpp"
#include "ops/vectorised.hpp"

namespace oriel::ops {
namespace {

// Vectors of GCC's and clang's: as wide as AVX-512's, and made of several where the instruction set has shorter ones.
constexpr int64_t lanes = 16;
using Floats = float __attribute__((vector_size(64), aligned(4), may_alias));
using Words = uint32_t __attribute__((vector_size(64), aligned(4), may_alias));
using Halves = uint16_t __attribute__((vector_size(32), aligned(2), may_alias));

constexpr int64_t panel_width = 64;
constexpr int64_t panel_vectors = panel_width / lanes;
constexpr int64_t rows_at_once = 4;                      ///< so that their sums stay in registers
constexpr int64_t most_rows = 8;                         ///< of plain rows
constexpr int outputs_at_once = 4;                       ///< of plain rows
constexpr int64_t stretch = 512;                         ///< inputs, even
constexpr int64_t fetch_ahead = 4096;                    ///< bytes; processors' own fetching ends at pages of 4 KiB
constexpr int64_t least_task_bytes = int64_t{64} << 10;  ///< of a thread

template <typename T>
constexpr int64_t pair_of = int64_t{4} / static_cast<int64_t>(sizeof(T));

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

/// Inputs of a panel: oneDNN fills up its blocks of 16 pairs.
template <typename T>
int64_t panel_depth(int64_t in) {
  return round_up(in, 16 * pair_of<T>);
}

/// What threads share. Pointers of the end may be null.
template <typename T>
struct Product {
  const T* weight;
  const float* x;  ///< [rows, depth]
  int64_t rows, in, out;
  int64_t depth;  ///< inputs with what is filled up
  const T* bias;
  const T* plus;
  const T* times;
  T* y;
};

#define ORIEL_INLINE inline __attribute__((always_inline))

/// y of one row and `count` outputs from `first` on.
template <typename T>
ORIEL_INLINE void end_sums(const Product<T>& product, int64_t row, int64_t first, int64_t count, float* sums) {
  const int64_t place = row * product.out + first;
  if (product.bias != nullptr)
    for (int64_t j = 0; j < count; ++j) sums[j] += static_cast<float>(product.bias[first + j]);
  if (product.plus != nullptr)
    for (int64_t j = 0; j < count; ++j) sums[j] += static_cast<float>(product.plus[place + j]);
  if (product.times != nullptr)
    for (int64_t j = 0; j < count; ++j) sums[j] *= static_cast<float>(product.times[place + j]);
  for (int64_t j = 0; j < count; ++j) product.y[place + j] = static_cast<T>(sums[j]);
}

// --- panels ---

/// sums [Rows, 64] += the products of inputs [0, inputs) of a panel with x [Rows, ...].
template <int Rows>
ORIEL_INLINE void add_inputs(const float* panel, const float* x, int64_t x_stride, int64_t inputs, float* sums) {
  Floats own[Rows][panel_vectors] = {};
  for (int64_t i = 0; i < inputs; ++i, panel += panel_width)
    for (int64_t k = 0; k < panel_vectors; ++k) {
      __builtin_prefetch(reinterpret_cast<const char*>(panel + k * lanes) + fetch_ahead);
      const Floats weights = *reinterpret_cast<const Floats*>(panel + k * lanes);
      for (int row = 0; row < Rows; ++row) own[row][k] += weights * x[row * x_stride + i];
    }
  for (int row = 0; row < Rows; ++row)
    for (int64_t k = 0; k < panel_vectors; ++k)
      *reinterpret_cast<Floats*>(sums + row * panel_width + k * lanes) += own[row][k];
}

template <int Rows>
ORIEL_INLINE void add_inputs(const c10::BFloat16* panel, const float* x, int64_t x_stride, int64_t inputs,
                             float* sums) {
  Floats own[Rows][panel_vectors] = {};
  for (int64_t i = 0; i < inputs; i += 2, panel += 2 * panel_width)
    for (int64_t k = 0; k < panel_vectors; ++k) {
      __builtin_prefetch(reinterpret_cast<const char*>(panel + 2 * k * lanes) + fetch_ahead);
      const Words pairs = *reinterpret_cast<const Words*>(panel + 2 * k * lanes);
      const Words low = pairs << 16;
      const Words high = pairs & 0xFFFF0000U;
      for (int row = 0; row < Rows; ++row) {
        own[row][k] += reinterpret_cast<const Floats&>(low) * x[row * x_stride + i];
        own[row][k] += reinterpret_cast<const Floats&>(high) * x[row * x_stride + i + 1];
      }
    }
  for (int row = 0; row < Rows; ++row)
    for (int64_t k = 0; k < panel_vectors; ++k)
      *reinterpret_cast<Floats*>(sums + row * panel_width + k * lanes) += own[row][k];
}

/// The sums of all inputs are made of sums of stretches, which errs less than one long sum.
template <int Rows, typename T>
ORIEL_INLINE void multiply_panel(const Product<T>& product, int64_t panel) {
  float sums[Rows * panel_width] = {};
  const T* weights = product.weight + panel * product.depth * panel_width;
  for (int64_t begin = 0; begin < product.depth; begin += stretch) {
    const int64_t inputs = std::min(stretch, product.depth - begin);
    add_inputs<Rows>(weights + begin * panel_width, product.x + begin, product.depth, inputs, sums);
  }
  const int64_t first = panel * panel_width;
  const int64_t count = std::min(panel_width, product.out - first);
  for (int64_t row = 0; row < Rows; ++row) end_sums(product, row, first, count, sums + row * panel_width);
}

/// Panels [begin, end).
template <int Rows, typename T>
ORIEL_INLINE void multiply_panels_of(const Product<T>& product, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end; ++panel) multiply_panel<Rows>(product, panel);
}

template <typename T>
ORIEL_INLINE void choose_rows(const Product<T>& product, int64_t begin, int64_t end) {
  switch (product.rows) {
    case 1:
      return multiply_panels_of<1>(product, begin, end);
    case 2:
      return multiply_panels_of<2>(product, begin, end);
    case 3:
      return multiply_panels_of<3>(product, begin, end);
    default:
      return multiply_panels_of<4>(product, begin, end);
  }
}

// --- rows ---

ORIEL_INLINE void load(const float* from, Floats& to) { to = *reinterpret_cast<const Floats*>(from); }
ORIEL_INLINE void load(const c10::BFloat16* from, Floats& to) {
  const Words wide = __builtin_convertvector(*reinterpret_cast<const Halves*>(from), Words) << 16;
  to = reinterpret_cast<const Floats&>(wide);
}

/// sums [Rows, Outputs] of the weights of outputs side by side, [Outputs, in], with x [Rows, in].
template <int Rows, int Outputs, typename T>
ORIEL_INLINE void sum_products(const T* weights, const float* x, int64_t in, float* sums) {
  Floats own[Rows][Outputs] = {};
  const int64_t whole = in / lanes * lanes;
  for (int64_t i = 0; i < whole; i += lanes) {
    Floats values[Outputs];
    for (int output = 0; output < Outputs; ++output) {
      __builtin_prefetch(reinterpret_cast<const char*>(weights + output * in + i) + fetch_ahead);
      load(weights + output * in + i, values[output]);
    }
    for (int row = 0; row < Rows; ++row)
      for (int output = 0; output < Outputs; ++output)
        own[row][output] += values[output] * *reinterpret_cast<const Floats*>(x + row * in + i);
  }
  for (int row = 0; row < Rows; ++row)
    for (int output = 0; output < Outputs; ++output) {
      float sum = 0;
      for (int64_t lane = 0; lane < lanes; ++lane) sum += own[row][output][lane];
      for (int64_t i = whole; i < in; ++i) sum += static_cast<float>(weights[output * in + i]) * x[row * in + i];
      sums[row * Outputs + output] = sum;
    }
}

template <int Outputs, typename T>
ORIEL_INLINE void multiply_outputs_at(const Product<T>& product, int64_t output) {
  float sums[most_rows * Outputs];
  const T* weights = product.weight + output * product.in;
  for (int64_t row = 0; row < product.rows; row += rows_at_once) {
    const float* x = product.x + row * product.in;
    float* to = sums + row * Outputs;
    switch (std::min(rows_at_once, product.rows - row)) {
      case 1:
        sum_products<1, Outputs>(weights, x, product.in, to);
        break;
      case 2:
        sum_products<2, Outputs>(weights, x, product.in, to);
        break;
      case 3:
        sum_products<3, Outputs>(weights, x, product.in, to);
        break;
      default:
        sum_products<4, Outputs>(weights, x, product.in, to);
        break;
    }
  }
  for (int64_t row = 0; row < product.rows; ++row) end_sums(product, row, output, Outputs, sums + row * Outputs);
}

/// Outputs [begin, end). An output's bits do not depend on where the range begins.
template <typename T>
ORIEL_INLINE void multiply_rows(const Product<T>& product, int64_t begin, int64_t end) {
  int64_t output = begin;
  for (; output + outputs_at_once <= end; output += outputs_at_once)
    multiply_outputs_at<outputs_at_once>(product, output);
  for (; output < end; ++output) multiply_outputs_at<1>(product, output);
}

ORIEL_VECTORISED void multiply_panels(const Product<float>& product, int64_t begin, int64_t end) {
  choose_rows(product, begin, end);
}
ORIEL_VECTORISED void multiply_panels(const Product<c10::BFloat16>& product, int64_t begin, int64_t end) {
  choose_rows(product, begin, end);
}
ORIEL_VECTORISED void multiply_outputs(const Product<float>& product, int64_t begin, int64_t end) {
  multiply_rows(product, begin, end);
}
ORIEL_VECTORISED void multiply_outputs(const Product<c10::BFloat16>& product, int64_t begin, int64_t end) {
  multiply_rows(product, begin, end);
}

#undef ORIEL_INLINE

/// x in float32, rows filled up with zeros to `depth`.
at::Tensor wide_rows(const at::Tensor& x, int64_t depth) {
  if (x.scalar_type() == at::kFloat && x.size(1) == depth) return x;
  if (x.size(1) == depth) return x.to(at::kFloat);
  at::Tensor result = at::zeros({x.size(0), depth}, at::kFloat);
  result.narrow(1, 0, x.size(1)).copy_(x);
  return result;
}

template <typename T>
at::Tensor multiply(const at::Tensor& x, const ReadableWeight& weight, const SumEnd& end) {
  const bool panels = weight.layout == ReadableWeight::Layout::panels;
  const int64_t depth = panels ? panel_depth<T>(weight.in) : weight.in;
  const at::Tensor wide = wide_rows(x, depth);
  at::Tensor y = at::empty({x.size(0), weight.out}, x.options());
  const auto values = [](const at::Tensor& tensor) {
    return tensor.defined() ? tensor.const_data_ptr<T>() : static_cast<const T*>(nullptr);
  };
  const Product<T> product{.weight = static_cast<const T*>(weight.data),
                           .x = wide.const_data_ptr<float>(),
                           .rows = x.size(0),
                           .in = weight.in,
                           .out = weight.out,
                           .depth = depth,
                           .bias = values(end.bias),
                           .plus = values(end.plus),
                           .times = values(end.times),
                           .y = y.mutable_data_ptr<T>()};
  const int64_t outputs_each = panels ? panel_width : 1;
  const int64_t bytes_each = std::max<int64_t>(1, outputs_each * depth * static_cast<int64_t>(sizeof(T)));
  const int64_t grain = std::max<int64_t>(1, least_task_bytes / bytes_each);
  const int64_t pieces = (weight.out + outputs_each - 1) / outputs_each;
  parallel_for(pieces, grain, [&](int64_t first, int64_t last) {
    panels ? multiply_panels(product, first, last) : multiply_outputs(product, first, last);
  });
  return y;
}

/// Whether the panel that begins with output `first` lies at `panel`.
template <typename T>
bool is_panel(const at::Tensor& weight, int64_t first, const T* panel) {
  const auto* values = weight.const_data_ptr<T>();
  const int64_t in = weight.size(1);
  for (int64_t i = 0; i < panel_depth<T>(in); ++i)
    for (int64_t j = 0; j < panel_width; ++j) {
      const bool is_filled_up = i >= in || first + j >= weight.size(0);
      const T expected = is_filled_up ? T(0) : values[(first + j) * in + i];
      const T* found = panel + (i / pair_of<T> * panel_width + j) * pair_of<T> + i % pair_of<T>;
      if (std::memcmp(&expected, found, sizeof(T)) != 0) return false;
    }
  return true;
}

/// Whether a panel tells layouts apart: one value alone lies alike in all of them.
template <typename T>
bool has_differing_values(const T* panel, int64_t count) {
  return std::any_of(panel, panel + count, [&](const T& value) { return std::memcmp(&value, panel, sizeof(T)) != 0; });
}

template <typename T>
bool are_panels(const at::Tensor& weight, const void* packed, int64_t bytes) {
  const int64_t out = round_up(weight.size(0), panel_width);
  const int64_t depth = panel_depth<T>(weight.size(1));
  if (bytes < out * depth * static_cast<int64_t>(sizeof(T))) return false;
  const T* first = static_cast<const T*>(packed);
  const int64_t last = out - panel_width;
  return has_differing_values(first, panel_width * depth) && is_panel(weight, 0, first) &&
         is_panel(weight, last, first + last * depth);
}

bool is_readable(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kBFloat16; }

}  // namespace

std::optional<ReadableWeight> readable_rows(const at::Tensor& weight) {
  if (!weight.is_cpu() || !weight.is_contiguous() || !is_readable(weight.scalar_type())) return std::nullopt;
  return ReadableWeight{.data = weight.const_data_ptr(),
                        .dtype = weight.scalar_type(),
                        .layout = ReadableWeight::Layout::rows,
                        .out = weight.size(0),
                        .in = weight.size(1)};
}

std::optional<ReadableWeight> readable_packed(const at::Tensor& weight, const void* packed, int64_t bytes) {
  std::optional<ReadableWeight> found = readable_rows(weight);
  if (!found || packed == nullptr || weight.numel() == 0) return std::nullopt;
  found->data = packed;
  found->layout = ReadableWeight::Layout::panels;
  if (found->dtype == at::kFloat ? are_panels<float>(weight, packed, bytes)
                                 : are_panels<c10::BFloat16>(weight, packed, bytes))
    return found;
  found->layout = ReadableWeight::Layout::rows;
  const auto dense = static_cast<int64_t>(weight.nbytes());
  if (bytes >= dense && std::memcmp(packed, weight.const_data_ptr(), weight.nbytes()) == 0) return found;
  return std::nullopt;
}

at::Tensor few_rows_product(const at::Tensor& x, const ReadableWeight& weight, const SumEnd& end) {
  return weight.dtype == at::kFloat ? multiply<float>(x, weight, end) : multiply<c10::BFloat16>(x, weight, end);
}

void wish_for_huge_pages_under([[maybe_unused]] const void* begin, [[maybe_unused]] int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr int collapse = 25;  // MADV_COLLAPSE, Linux 6.1, which C libraries came to know later
  constexpr uintptr_t page = uintptr_t{2} << 20;
  const auto address = reinterpret_cast<uintptr_t>(begin);
  const uintptr_t first = (address + page - 1) / page * page;
  const uintptr_t last = (address + static_cast<uintptr_t>(bytes)) / page * page;
  if (first >= last) return;
  (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
  constexpr int tries = 3;  // what some pages of it were too busy for
  for (int i = 0; i < tries; ++i)
    if (::madvise(reinterpret_cast<void*>(first), last - first, collapse) == 0 || errno != EAGAIN) break;
#endif
}

}  // namespace oriel::ops
