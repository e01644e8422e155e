#include "image/inflate.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace oriel::image {
namespace {

using Status = InflateStatus;

constexpr int kLongestCode = 15;
constexpr int kFastBits = 10;
constexpr size_t kLiteralCodes = 288;
constexpr size_t kDistanceCodes = 30;
constexpr uint16_t kEndOfBlock = 256;

/// Bits of the input, the lowest of each byte first. Bits beyond the end read as zero until they are consumed.
class BitReader {
 public:
  explicit BitReader(std::span<const uint8_t> input) : input_(input) {}

  /// At least 56 bits, if the input has them.
  void refill() {
    if constexpr (std::endian::native == std::endian::little) {
      if (has_word()) {
        // Eight bytes at once. The bits of a byte that fits in part are read again, to the same place, next time.
        uint64_t word;
        std::memcpy(&word, input_.data() + at_, sizeof word);
        bits_ |= word << count_;
        const int bytes = (63 - count_) / 8;
        at_ += static_cast<size_t>(bytes);
        count_ += bytes * 8;
        return;
      }
    }
    while (count_ <= 56 && at_ < input_.size()) {
      bits_ |= uint64_t{input_[at_++]} << count_;
      count_ += 8;
    }
  }
  [[nodiscard]] bool has_word() const { return input_.size() - at_ >= 8; }
  [[nodiscard]] uint32_t peek(int count) const { return static_cast<uint32_t>(bits_ & ((uint64_t{1} << count) - 1)); }
  /// False if the input has fewer bits left.
  [[nodiscard]] bool skip(int count) {
    if (count > count_) return false;
    bits_ >>= count;
    count_ -= count;
    return true;
  }
  [[nodiscard]] bool read(int count, uint32_t& value) {
    refill();
    value = peek(count);
    return skip(count);
  }
  void skip_to_byte() { static_cast<void>(skip(count_ % 8)); }
  /// The bytes not consumed yet, from a byte boundary.
  [[nodiscard]] std::span<const uint8_t> rest() const { return input_.subspan(at_ - static_cast<size_t>(count_ / 8)); }
  void restart(std::span<const uint8_t> input) { *this = BitReader(input); }

 private:
  std::span<const uint8_t> input_;
  size_t at_ = 0;
  uint64_t bits_ = 0;
  int count_ = 0;
};

/// A canonical Huffman code: a table of the first kFastBits bits, and the classic walk for longer codes.
class HuffmanCode {
 public:
  /// False if the lengths make no prefix code. As in zlib, a code may be incomplete only if it has a single code word
  /// of one bit, or none at all.
  [[nodiscard]] bool build(std::span<const uint8_t> lengths) {
    count_.fill(0);
    fast_.fill(0);
    for (const uint8_t length : lengths) ++count_[length];
    count_[0] = 0;
    int left = 1;
    int longest = 0;
    for (int length = 1; length <= kLongestCode; ++length) {
      left = left * 2 - count_[static_cast<size_t>(length)];
      if (left < 0) return false;
      if (count_[static_cast<size_t>(length)] > 0) longest = length;
    }
    if (left > 0 && longest > 1) return false;

    std::array<uint16_t, kLongestCode + 2> first{};  // position of each length's first symbol
    for (size_t length = 1; length <= kLongestCode; ++length) {
      first[length + 1] = static_cast<uint16_t>(first[length] + count_[length]);
    }
    std::array<uint16_t, kLongestCode + 2> next_code{};
    for (size_t length = 1; length <= kLongestCode; ++length) {
      next_code[length + 1] = static_cast<uint16_t>((next_code[length] + count_[length]) << 1);
    }
    for (size_t symbol = 0; symbol < lengths.size(); ++symbol) {
      const uint8_t length = lengths[symbol];
      if (length == 0) continue;
      symbols_[first[length]++] = static_cast<uint16_t>(symbol);
      fill_fast(next_code[length]++, length, symbol);
    }
    return true;
  }

  /// symbol << 4 | length of the next code word, or 0 if it is longer than kFastBits.
  [[nodiscard]] uint16_t fast(const BitReader& bits) const { return fast_[bits.peek(kFastBits)]; }

