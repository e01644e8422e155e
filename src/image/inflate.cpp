#include "image/inflate.hpp"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <new>

namespace oriel::image {
namespace {

struct EndInflate {
  void operator()(z_stream* stream) const { inflateEnd(stream); }
};

/// zlib counts in 32 bits: larger buffers are handed over in pieces.
uInt piece(size_t bytes) { return static_cast<uInt>(std::min<size_t>(bytes, std::numeric_limits<uInt>::max())); }

}  // namespace

InflateResult inflate_zlib(std::span<const uint8_t> input, std::span<uint8_t> output) {
  z_stream stream{};
  if (inflateInit(&stream) != Z_OK) throw std::bad_alloc();
  const std::unique_ptr<z_stream, EndInflate> end(&stream);

  Bytef nothing = 0;  // zlib wants a place for its output even where there is no room
  size_t read = 0;
  size_t written = 0;
  int status = Z_OK;
  while (status == Z_OK) {
    stream.next_in = const_cast<Bytef*>(input.data() + read);
    stream.avail_in = piece(input.size() - read);
    stream.next_out = written < output.size() ? output.data() + written : &nothing;
    stream.avail_out = piece(output.size() - written);
    const uInt offered = stream.avail_in;
    const uInt room = stream.avail_out;
    status = inflate(&stream, Z_NO_FLUSH);
    read += offered - stream.avail_in;
    written += room - stream.avail_out;
  }
  if (status == Z_MEM_ERROR) throw std::bad_alloc();
  if (status == Z_STREAM_END) return {InflateStatus::finished, written};
  if (status != Z_BUF_ERROR) return {InflateStatus::corrupt, written};
  return {written == output.size() && read < input.size() ? InflateStatus::output_full : InflateStatus::input_ended,
          written};
}

}  // namespace oriel::image
