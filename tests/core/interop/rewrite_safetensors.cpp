// Reads a safetensors file and writes its tensors and metadata to another: the C++ side of safetensors_interop.py.
#include <cstdio>
#include <vector>

#include "core/safetensors.hpp"
#include "oriel/error.hpp"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s IN OUT\n", argv[0]);
    return 2;
  }
  try {
    const auto file = oriel::SafetensorsFile::open(argv[1]);
    std::vector<oriel::TensorToWrite> tensors;
    for (const oriel::TensorInfo& tensor : file.tensors()) {
      tensors.push_back({tensor.name, tensor.dtype, tensor.shape, file.bytes(tensor)});
    }
    oriel::write_safetensors(argv[2], tensors, file.metadata());
    return 0;
  } catch (const oriel::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