  /// A symbol, or a negative number: -1 if the input ended, -2 if the bits are no code word.
  [[nodiscard]] int decode(BitReader& bits) const {
    bits.refill();
    const uint16_t entry = fast(bits);
    if (entry != 0) return bits.skip(entry & 15) ? entry >> 4 : -1;
    int code = 0;
    int first = 0;
    int index = 0;
    for (int length = 1; length <= kLongestCode; ++length) {
      code |= static_cast<int>(bits.peek(1));
      if (!bits.skip(1)) return -1;
      const int count = count_[static_cast<size_t>(length)];
      if (code - first < count) return symbols_[static_cast<size_t>(index + code - first)];
      index += count;
      first = (first + count) * 2;
      code *= 2;
    }
    return -2;
  }

 private:
  void fill_fast(uint32_t code, int length, size_t symbol) {
    if (length > kFastBits) return;
    uint32_t reversed = 0;
    for (int bit = 0; bit < length; ++bit) reversed |= (code >> bit & 1) << (length - 1 - bit);
    const auto entry = static_cast<uint16_t>(symbol << 4 | static_cast<size_t>(length));
    for (uint32_t at = reversed; at < fast_.size(); at += 1U << length) fast_[at] = entry;
  }

  std::array<uint16_t, kLongestCode + 1> count_{};
  std::array<uint16_t, kLiteralCodes> symbols_{};
  std::array<uint16_t, size_t{1} << kFastBits> fast_{};  // symbol << 4 | length, 0 for longer codes
};

/// RFC 1951 3.2.5.
struct ExtraBits {
  uint16_t base;
  uint8_t bits;
};
constexpr std::array<ExtraBits, 29> kLengths{
    {{3, 0},  {4, 0},  {5, 0},  {6, 0},   {7, 0},   {8, 0},   {9, 0},   {10, 0},  {11, 1}, {13, 1},
     {15, 1}, {17, 1}, {19, 2}, {23, 2},  {27, 2},  {31, 2},  {35, 3},  {43, 3},  {51, 3}, {59, 3},
     {67, 4}, {83, 4}, {99, 4}, {115, 4}, {131, 5}, {163, 5}, {195, 5}, {227, 5}, {258, 0}}};
constexpr std::array<ExtraBits, kDistanceCodes> kDistances{
    {{1, 0},     {2, 0},     {3, 0},     {4, 0},      {5, 1},      {7, 1},     {9, 2},     {13, 2},
     {17, 3},    {25, 3},    {33, 4},    {49, 4},     {65, 5},     {97, 5},    {129, 6},   {193, 6},
     {257, 7},   {385, 7},   {513, 8},   {769, 8},    {1025, 9},   {1537, 9},  {2049, 10}, {3073, 10},
     {4097, 11}, {6145, 11}, {8193, 12}, {12289, 12}, {16385, 13}, {24577, 13}}};

class Inflater {
 public:
  Inflater(std::span<const uint8_t> input, std::span<uint8_t> output) : bits_(input), output_(output) {}

  [[nodiscard]] size_t written() const { return written_; }

  /// All blocks, up to and including the last.
  [[nodiscard]] Status run() {
    uint32_t is_last = 0;
    while (is_last == 0) {
      uint32_t type = 0;
      if (!bits_.read(1, is_last) || !bits_.read(2, type)) return Status::input_ended;
      const Status status = type == 0   ? stored_block()
                            : type == 1 ? fixed_block()
                            : type == 2 ? dynamic_block()
                                        : Status::corrupt;
      if (status != Status::finished) return status;
    }
    return Status::finished;
  }

  /// The bytes after the last block.
  [[nodiscard]] std::span<const uint8_t> trailer() {
    bits_.skip_to_byte();
    return bits_.rest();
  }

