// PNG carries checksums that a random change breaks at once. The mutator repairs them, and changes pixel data where it
// is not compressed.
#include <zlib.h>

#include <vector>

#include "fuzz/targets/decoder.hpp"

namespace {

using oriel::fuzz::Bytes;
using Buffer = std::vector<uint8_t>;

constexpr size_t signature_bytes = 8;
constexpr size_t largest_data = 1 << 16;

struct Chunk {
  size_t at;      ///< of its length
  size_t length;  ///< of its data
};

void put_big(uint8_t* to, uint32_t value) {
  for (int i = 0; i < 4; ++i) to[i] = static_cast<uint8_t>(value >> (24 - 8 * i));
}

/// The whole chunks of a file.
std::vector<Chunk> chunks_of(Bytes file) {
  std::vector<Chunk> chunks;
  for (size_t at = signature_bytes; at + 12 <= file.size();) {
    const size_t length = oriel::image::Encoded::big(file.subspan(at, 4));
    if (length > file.size() - at - 12) break;
    chunks.push_back({at, length});
    at += length + 12;
  }
  return chunks;
}

bool is_data(Bytes file, const Chunk& chunk) { return oriel::fuzz::as_text(file.subspan(chunk.at + 4, 4)) == "IDAT"; }

void repair_checksums(std::span<uint8_t> file) {
  for (const Chunk& chunk : chunks_of(file)) {
    uint8_t* covered = file.data() + chunk.at + 4;
    put_big(covered + 4 + chunk.length, static_cast<uint32_t>(crc32(0, covered, static_cast<uInt>(chunk.length + 4))));
  }
}

/// The unfolded pixel data of all IDAT chunks; empty if there is none or it is damaged at its very start.
Buffer inflated(Bytes file) {
  Buffer packed;
  for (const Chunk& chunk : chunks_of(file))
    if (is_data(file, chunk)) {
      const Bytes data = file.subspan(chunk.at + 8, chunk.length);
      packed.insert(packed.end(), data.begin(), data.end());
    }
  Buffer raw(largest_data);
  z_stream stream{};
  if (packed.empty() || inflateInit(&stream) != Z_OK) return {};
  stream.next_in = packed.data();
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = raw.data();
  stream.avail_out = static_cast<uInt>(raw.size());
  inflate(&stream, Z_FINISH);
  raw.resize(stream.total_out);
  inflateEnd(&stream);
  return raw;
}

/// The file with `raw` as its pixel data, in one chunk where the first one was.
Buffer with_data(Bytes file, const Buffer& raw, int level) {
  Buffer packed(compressBound(static_cast<uLong>(raw.size())));
  uLongf packed_size = packed.size();
  compress2(packed.data(), &packed_size, raw.data(), static_cast<uLong>(raw.size()), level);
  Buffer result(file.begin(), file.begin() + signature_bytes);
  bool placed = false;
  for (const Chunk& chunk : chunks_of(file)) {
    if (is_data(file, chunk)) {
      if (placed) continue;
      placed = true;
      uint8_t head[8] = {0, 0, 0, 0, 'I', 'D', 'A', 'T'};
      put_big(head, static_cast<uint32_t>(packed_size));
      result.insert(result.end(), head, head + 8);
      result.insert(result.end(), packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(packed_size));
      result.insert(result.end(), 4, 0);
    } else {
      const Bytes whole = file.subspan(chunk.at, chunk.length + 12);
      result.insert(result.end(), whole.begin(), whole.end());
    }
  }
  return result;
}

}  // namespace

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  if (seed % 4 == 0 && size > signature_bytes) {
    Buffer raw = inflated({data, size});
    if (!raw.empty()) {
      const size_t raw_size = raw.size();
      raw.resize(std::min(2 * raw_size + 16, largest_data));
      raw.resize(LLVMFuzzerMutate(raw.data(), raw_size, raw.size()));
      const Buffer file = with_data({data, size}, raw, static_cast<int>(seed / 4 % 10));
      if (file.size() <= max_size) {
        std::copy(file.begin(), file.end(), data);
        size = file.size();
      }
    }
  } else {
    size = LLVMFuzzerMutate(data, size, max_size);
  }
  if (seed % 16 != 1) repair_checksums({data, size});
  return size;
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  oriel::fuzz::run_decoder({data, size}, oriel::image::read_png_header, oriel::image::decode_png);
  return 0;
}
