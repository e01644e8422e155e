#pragma once
// zlib streams, as PNG carries them, by zlib. The output is a buffer of the size that the picture needs, so
// a stream cannot make us allocate more, however far it would unfold.
#include <cstddef>
#include <cstdint>
#include <span>

namespace oriel::image {

enum class InflateStatus {
  finished,     ///< the stream ended, and its checksum was right
  output_full,  ///< the output is filled and the stream goes on
  input_ended,  ///< the input ends within the stream, be it in its checksum
  corrupt,      ///< the input is no zlib stream, or its checksum is wrong
};

struct InflateResult {
  InflateStatus status;
  size_t written;  ///< bytes of output that are valid
};

/// The most that deflate can unfold: 258 bytes from two bits.
inline constexpr uint64_t kLargestInflation = 1032;

[[nodiscard]] InflateResult inflate_zlib(std::span<const uint8_t> input, std::span<uint8_t> output);

}  // namespace oriel::image
