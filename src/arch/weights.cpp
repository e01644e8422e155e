#include "arch/weights.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "core/error.hpp"

namespace oriel::arch {
namespace {

std::optional<at::ScalarType> float_dtype(std::string_view dtype) {
  if (dtype == "F32") return at::kFloat;
  if (dtype == "BF16") return at::kBFloat16;
  if (dtype == "F16") return at::kHalf;
  return std::nullopt;
}

int64_t product(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

}  // namespace

std::string NameRules::canonical(std::string_view name) const {
  std::string result(name);
  for (const auto& [from, to] : prefixes)
    if (result.starts_with(from)) result.replace(0, from.size(), to);
  return result;
}

bool NameRules::is_wanted(std::string_view name) const {
  const std::string renamed = canonical(name);
  return std::any_of(wanted.begin(), wanted.end(), [&](const std::string& w) { return renamed.starts_with(w); });
}

WeightReader::WeightReader(const CheckpointFiles& files, const NameRules& rules, Options options)
    : files_(files), options_(std::move(options)) {
  for (const auto& [name, entry] : files_.tensors()) {
    const auto [place, is_new] = by_name_.emplace(rules.canonical(name), entry);
    if (!is_new)
      throw_error(ErrorCode::malformed_model, "{}: {} and {} are two names of one tensor; expected one of them",
                  entry.file->path().string(), place->second.tensor->name, name);
    bytes_total_ += entry.tensor->end - entry.tensor->begin;
  }
}

at::Tensor WeightReader::tensor(const std::string& name, std::vector<int64_t> shape) {
  const auto place = by_name_.find(name);
  if (place == by_name_.end()) {
    missing_.push_back(name);
    return {};
  }
  taken_[name] = true;
  const CheckpointFiles::Entry& entry = place->second;
  if (entry.tensor->shape != shape) {
    mismatched_.push_back(fmt::format("{}: expected {}, got {}", entry.tensor->name, shape_to_string(shape),
                                      shape_to_string(entry.tensor->shape)));
    return {};
  }
  if (!float_dtype(entry.tensor->dtype)) {
    mismatched_.push_back(
        fmt::format("{}: expected dtype F32, BF16 or F16, got {}", entry.tensor->name, entry.tensor->dtype));
    return {};
  }
  found_.push_back(*entry.tensor);
  bytes_found_ += entry.tensor->end - entry.tensor->begin;
  elements_found_ += product(shape);
  if (options_.dry || !missing_.empty() || !mismatched_.empty()) return {};
  return read(entry);
}

at::Tensor WeightReader::read(const CheckpointFiles::Entry& entry) {
  const auto bytes = entry.file->bytes(*entry.tensor);
  const auto dtype = *float_dtype(entry.tensor->dtype);
  hasher_.update(entry.tensor->dtype).update(shape_to_string(entry.tensor->shape)).update(bytes);

  // The mapping is read-only and may be unaligned; the copy is aligned, converted and on the device.
  at::Tensor raw;
  const void* data = bytes.data();
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(dtype) != 0) {
    raw = at::empty(entry.tensor->shape, at::dtype(dtype));
    std::memcpy(raw.data_ptr(), data, bytes.size());
  } else {
    raw = at::from_blob(const_cast<void*>(data), entry.tensor->shape, at::dtype(dtype));
  }
  at::Tensor copy = raw.to(options_.device, options_.dtype, /*non_blocking=*/false, /*copy=*/true);
  entry.file->release(*entry.tensor);
  if (options_.progress) options_.progress(bytes_found_, bytes_total_);
  return copy;
}

ops::Linear WeightReader::linear(const std::string& name, int64_t out, int64_t in, bool bias) {
  return linear(name, std::vector{out, in}, bias);
}

ops::Linear WeightReader::linear(const std::string& name, std::vector<int64_t> stored_shape, bool bias) {
  const int64_t out = stored_shape.front();
  const int64_t in = product(stored_shape) / out;
  const at::Tensor weight = tensor(name + ".weight", std::move(stored_shape));
  const at::Tensor offsets = bias ? tensor(name + ".bias", {out}) : at::Tensor();
  if (!weight.defined() || (bias && !offsets.defined())) return {};
  return ops::Linear(weight.reshape({out, in}), offsets);
}

ops::Linear WeightReader::linear(const std::vector<std::string>& names, int64_t out_each, int64_t in, bool bias) {
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> offsets;
  bool complete = true;
  for (const std::string& name : names) {
    weights.push_back(tensor(name + ".weight", {out_each, in}));
    complete = complete && weights.back().defined();
    if (!bias) continue;
    offsets.push_back(tensor(name + ".bias", {out_each}));
    complete = complete && offsets.back().defined();
  }
  if (!complete) return {};
  return ops::Linear(at::cat(weights, 0), bias ? at::cat(offsets, 0) : at::Tensor());
}

nn::NormWeights WeightReader::norm(const std::string& name, int64_t width, nn::NormKind kind) {
  nn::NormWeights weights;
  weights.weight = tensor(name + ".weight", {width});
  if (kind == nn::NormKind::layer_norm) weights.bias = tensor(name + ".bias", {width});
  return weights;
}

void WeightReader::expect_nothing_under(const std::string& prefix, const std::string& reason) {
  const auto place = by_name_.lower_bound(prefix);
  if (place != by_name_.end() && place->first.starts_with(prefix))
    mismatched_.push_back(fmt::format("{}: {}", place->second.tensor->name, reason));
}

void WeightReader::finish() const {
  if (missing_.empty() && mismatched_.empty()) return;
  std::string message;
  if (!missing_.empty()) message = fmt::format("{} missing: {}", missing_.size(), fmt::join(missing_, ", "));
  if (!mismatched_.empty())
    message +=
        fmt::format("{}{} unfit: {}", message.empty() ? "" : "; ", mismatched_.size(), fmt::join(mismatched_, ", "));
  const std::string where =
      files_.files().empty() ? std::string("weights") : files_.files().front().path().parent_path().string();
  throw_error(ErrorCode::malformed_model, "{}: tensors of the vision tower do not fit config.json: {}", where, message);
}

std::vector<TensorInfo> WeightReader::unused() const {
  std::vector<TensorInfo> result;
  for (const auto& [name, entry] : by_name_)
    if (!taken_.contains(name)) result.push_back(*entry.tensor);
  return result;
}

}  // namespace oriel::arch
