// The header of a safetensors file, and every byte that it promises. The input is the file.
#include "core/safetensors.hpp"

#include "fuzz/memory_file.hpp"

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  return oriel::fuzz::mutate_safetensors(data, size, max_size, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace oriel;
  static fuzz::MemoryFile memory;
  memory.write({data, size});
  fuzz::succeeds([&] {
    const SafetensorsFile file = SafetensorsFile::open(memory.path());
    int64_t position = 8 + static_cast<int64_t>(file.header().size());
    for (const TensorInfo& tensor : file.tensors()) {
      fuzz::require(tensor.begin == position, "tensors follow one another without gap");
      position = tensor.end;
      fuzz::require(file.find(tensor.name) == &tensor, "a name finds its tensor");
      const auto bytes = file.bytes(tensor);
      fuzz::require(bytes.size() == static_cast<size_t>(tensor.end - tensor.begin), "all bytes are there");
      uint8_t sum = 0;
      for (const std::byte byte : bytes) sum = static_cast<uint8_t>(sum + std::to_integer<unsigned>(byte));
      volatile uint8_t kept = sum;  // so that the reads are not left out
      (void)kept;
      file.release(tensor);
    }
    fuzz::require(position == static_cast<int64_t>(size), "tensors reach to the end of the file");
  });
  return 0;
}
