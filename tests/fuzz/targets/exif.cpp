// Orientation from EXIF blocks and XMP packets. The first byte says where the input is cut into the two.
#include <vector>

#include "fuzz/fuzz.hpp"
#include "image/exif.hpp"

namespace {

void check(std::optional<int> orientation) {
  oriel::fuzz::require(!orientation || (*orientation >= 1 && *orientation <= 8), "orientations are 1 to 8");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace oriel;
  const fuzz::Bytes all(data, size);
  check(image::exif_orientation(all));
  check(image::xmp_orientation(fuzz::as_text(all)));
  if (size == 0) return 0;
  const size_t cut = std::min<size_t>(1 + data[0], size);
  const std::vector<uint8_t> exif(data + 1, data + cut);
  const std::vector<uint8_t> xmp(data + cut, data + size);
  check(image::choose_orientation(exif, fuzz::as_text(xmp)));
  return 0;
}
