// Decoders and pictures.
#include "image/picture_files.hpp"
#include "threads/in_threads.hpp"

namespace oriel {
namespace {

TEST(ThreadsOfDecoders, EveryThreadGetsTheSamePixels) {
  const std::vector<std::string> names{"420_progressive.jpg", "cmyk.jpg",  "grey16_interlaced.png",
                                       "palette8_trns.png",   "rle8.bmp",  "colors64_interlaced.gif",
                                       "orientation6.jpg",    "rgb16.png", "rgb32_bgra.bmp"};
  std::vector<testing::ByteVector> files;
  std::vector<Image> expected;
  for (const std::string& name : names) {
    files.push_back(testing::read_picture(name));
    expected.push_back(Image::decode(files.back(), {.alpha = AlphaPolicy::white()}, name));
  }
  in_threads([&](int thread) {
    for (size_t k = 0; k < 4 * files.size(); ++k) {
      const size_t i = (static_cast<size_t>(thread) + k) % files.size();
      const Image image = Image::decode(files[i], {.alpha = AlphaPolicy::white()}, names[i]);
      const Image shared = expected[i];  // copies share their pixels
      expect(image.content_hash() == shared.content_hash(), names[i] + " is decoded equally");
      expect(Image::probe(files[i]).upright() == image.size(), names[i] + " is probed equally");
    }
  });
}

TEST(ThreadsOfDecoders, FailuresStayWithTheirThread) {
  const testing::ByteVector whole = testing::read_picture("420.jpg");
  const testing::ByteVector cut = testing::first_bytes(whole, whole.size() / 2);
  in_threads([&](int thread) {
    for (int round = 0; round < 30; ++round) {
      const std::string name = "thread " + std::to_string(thread);
      try {
        (void)Image::decode(cut, {}, name);
        expect(false, "half a picture is refused");
      } catch (const Error& error) {
        expect(std::string(error.what()).starts_with(name + ": "), "an error names the picture of its thread");
      }
      (void)Image::decode(whole, {}, name);
    }
  });
}

}  // namespace
}  // namespace oriel
