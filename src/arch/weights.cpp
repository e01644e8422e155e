#include "arch/weights.hpp"

#include <ATen/TensorOperators.h>
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

const CheckpointFiles::Entry* WeightReader::find(const std::string& name, const std::vector<int64_t>& shape) {
  const auto place = by_name_.find(name);
  if (place == by_name_.end()) {
    missing_.push_back(name);
    return nullptr;
  }
  taken_[name] = true;
  const CheckpointFiles::Entry& entry = place->second;
  if (entry.tensor->shape != shape) {
    mismatched_.push_back(fmt::format("{}: expected {}, got {}", entry.tensor->name, shape_to_string(shape),
                                      shape_to_string(entry.tensor->shape)));
    return nullptr;
  }
  if (!float_dtype(entry.tensor->dtype)) {
    mismatched_.push_back(
        fmt::format("{}: expected dtype F32, BF16 or F16, got {}", entry.tensor->name, entry.tensor->dtype));
    return nullptr;
  }
  found_.push_back(*entry.tensor);
  bytes_found_ += entry.tensor->end - entry.tensor->begin;
  elements_found_ += product(shape);
  return options_.dry || !missing_.empty() || !mismatched_.empty() ? nullptr : &entry;
}

at::Tensor WeightReader::tensor(const std::string& name, std::vector<int64_t> shape) {
  const CheckpointFiles::Entry* entry = find(name, shape);
  if (entry == nullptr) return {};
  at::Tensor result = at::empty(shape, at::dtype(options_.dtype).device(options_.device));
  copy_to(result, *entry);
  finish_reading(*entry);
  return result;
}

/// The tensor's bytes in the mapping, where they can be looked at in place.
std::optional<at::Tensor> WeightReader::mapped(const CheckpointFiles::Entry& entry) const {
  const auto bytes = entry.file->bytes(*entry.tensor);
  const auto dtype = *float_dtype(entry.tensor->dtype);
  if (reinterpret_cast<uintptr_t>(bytes.data()) % c10::elementSize(dtype) != 0) return std::nullopt;
  return at::from_blob(const_cast<std::byte*>(bytes.data()), entry.tensor->shape, at::dtype(dtype));  // read only
}

void WeightReader::copy_to(const at::Tensor& destination, const CheckpointFiles::Entry& entry) const {
  std::optional<at::Tensor> raw = mapped(entry);
  if (!raw) {
    raw = at::empty(entry.tensor->shape, at::dtype(*float_dtype(entry.tensor->dtype)));
    const auto bytes = entry.file->bytes(*entry.tensor);
    if (!bytes.empty()) std::memcpy(raw->mutable_data_ptr(), bytes.data(), bytes.size());
  }
  destination.copy_(raw->view(destination.sizes()));
}

void WeightReader::finish_reading(const CheckpointFiles::Entry& entry) {
  hasher_.update(entry.tensor->dtype)
      .update(shape_to_string(entry.tensor->shape))
      .update(entry.file->bytes(*entry.tensor));
  entry.file->release(*entry.tensor);
  bytes_read_ += entry.tensor->end - entry.tensor->begin;
  if (options_.progress) options_.progress(bytes_read_, bytes_total_);
}

ops::Linear WeightReader::linear(const std::string& name, int64_t out, int64_t in, bool bias) {
  return linear(name, std::vector{out, in}, bias);
}

ops::Linear WeightReader::linear(const std::string& name, std::vector<int64_t> stored_shape, bool bias) {
  return joined_linear({name}, {std::move(stored_shape)}, bias);
}

ops::Linear WeightReader::linear(const std::vector<std::string>& names, int64_t out_each, int64_t in, bool bias) {
  return linear(names, std::vector(names.size(), out_each), in, bias);
}

ops::Linear WeightReader::linear(const std::vector<std::string>& names, const std::vector<int64_t>& outs, int64_t in,
                                 bool bias) {
  std::vector<std::vector<int64_t>> shapes;
  for (const int64_t out : outs) shapes.push_back({out, in});
  return joined_linear(names, shapes, bias);
}

