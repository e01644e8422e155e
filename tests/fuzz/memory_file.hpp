#pragma once
// An input as a file that can be opened by name but never touches a disk. Its mapping is replaced by an allocation of
// exactly its size (memory_file.cpp wraps mmap at link time): AddressSanitizer does not see behind the end of a page.
#include <filesystem>

#include "fuzz/fuzz.hpp"

namespace oriel::fuzz {

class MemoryFile {
 public:
  MemoryFile();
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  /// Replaces the content. What was mapped before must be gone.
  void write(Bytes content);
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  int descriptor_;
  std::filesystem::path path_;
};

/// A safetensors file begins with the length of its header, which a random change breaks. Mutates, then mostly writes
/// the length that fits the text.
size_t mutate_safetensors(uint8_t* data, size_t size, size_t max_size, unsigned int seed);

}  // namespace oriel::fuzz
