#pragma once
// Taking tensors out of a checkpoint by the names an architecture uses, checking all of them before complaining once.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/checkpoint.hpp"
#include "core/hash.hpp"
#include "core/safetensors.hpp"
#include "nn/vit.hpp"
#include "ops/linear.hpp"

namespace oriel::arch {

/// How the names found in the wild become the ones that an architecture asks for (spec/weights.md 1).
struct NameRules {
  /// Applied in order: a name that starts with `first` gets `second` in its place.
  std::vector<std::pair<std::string, std::string>> prefixes;
  /// Beginnings of the (renamed) names that belong to the tower; everything else in the files is left alone.
  std::vector<std::string> wanted;

  [[nodiscard]] std::string canonical(std::string_view name) const;
  [[nodiscard]] bool is_wanted(std::string_view name) const;  ///< of a name as in the file
};

/// Reads the tensors of one tower. Missing and mismatched tensors are collected; `finish` throws if there are any. In
/// dry mode nothing is read and every returned tensor is undefined. Beside what it returns, it holds at most one
/// layer's weights: pages of the file are given back tensor by tensor.
class WeightReader {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;
    at::Device device = at::kCPU;
    bool dry = false;
    std::string part = "the vision tower";  ///< whose tensors these are, for messages
    std::function<void(int64_t bytes_done, int64_t bytes_total)> progress = {};  ///< may throw to stop
  };
  WeightReader(const CheckpointFiles& files, const NameRules& rules, Options options);

  /// A tensor of exactly this shape, converted to the wanted dtype and device.
  [[nodiscard]] at::Tensor tensor(const std::string& name, std::vector<int64_t> shape);
  /// name.weight [out, in], and name.bias [out] if `bias`. Weights of convolutions are viewed as [out, in].
  [[nodiscard]] ops::Linear linear(const std::string& name, int64_t out, int64_t in, bool bias);
  /// The same with the weight stored in another shape of out * in values, such as [out, 3, P, P].
  [[nodiscard]] ops::Linear linear(const std::string& name, std::vector<int64_t> stored_shape, bool bias);
  /// Several layers of equal input side by side: outputs one after the other.
  [[nodiscard]] ops::Linear linear(const std::vector<std::string>& names, int64_t out_each, int64_t in, bool bias);
  /// The same for layers of different outputs.
  [[nodiscard]] ops::Linear linear(const std::vector<std::string>& names, const std::vector<int64_t>& outs, int64_t in,
                                   bool bias);
  /// name.weight [width], and name.bias for layer_norm.
  [[nodiscard]] nn::NormWeights norm(const std::string& name, int64_t width, nn::NormKind kind);

  [[nodiscard]] bool has(const std::string& name) const { return by_name_.contains(name); }
  /// Whether two tensors that are there have the same dtype, shape and bytes. Counts neither as used.
  [[nodiscard]] bool are_equal(const std::string& a, const std::string& b) const;
  /// Counts a tensor as used that nothing needs.
  void skip(const std::string& name) { taken_[name] = true; }

  /// Complains of every tensor whose name starts with `prefix`: blocks beyond the configured depth.
  void expect_nothing_under(const std::string& prefix, const std::string& reason);

  /// Throws malformed_model listing every missing and every mismatched tensor.
  void finish() const;

  [[nodiscard]] const std::vector<TensorInfo>& found() const { return found_; }
  [[nodiscard]] const std::vector<std::string>& missing() const { return missing_; }
  [[nodiscard]] const std::vector<std::string>& mismatched() const { return mismatched_; }
  [[nodiscard]] std::vector<TensorInfo> unused() const;
  /// Of everything that was read: names, shapes and bytes.
  [[nodiscard]] ContentHash fingerprint() const { return hasher_.digest(); }
  [[nodiscard]] int64_t bytes_found() const { return bytes_found_; }
  [[nodiscard]] int64_t elements_found() const { return elements_found_; }

 private:
  [[nodiscard]] const CheckpointFiles::Entry* find(const std::string& name, const std::vector<int64_t>& shape);
  [[nodiscard]] std::optional<at::Tensor> mapped(const CheckpointFiles::Entry& entry) const;
  void copy_to(const at::Tensor& destination, const CheckpointFiles::Entry& entry) const;
  void finish_reading(const CheckpointFiles::Entry& entry);
  /// Shapes as stored; the first side is a layer's outputs, the product of the others its inputs.
  [[nodiscard]] ops::Linear joined_linear(const std::vector<std::string>& names,
                                          const std::vector<std::vector<int64_t>>& stored_shapes, bool bias);
  [[nodiscard]] at::Tensor weight_matrix(const std::vector<const CheckpointFiles::Entry*>& parts, int64_t out,
                                         int64_t in);
  [[nodiscard]] at::Tensor shared_room(const std::vector<int64_t>& shape);

  CheckpointFiles files_;
  Options options_;
  std::map<std::string, CheckpointFiles::Entry, std::less<>> by_name_;  ///< canonical name -> tensor
  std::map<std::string, bool, std::less<>> taken_;
  std::vector<TensorInfo> found_;
  std::vector<std::string> missing_;
  std::vector<std::string> mismatched_;
  Hasher hasher_;
  at::Tensor room_;  ///< bytes, where weights lie while a layer packs them
  int64_t bytes_total_ = 0;
  int64_t bytes_found_ = 0;
  int64_t bytes_read_ = 0;
  int64_t elements_found_ = 0;
};

}  // namespace oriel::arch
