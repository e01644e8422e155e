#pragma once
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include <oriel/export.hpp>
#include <oriel/tensor.hpp>

namespace oriel {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};

/// Writes tensors as a safetensors file, which transformers, torch and numpy read. Tensors on a GPU are copied to the
/// host first. The file appears whole or not at all. Throws file_error, and invalid_argument for an empty tensor, two
/// tensors of one name, the name "__metadata__" and text that is not UTF-8.
ORIEL_API void save_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                                const std::map<std::string, std::string>& metadata = {});

}  // namespace oriel
