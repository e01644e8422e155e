#include "fuzz/targets/decoder.hpp"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  oriel::fuzz::run_decoder({data, size}, oriel::image::read_gif_header, oriel::image::decode_gif);
  return 0;
}