 private:
  Status stored_block() {
    bits_.skip_to_byte();
    uint32_t length = 0;
    uint32_t complement = 0;
    if (!bits_.read(16, length) || !bits_.read(16, complement)) return Status::input_ended;
    if ((length ^ complement) != 0xFFFF) return Status::corrupt;
    const std::span<const uint8_t> rest = bits_.rest();
    const size_t count = std::min({size_t{length}, rest.size(), output_.size() - written_});
    std::copy_n(rest.begin(), count, output_.begin() + static_cast<std::ptrdiff_t>(written_));
    written_ += count;
    bits_.restart(rest.subspan(count));
    if (count == length) return Status::finished;
    return written_ == output_.size() ? Status::output_full : Status::input_ended;
  }

  Status fixed_block() {
    std::array<uint8_t, kLiteralCodes> lengths{};
    std::fill_n(lengths.begin(), 144, uint8_t{8});
    std::fill_n(lengths.begin() + 144, 112, uint8_t{9});
    std::fill_n(lengths.begin() + 256, 24, uint8_t{7});
    std::fill_n(lengths.begin() + 280, 8, uint8_t{8});
    std::array<uint8_t, 32> distances{};
    distances.fill(5);
    if (!literals_.build(lengths) || !distances_.build(distances)) return Status::corrupt;
    return compressed_block();
  }

