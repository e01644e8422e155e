#include "fuzz/targets/decoder.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace oriel::image;
  oriel::fuzz::run_decoder({data, size}, read_jpeg_header, [](const Encoded& file, const oriel::ImageInfo& info, bool) {
    return decode_jpeg_with_stb(file, info);
  });
  return 0;
}
