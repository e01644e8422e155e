#pragma once
// Hash tables for the two look-ups that tokenizing is made of: a pair of ids, and a string of bytes.
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace oriel::tokenizer {

/// 64-bit keys to 64-bit values, in one array with linear probing. The key ~0 is not used.
class FlatMap {
 public:
  /// Makes room for `count` keys in all.
  void reserve(size_t count) {
    while (2 * (count + 1) > slots_.size()) grow();
  }
  void insert_or_assign(uint64_t key, uint64_t value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[place_of(key)];
    if (slot.key == empty_key) ++size_;
    slot = {key, value};
  }
  /// nullptr if there is none.
  [[nodiscard]] const uint64_t* find(uint64_t key) const {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[place_of(key)];
    return slot.key == empty_key ? nullptr : &slot.value;
  }
  [[nodiscard]] size_t size() const { return size_; }

 private:
  static constexpr uint64_t empty_key = ~uint64_t{0};
  struct Slot {
    uint64_t key = empty_key;
    uint64_t value = 0;
  };
  [[nodiscard]] size_t place_of(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    // The high half of the product depends on all bits of the key.
    size_t place = static_cast<size_t>((key * 0x9e3779b97f4a7c15ULL) >> 32) & mask;
    while (slots_[place].key != empty_key && slots_[place].key != key) place = (place + 1) & mask;
    return place;
  }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 16 : 2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.key != empty_key) slots_[place_of(slot.key)] = slot;
  }

  std::vector<Slot> slots_;
  size_t size_ = 0;
};

/// Strings to 32-bit values. Entries are numbered in the order in which they came; clear keeps the memory.
class StringTable {
 public:
  struct Entry {
    size_t offset;
    uint32_t length;
    uint32_t value;
  };

  /// The value of `key`, or nullptr.
  [[nodiscard]] const uint32_t* find(std::string_view key) const { return find(key, hash_of(key)); }
  [[nodiscard]] const uint32_t* find(std::string_view key, uint32_t hash) const {
    if (slots_.empty()) return nullptr;
    const Slot& slot = slots_[place_of(key, hash)];
    return slot.entry == 0 ? nullptr : &entries_[slot.entry - 1].value;
  }
  /// Makes room for `count` keys in all.
  void reserve(size_t count) {
    while (2 * (count + 1) > slots_.size()) grow();
    entries_.reserve(count);
  }
  void insert_or_assign(std::string_view key, uint32_t value) {
    if (2 * (entries_.size() + 1) > slots_.size()) grow();
    const uint32_t hash = hash_of(key);
    Slot& slot = slots_[place_of(key, hash)];
    if (slot.entry != 0) {
      entries_[slot.entry - 1].value = value;
      return;
    }
    entries_.push_back({bytes_.size(), static_cast<uint32_t>(key.size()), value});
    bytes_ += key;
    slot = {hash, static_cast<uint32_t>(entries_.size())};
  }
  void clear() {
    slots_.assign(slots_.size(), {});
    entries_.clear();
    bytes_.clear();
  }
  [[nodiscard]] size_t size() const { return entries_.size(); }
  [[nodiscard]] const std::vector<Entry>& entries() const { return entries_; }
  [[nodiscard]] std::string_view key(const Entry& entry) const {
    return std::string_view(bytes_).substr(entry.offset, entry.length);
  }
  [[nodiscard]] static uint32_t hash_of(std::string_view key) {
    return static_cast<uint32_t>(std::hash<std::string_view>{}(key));
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    uint32_t entry = 0;  // counted from 1
  };
  [[nodiscard]] size_t place_of(std::string_view wanted, uint32_t hash) const {
    const size_t mask = slots_.size() - 1;
    size_t place = hash & mask;
    while (slots_[place].entry != 0 && (slots_[place].hash != hash || key(entries_[slots_[place].entry - 1]) != wanted))
      place = (place + 1) & mask;
    return place;
  }
  void grow() {
    std::vector<Slot> old(slots_.empty() ? 16 : 2 * slots_.size());
    old.swap(slots_);
    const size_t mask = slots_.size() - 1;
    for (const Slot& slot : old) {
      if (slot.entry == 0) continue;
      size_t place = slot.hash & mask;
      while (slots_[place].entry != 0) place = (place + 1) & mask;
      slots_[place] = slot;
    }
  }

  std::vector<Slot> slots_;
  std::vector<Entry> entries_;
  std::string bytes_;
};

}  // namespace oriel::tokenizer
