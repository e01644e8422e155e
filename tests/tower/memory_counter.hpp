#pragma once
// How much memory the test program holds, counted where it is asked for: malloc and its kin are replaced, so that
// tensors, scratch of libtorch's libraries and plain vectors all count, and noise of resident pages does not.
#include <cstddef>
#include <cstdint>

namespace oriel {

/// Whether allocations are counted here: not beside a sanitizer, which replaces malloc itself, and with glibc only.
[[nodiscard]] bool counts_memory();

/// Bytes held now.
[[nodiscard]] int64_t bytes_held();

/// The most bytes held at once since this was made, above those held then. One at a time.
class MemoryPeak {
 public:
  MemoryPeak();
  [[nodiscard]] int64_t bytes() const;
  /// Bytes that are held more than at the start.
  [[nodiscard]] int64_t remaining() const;

 private:
  int64_t start_;
};

/// While it lives, blocks of `bytes` or more are not to be had, where memory is counted. One at a time.
class LargeBlocksFail {
 public:
  explicit LargeBlocksFail(size_t bytes);
  ~LargeBlocksFail();
  LargeBlocksFail(const LargeBlocksFail&) = delete;
  LargeBlocksFail& operator=(const LargeBlocksFail&) = delete;
};

/// While it lives, the block number `number` (from 0) that is asked for from now on is not to be
/// had, and all others are. One at a time.
class BlockFails {
 public:
  explicit BlockFails(int64_t number);
  ~BlockFails();
  BlockFails(const BlockFails&) = delete;
  BlockFails& operator=(const BlockFails&) = delete;
  /// Whether so many blocks were asked for.
  [[nodiscard]] bool happened() const;
};

}  // namespace oriel
