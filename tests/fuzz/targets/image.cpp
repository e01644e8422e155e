// Image::decode and Image::probe on any bytes: which decoder they choose, orientation, transparency, limits. The input
// is the file; its last byte, which no format minds, also chooses the options.
#include "oriel/image.hpp"
#include "fuzz/fuzz.hpp"

namespace {

using namespace oriel;

ImageOptions options_of(uint8_t choice) {
  ImageOptions options;
  if ((choice & 1) != 0) options.exif = ExifPolicy::ignore;
  if ((choice & 2) != 0) options.alpha = (choice & 4) != 0 ? AlphaPolicy::white() : AlphaPolicy::over(choice, 7, 200);
  options.limits = {.max_side = 4096, .max_pixels = 1 << 14, .max_file_bytes = 1 << 20};
  return options;
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const ImageOptions options = options_of(size > 0 ? data[size - 1] : uint8_t{0});
  const auto bytes = std::as_bytes(std::span(data, size));
  ImageInfo info;
  const bool is_picture = fuzz::succeeds([&] { info = Image::probe(bytes, options.limits, "picture"); });
  fuzz::succeeds([&] {
    const Image image = Image::decode(bytes, options, "picture");
    fuzz::require(is_picture, "what decodes can be probed");
    fuzz::require(image.size() == info.upright(options.exif), "the size is what the probe said");
    const auto pixels = static_cast<size_t>(image.size().width * image.size().height);
    fuzz::require(image.rgb().size() == 3 * pixels, "three bytes a pixel");
    const ImageOptions same{.limits = options.limits};
    const Image again = Image::from_pixels({image.rgb().data(), image.size()}, same, "again");
    fuzz::require(again.content_hash() == image.content_hash(), "raw pixels give the hash of the decoded ones");
  });
  return 0;
}
