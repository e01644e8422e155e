#include "ops/linear.hpp"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/List.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/linear.h>

#include <optional>
#include <utility>

#include "core/error.hpp"
#ifdef ORIEL_CUDA
#include "ops/cuda/launch.hpp"
#endif

namespace oriel::ops {
namespace {

// oneDNN's packed products are operators of libtorch without a C++ header; torch.compile's CPU backend calls the same.
using Scalars = c10::List<std::optional<at::Scalar>>;
using PackFn = at::Tensor(const at::Tensor&, std::optional<c10::SymInt>);
using LinearFn = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, c10::string_view,
                            Scalars, std::optional<c10::string_view>);
using AddressFn = int64_t(const at::Tensor&);
using LinearBinaryFn = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                  const std::optional<at::Tensor>&, c10::string_view);

template <typename Fn>
std::optional<c10::TypedOperatorHandle<Fn>> find_operator(const char* name, const char* overload) {
  const auto schema = c10::Dispatcher::singleton().findSchema({name, overload});
  if (!schema) return std::nullopt;
  return schema->template typed<Fn>();
}

struct PackedOperators {
  std::optional<c10::TypedOperatorHandle<PackFn>> pack = find_operator<PackFn>("mkldnn::_reorder_linear_weight", "");
  std::optional<c10::TypedOperatorHandle<LinearFn>> linear = find_operator<LinearFn>("mkldnn::_linear_pointwise", "");
  std::optional<c10::TypedOperatorHandle<LinearBinaryFn>> linear_binary =
      find_operator<LinearBinaryFn>("mkldnn::_linear_pointwise", "binary");
  std::optional<c10::TypedOperatorHandle<AddressFn>> address = find_operator<AddressFn>("mkldnn::data_ptr", "");
  std::optional<c10::TypedOperatorHandle<AddressFn>> bytes = find_operator<AddressFn>("mkldnn::_nbytes", "");
  [[nodiscard]] bool complete() const { return pack && linear && linear_binary; }
};

const PackedOperators& packed_operators() {
  static const PackedOperators operators;
  return operators;
}

bool asks_yes(const char* name) {
  const auto schema = c10::Dispatcher::singleton().findSchema({name, ""});
  return schema && schema->typed<bool()>().call();
}

/// oneDNN's name of an activation that its epilogue holds: {name, algorithm}.
std::optional<std::pair<const char*, const char*>> epilogue(Activation activation) {
  switch (activation) {
    case Activation::identity:
      return std::pair{"none", ""};
    case Activation::relu:
      return std::pair{"relu", ""};
    case Activation::silu:
      return std::pair{"swish", ""};
    case Activation::gelu_erf:
      return std::pair{"gelu", "none"};
    case Activation::gelu_tanh:
      return std::pair{"gelu", "tanh"};
    case Activation::quick_gelu:
      return std::nullopt;
  }
  return std::nullopt;
}

int64_t padded(int64_t columns) { return (columns + column_multiple - 1) / column_multiple * column_multiple; }

/// What is known of how a packed weight lies in memory.
std::optional<ReadableWeight> readable(const at::Tensor& weight, const at::Tensor& packed) {
  const PackedOperators& operators = packed_operators();
  if (!operators.address || !operators.bytes) return std::nullopt;
  const auto address = static_cast<uintptr_t>(operators.address->call(packed));
  return readable_packed(weight, reinterpret_cast<const void*>(address), operators.bytes->call(packed));
}

at::Tensor pad_columns(const at::Tensor& x, int64_t columns) {
  return x.size(-1) == columns ? x.contiguous() : at::constant_pad_nd(x, {0, columns - x.size(-1)});
}

at::Tensor pad_rows(const at::Tensor& x, int64_t rows) {
  if (x.dim() == 1) return pad_columns(x, rows);
  return at::constant_pad_nd(x, {0, 0, 0, rows - x.size(0)});
}

#ifdef ORIEL_CUDA
constexpr bool has_kernels = true;
#else
constexpr bool has_kernels = false;
#endif

std::optional<at::Tensor> optional(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

}  // namespace

bool Linear::packs(at::ScalarType dtype, at::Device device) {
  if (!device.is_cpu() || !at::globalContext().userEnabledMkldnn()) return false;
  if (!packed_operators().complete()) return false;
  if (dtype == at::kFloat) return true;
  if (dtype == at::kBFloat16) return asks_yes("mkldnn::_is_mkldnn_bf16_supported");
  if (dtype == at::kHalf) return asks_yes("mkldnn::_is_mkldnn_fp16_supported");
  return false;
}

namespace {
thread_local bool deterministic_products = false;
}

DeterministicProducts::DeterministicProducts(bool wanted) : before_(std::exchange(deterministic_products, wanted)) {}
DeterministicProducts::~DeterministicProducts() { deterministic_products = before_; }
bool DeterministicProducts::wanted() { return deterministic_products; }

Linear::Linear(at::Tensor weight, at::Tensor bias)
    : weight_(std::move(weight)), bias_(std::move(bias)), in_(weight_.size(1)), out_(weight_.size(0)) {
  if (has_kernels && weight_.is_cuda()) weight_ = pad_columns(weight_, padded(in_));
  if (!packs(weight_.scalar_type(), weight_.device())) {
    readable_ = readable_rows(weight_);
    return;
  }
  const at::Tensor given = weight_.contiguous();
  weight_ = packed_operators().pack->call(given, std::nullopt);
  packed_ = true;
  readable_ = readable(given, weight_);
}