ops::Linear WeightReader::joined_linear(const std::vector<std::string>& names,
                                        const std::vector<std::vector<int64_t>>& stored_shapes, bool bias) {
  const int64_t in = product(stored_shapes.front()) / stored_shapes.front().front();
  int64_t out = 0;
  std::vector<const CheckpointFiles::Entry*> weights;
  std::vector<const CheckpointFiles::Entry*> offsets;
  bool complete = true;
  for (size_t i = 0; i < names.size(); ++i) {
    const int64_t part = stored_shapes[i].front();
    out += part;
    weights.push_back(find(names[i] + ".weight", stored_shapes[i]));
    complete = complete && weights.back() != nullptr;
    if (!bias) continue;
    offsets.push_back(find(names[i] + ".bias", {part}));
    complete = complete && offsets.back() != nullptr;
  }
  if (!complete) return {};

  const at::Tensor weight = weight_matrix(weights, out, in);
  const at::Tensor offset = bias ? at::empty({out}, at::dtype(options_.dtype).device(options_.device)) : at::Tensor();
  int64_t begin = 0;
  for (const CheckpointFiles::Entry* part : offsets) {
    copy_to(offset.narrow(0, begin, part->tensor->shape.front()), *part);
    begin += part->tensor->shape.front();
  }
  ops::Linear result(weight, offset);
  for (size_t i = 0; i < names.size(); ++i) {
    finish_reading(*weights[i]);
    if (bias) finish_reading(*offsets[i]);
  }
  return result;
}

/// Weights one below the other, [out, in]. Where the layer packs its own copy, what it is packed from is the
/// file itself, or else room that all layers share: a fresh block for each would leave holes among those that stay.
at::Tensor WeightReader::weight_matrix(const std::vector<const CheckpointFiles::Entry*>& parts, int64_t out,
                                       int64_t in) {
  const bool is_copied = ops::Linear::packs(options_.dtype, options_.device);
  if (is_copied && parts.size() == 1 && float_dtype(parts[0]->tensor->dtype) == options_.dtype)
    if (const auto in_place = mapped(*parts[0])) return in_place->view({out, in});
  const at::Tensor matrix =
      is_copied ? shared_room({out, in}) : at::empty({out, in}, at::dtype(options_.dtype).device(options_.device));
  int64_t begin = 0;
  for (const CheckpointFiles::Entry* part : parts) {
    const int64_t rows = part->tensor->shape.front();
    copy_to(matrix.narrow(0, begin, rows), *part);
    begin += rows;
  }
  return matrix;
}

at::Tensor WeightReader::shared_room(const std::vector<int64_t>& shape) {
  const auto bytes = product(shape) * static_cast<int64_t>(c10::elementSize(options_.dtype));
  if (!room_.defined() || room_.numel() < bytes) {
    room_.reset();
    room_ = at::empty({bytes}, at::dtype(at::kByte));
  }
  return at::from_blob(room_.mutable_data_ptr(), shape, at::dtype(options_.dtype));
}

nn::NormWeights WeightReader::norm(const std::string& name, int64_t width, nn::NormKind kind) {
  nn::NormWeights weights;
  weights.weight = tensor(name + ".weight", {width});
  if (kind == nn::NormKind::layer_norm) weights.bias = tensor(name + ".bias", {width});
  return weights;
}

bool WeightReader::are_equal(const std::string& a, const std::string& b) const {
  const CheckpointFiles::Entry& first = by_name_.at(a);
  const CheckpointFiles::Entry& second = by_name_.at(b);
  if (first.tensor->dtype != second.tensor->dtype || first.tensor->shape != second.tensor->shape) return false;
  const auto bytes = first.file->bytes(*first.tensor);
  const auto others = second.file->bytes(*second.tensor);
  return bytes.size() == others.size() &&
         (bytes.empty() || std::memcmp(bytes.data(), others.data(), bytes.size()) == 0);
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
  throw_error(ErrorCode::malformed_model, "{}: tensors of {} do not fit config.json: {}", where, options_.part,
              message);
}

std::vector<TensorInfo> WeightReader::unused() const {
  std::vector<TensorInfo> result;
  for (const auto& [name, entry] : by_name_)
    if (!taken_.contains(name)) result.push_back(*entry.tensor);
  return result;
}

}  // namespace oriel::arch