  /// RFC 1951 3.2.7.
  Status dynamic_block() {
    constexpr std::array<uint8_t, 19> kOrder{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint32_t literal_count = 0;
    uint32_t distance_count = 0;
    uint32_t length_count = 0;
    if (!bits_.read(5, literal_count) || !bits_.read(5, distance_count) || !bits_.read(4, length_count)) {
      return Status::input_ended;
    }
    literal_count += 257;
    distance_count += 1;
    length_count += 4;
    if (literal_count > 286 || distance_count > kDistanceCodes) return Status::corrupt;

    std::array<uint8_t, 19> code_lengths{};
    for (size_t i = 0; i < length_count; ++i) {
      uint32_t length = 0;
      if (!bits_.read(3, length)) return Status::input_ended;
      code_lengths[kOrder[i]] = static_cast<uint8_t>(length);
    }
    if (!literals_.build(code_lengths)) return Status::corrupt;

    std::array<uint8_t, 286 + kDistanceCodes> lengths{};
    const std::span<uint8_t> all(lengths.data(), literal_count + distance_count);
    const Status status = read_lengths(all);
    if (status != Status::finished) return status;
    if (lengths[kEndOfBlock] == 0) return Status::corrupt;
    if (!literals_.build(all.first(literal_count)) || !distances_.build(all.subspan(literal_count))) {
      return Status::corrupt;
    }
    return compressed_block();
  }

  /// Run-length coded code lengths; literals_ holds the code that they are written in.
  Status read_lengths(std::span<uint8_t> lengths) {
    for (size_t at = 0; at < lengths.size();) {
      const int symbol = literals_.decode(bits_);
      if (symbol < 0) return symbol == -1 ? Status::input_ended : Status::corrupt;
      if (symbol < 16) {
        lengths[at++] = static_cast<uint8_t>(symbol);
        continue;
      }
      if (symbol == 16 && at == 0) return Status::corrupt;
      const int extra_bits = symbol == 16 ? 2 : symbol == 17 ? 3 : 7;
      uint32_t repeat = 0;
      if (!bits_.read(extra_bits, repeat)) return Status::input_ended;
      repeat += symbol == 18 ? 11 : 3;
      if (repeat > lengths.size() - at) return Status::corrupt;
      std::fill_n(lengths.begin() + static_cast<std::ptrdiff_t>(at), repeat,
                  symbol == 16 ? lengths[at - 1] : uint8_t{0});
      at += repeat;
    }
    return Status::finished;
  }

  Status compressed_block() {
    for (;;) {
      literal_run();
      const int symbol = literals_.decode(bits_);
      if (symbol < 0) return symbol == -1 ? Status::input_ended : Status::corrupt;
      if (symbol == kEndOfBlock) return Status::finished;
      if (symbol < kEndOfBlock) {
        if (written_ == output_.size()) return Status::output_full;
        output_[written_++] = static_cast<uint8_t>(symbol);
        continue;
      }
      const Status status = match(static_cast<size_t>(symbol) - 257);
      if (status != Status::finished) return status;
    }
  }

  /// The literals that come next, while there are input and room to spare. They are most of a photograph. The copies
  /// keep the reader in registers: for all the compiler knows, a byte of output could be part of it.
  void literal_run() {
    constexpr std::ptrdiff_t kAtOnce = 4;  // code words of at most kFastBits, from one refill of at least 56 bits
    BitReader bits = bits_;
    uint8_t* out = output_.data() + written_;
    const uint8_t* const end = output_.data() + output_.size();
    bool goes_on = true;
    while (goes_on && end - out >= kAtOnce && bits.has_word()) {
      bits.refill();
      for (std::ptrdiff_t i = 0; i < kAtOnce && goes_on; ++i) {
        const uint16_t entry = literals_.fast(bits);
        goes_on = entry != 0 && entry >> 4 < kEndOfBlock && bits.skip(entry & 15);
        if (goes_on) *out++ = static_cast<uint8_t>(entry >> 4);
      }
    }
    bits_ = bits;
    written_ = static_cast<size_t>(out - output_.data());
  }

  Status match(size_t length_code) {
    if (length_code >= kLengths.size()) return Status::corrupt;
    uint32_t extra = 0;
    if (!bits_.read(kLengths[length_code].bits, extra)) return Status::input_ended;
    const size_t length = kLengths[length_code].base + extra;

    const int symbol = distances_.decode(bits_);
    if (symbol < 0) return symbol == -1 ? Status::input_ended : Status::corrupt;
    if (static_cast<size_t>(symbol) >= kDistances.size()) return Status::corrupt;
    const ExtraBits code = kDistances[static_cast<size_t>(symbol)];
    if (!bits_.read(code.bits, extra)) return Status::input_ended;
    const size_t distance = code.base + extra;
    if (distance > written_) return Status::corrupt;

    const size_t count = std::min(length, output_.size() - written_);
    uint8_t* to = output_.data() + written_;
    const uint8_t* from = to - distance;
    if (distance >= count) {
      std::memcpy(to, from, count);
    } else {
      for (size_t i = 0; i < count; ++i) to[i] = from[i];  // the source overlaps what is being written
    }
    written_ += count;
    return count == length ? Status::finished : Status::output_full;
  }

  BitReader bits_;
  std::span<uint8_t> output_;
  size_t written_ = 0;
  HuffmanCode literals_;
  HuffmanCode distances_;
};

uint32_t adler32(std::span<const uint8_t> bytes) {
  constexpr uint32_t kModulus = 65'521;
  constexpr size_t kChunk = 5'552;  // the longest run whose sums fit in 32 bits
  uint32_t low = 1;
  uint32_t high = 0;
  while (!bytes.empty()) {
    const size_t count = std::min(bytes.size(), kChunk);
    for (const uint8_t byte : bytes.first(count)) {
      low += byte;
      high += low;
    }
    low %= kModulus;
    high %= kModulus;
    bytes = bytes.subspan(count);
  }
  return high << 16 | low;
}

}  // namespace

InflateResult inflate_zlib(std::span<const uint8_t> input, std::span<uint8_t> output) {
  if (input.size() < 2) return {Status::input_ended, 0};
  const bool is_deflate = (input[0] & 15) == 8 && input[0] >> 4 <= 7;
  const bool has_dictionary = (input[1] & 32) != 0;
  if (!is_deflate || has_dictionary || (input[0] * 256 + input[1]) % 31 != 0) return {Status::corrupt, 0};

  Inflater inflater(input.subspan(2), output);
  const Status status = inflater.run();
  if (status != Status::finished) return {status, inflater.written()};
  const std::span<const uint8_t> trailer = inflater.trailer();
  if (trailer.size() >= 4) {
    const uint32_t expected =
        uint32_t{trailer[0]} << 24 | uint32_t{trailer[1]} << 16 | uint32_t{trailer[2]} << 8 | uint32_t{trailer[3]};
    if (adler32(output.first(inflater.written())) != expected) return {Status::corrupt, inflater.written()};
  }
  return {Status::finished, inflater.written()};
}

}  // namespace oriel::image
