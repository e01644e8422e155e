#include "tower/memory_counter.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ORIEL_COUNTS_MEMORY 1
#include <malloc.h>
#endif

namespace oriel {
namespace {

std::atomic<int64_t> held{0};
std::atomic<int64_t> most{0};
std::atomic<size_t> refused{SIZE_MAX};
std::atomic<int64_t> blocks_before_refusal{INT64_MAX};

}  // namespace

#if defined(ORIEL_COUNTS_MEMORY)
bool counts_memory() { return true; }
#else
bool counts_memory() { return false; }
#endif

int64_t bytes_held() { return held.load(); }

MemoryPeak::MemoryPeak() : start_(held.load()) { most.store(start_); }
int64_t MemoryPeak::bytes() const { return most.load() - start_; }
int64_t MemoryPeak::remaining() const { return held.load() - start_; }

LargeBlocksFail::LargeBlocksFail(size_t bytes) { refused.store(bytes); }
LargeBlocksFail::~LargeBlocksFail() { refused.store(SIZE_MAX); }

BlockFails::BlockFails(int64_t number) { blocks_before_refusal.store(number); }
BlockFails::~BlockFails() { blocks_before_refusal.store(INT64_MAX); }
bool BlockFails::happened() const { return blocks_before_refusal.load() < 0; }

}  // namespace oriel

#if defined(ORIEL_COUNTS_MEMORY)

// glibc's own functions under their other names. Sizes are those of the blocks as glibc made them: up to 24 bytes more
// than asked for, or a page for blocks that are mapped one by one.
extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t count, size_t size);
void* __libc_realloc(void* block, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* block);
}

namespace {

void* count_in(void* block) {
  if (block == nullptr) return block;
  const auto bytes = static_cast<int64_t>(malloc_usable_size(block));
  const int64_t now = oriel::held.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  int64_t before = oriel::most.load(std::memory_order_relaxed);
  while (now > before && !oriel::most.compare_exchange_weak(before, now, std::memory_order_relaxed)) {
  }
  return block;
}

bool refuses(size_t size) {
  if (size >= oriel::refused.load(std::memory_order_relaxed)) return true;
  if (oriel::blocks_before_refusal.load(std::memory_order_relaxed) == INT64_MAX) return false;
  return oriel::blocks_before_refusal.fetch_sub(1, std::memory_order_relaxed) == 0;
}

void count_out(void* block) {
  if (block != nullptr)
    oriel::held.fetch_sub(static_cast<int64_t>(malloc_usable_size(block)), std::memory_order_relaxed);
}

}  // namespace

extern "C" {

void* malloc(size_t size) noexcept { return refuses(size) ? nullptr : count_in(__libc_malloc(size)); }
void* calloc(size_t count, size_t size) noexcept { return count_in(__libc_calloc(count, size)); }
void* memalign(size_t alignment, size_t size) noexcept { return count_in(__libc_memalign(alignment, size)); }
void* aligned_alloc(size_t alignment, size_t size) noexcept { return count_in(__libc_memalign(alignment, size)); }

int posix_memalign(void** block, size_t alignment, size_t size) noexcept {
  if (alignment % sizeof(void*) != 0 || (alignment & (alignment - 1)) != 0 || alignment == 0) return EINVAL;
  void* made = refuses(size) ? nullptr : count_in(__libc_memalign(alignment, size));
  if (made == nullptr) return ENOMEM;
  *block = made;
  return 0;
}

void* realloc(void* block, size_t size) noexcept {
  // Counted out first: a block must not be asked for its size once it may be gone.
  const auto before = block == nullptr ? 0 : static_cast<int64_t>(malloc_usable_size(block));
  void* moved = __libc_realloc(block, size);
  if (moved == nullptr && size != 0) return nullptr;
  oriel::held.fetch_sub(before, std::memory_order_relaxed);
  return count_in(moved);
}

void free(void* block) noexcept {
  count_out(block);
  __libc_free(block);
}

}  // extern "C"

#endif