Linear Linear::sharing(at::Tensor weight) {
  if (!weight.is_cpu()) return Linear(std::move(weight), {});
  Linear result;
  result.weight_ = std::move(weight);
  result.in_ = result.weight_.size(1);
  result.out_ = result.weight_.size(0);
  result.readable_ = readable_rows(result.weight_);
  return result;
}

void Linear::expect_few_rows() const {
  if (!readable_) return;
  const auto element = static_cast<int64_t>(c10::elementSize(readable_->dtype));
  wish_for_huge_pages_under(readable_->data, out_ * in_ * element);
}

bool Linear::reads(const at::Tensor& x) const {
  return readable_ && x.size(0) >= 1 && x.size(0) <= readable_->most_rows() && x.scalar_type() == readable_->dtype;
}

/// x, dense and as wide as the weight.
at::Tensor Linear::checked(const at::Tensor& x) const {
  const bool padded_on_gpu = has_kernels && weight_.is_cuda() && x.size(-1) == weight_.size(1);
  if (x.size(-1) != in_ && !padded_on_gpu)
    throw_error(ErrorCode::internal, "linear: expected {} columns, got {}", in_, x.size(-1));
  if (!has_kernels || !weight_.is_cuda()) return x.contiguous();
  const at::Tensor dense = pad_columns(x, weight_.size(1));
  return reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0 ? dense
                                                                       : dense.clone();  // a view of the caller's
}

at::Tensor Linear::operator()(const at::Tensor& x, Activation activation) const {
  const at::Tensor dense = checked(x);
#ifdef ORIEL_CUDA
  if (cuda::takes(dense)) return cuda::linear(dense, weight_, bias_, {}, activation);
#endif
  if (reads(dense)) return activate_in_place(few_rows_product(dense, *readable_, {.bias = bias_}), activation);
  if (!packed_) return activate_in_place(at::linear(dense, weight_, optional(bias_)), activation);
  const auto fused = epilogue(activation);
  const auto [name, algorithm] = fused.value_or(std::pair{"none", ""});
  at::Tensor y = packed_operators().linear->call(dense, weight_, optional(bias_), name, Scalars(), algorithm);
  if (!fused) quick_gelu_in_place(y);  // the one activation without an epilogue
  return y;
}

at::Tensor Linear::add_to(const at::Tensor& residual, const at::Tensor& x) const {
  const at::Tensor dense = checked(x);
#ifdef ORIEL_CUDA
  if (cuda::takes(dense)) return cuda::linear(dense, weight_, bias_, residual.contiguous(), Activation::identity);
#endif
  if (reads(dense)) return few_rows_product(dense, *readable_, {.bias = bias_, .plus = residual.contiguous()});
  if (!packed_) return at::linear(dense, weight_, optional(bias_)).add_(residual);
  return packed_operators().linear_binary->call(dense, residual.contiguous(), weight_, optional(bias_), "add");
}

at::Tensor Linear::multiply_with(const at::Tensor& other, const at::Tensor& x) const {
  const at::Tensor dense = checked(x);
  if (reads(dense)) return few_rows_product(dense, *readable_, {.bias = bias_, .times = other.contiguous()});
  if (!packed_) return at::linear(dense, weight_, optional(bias_)).mul_(other);
  return packed_operators().linear_binary->call(dense, other.contiguous(), weight_, optional(bias_), "mul");
}

void GatedLinear::expect_few_rows() const {
  for (const Linear* linear : {&gate_, &up_}) linear->expect_few_rows();
}

GatedLinear::GatedLinear(Linear gate, Linear up) : gate_(std::move(gate)), up_(std::move(up)) {
  if (!has_kernels || !gate_.weight_.is_cuda()) return;
  const int64_t rows = padded(gate_.out_);
  const auto joined = [&](const at::Tensor& a, const at::Tensor& b) {
    return at::cat({pad_rows(a, rows), pad_rows(b, rows)});
  };
  both_ =
      Linear(joined(gate_.weight_, up_.weight_), gate_.bias_.defined() ? joined(gate_.bias_, up_.bias_) : at::Tensor());
  both_.in_ = gate_.in_;  // the weights joined are padded already
  gate_ = up_ = {};
}

at::Tensor GatedLinear::operator()(const at::Tensor& x, Activation activation) const {
#ifdef ORIEL_CUDA
  if (both_.defined()) {
    const at::Tensor dense = both_.checked(x);
    if (cuda::takes(dense)) return cuda::gated_linear(dense, both_.weight_, both_.bias_, activation);
    return cuda::gate(both_(x), activation);
  }
#endif
  return up_.multiply_with(gate_(x, activation), x);
}

int64_t GatedLinear::results_held([[maybe_unused]] const GateShape& shape, [[maybe_unused]] at::ScalarType dtype,
                                  [[maybe_unused]] at::Device device) {
#ifdef ORIEL_CUDA
  if (device.is_cuda())
    return cuda::gates_inside_product({shape.rows, padded(shape.columns), shape.activation}, dtype, device) ? 1 : 3;
#endif
  return 2;
}

at::Tensor linear_reference(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                            Activation activation) {
  return activate(at::linear(x, weight, optional(bias)), activation);
}

}  // namespace oriel::ops
