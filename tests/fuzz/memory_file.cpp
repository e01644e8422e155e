#include "fuzz/memory_file.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <set>

namespace {

std::set<void*>& allocations() {
  static std::set<void*> all;
  return all;
}

}  // namespace

// NOLINTBEGIN(bugprone-reserved-identifier): the linker's names for what --wrap replaces.
extern "C" {
void* __real_mmap(void* address, size_t length, int protection, int flags, int file, off_t offset);
int __real_munmap(void* address, size_t length);
int __real_madvise(void* address, size_t length, int advice);
void* __wrap_mmap(void* address, size_t length, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void* address, size_t length);
int __wrap_madvise(void* address, size_t length, int advice);

void* __wrap_mmap(void* address, size_t length, int protection, int flags, int file, off_t offset) {
  if (file < 0 || protection != PROT_READ) return __real_mmap(address, length, protection, flags, file, offset);
  void* memory = std::malloc(length);
  oriel::fuzz::require(::pread(file, memory, length, offset) == static_cast<ssize_t>(length), "a file can be read");
  allocations().insert(memory);
  return memory;
}

int __wrap_munmap(void* address, size_t length) {
  if (allocations().erase(address) == 0) return __real_munmap(address, length);
  std::free(address);
  return 0;
}

int __wrap_madvise(void* address, size_t length, int advice) {
  // Pages that a mapping would read from its file again are lost in an allocation.
  return advice == MADV_DONTNEED ? 0 : __real_madvise(address, length, advice);
}
}
// NOLINTEND(bugprone-reserved-identifier)

namespace oriel::fuzz {

MemoryFile::MemoryFile() : descriptor_(::memfd_create("fuzz", MFD_CLOEXEC)) {
  require(descriptor_ >= 0, "a file in memory can be made");
  path_ = "/proc/self/fd/" + std::to_string(descriptor_);
}

MemoryFile::~MemoryFile() { ::close(descriptor_); }

void MemoryFile::write(Bytes content) {
  const auto size = static_cast<ssize_t>(content.size());
  require(::ftruncate(descriptor_, size) == 0, "a file in memory can be resized");
  require(::pwrite(descriptor_, content.data(), content.size(), 0) == size, "a file in memory can be written");
}

size_t mutate_safetensors(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  constexpr size_t length_bytes = 8;
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 16 == 0 || size < length_bytes) return size;
  const std::string_view text = as_text({data, size});
  const size_t end = text.rfind('}');
  if (end == std::string_view::npos || end < length_bytes) return size;
  const size_t length = end + 1 - length_bytes;
  for (size_t i = 0; i < length_bytes; ++i) data[i] = static_cast<uint8_t>(length >> (8 * i));
  return size;
}

}  // namespace oriel::fuzz
