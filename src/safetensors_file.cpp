#include "safetensors_file.hpp"

#include <oriel/safetensors.hpp>
#include <set>
#include <vector>

#include "core/error.hpp"
#include "core/safetensors.hpp"

namespace oriel {

std::string file_dtype(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "F32";
    case DType::bfloat16:
      return "BF16";
    case DType::float16:
      return "F16";
    case DType::int64:
      return "I64";
    case DType::uint8:
      return "U8";
  }
  throw_error(ErrorCode::invalid_argument, "dtype: unknown value {}", static_cast<int>(dtype));
}

void save_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                      const std::map<std::string, std::string>& metadata) {
  std::vector<Tensor> host;  // keeps the bytes alive that `entries` points to
  std::vector<TensorToWrite> entries;
  std::set<std::string> names;
  for (const NamedTensor& named : tensors) {
    if (!named.tensor.defined())
      throw_error(ErrorCode::invalid_argument, "{}: {}: expected a tensor, got an empty one", path.string(),
                  named.name);
    if (!names.insert(named.name).second)
      throw_error(ErrorCode::invalid_argument, "{}: expected different names, got \"{}\" twice", path.string(),
                  named.name);
    host.push_back(named.tensor.to(Device::cpu()));
    const Tensor& tensor = host.back();
    entries.push_back({named.name,
                       file_dtype(tensor.dtype()),
                       tensor.shape(),
                       {static_cast<const std::byte*>(tensor.data()), tensor.size_in_bytes()}});
  }
  write_safetensors(path, entries, metadata);
}

}  // namespace oriel
