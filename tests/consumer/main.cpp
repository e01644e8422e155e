// A stranger's program: it knows oriel by its public headers and its target, and nothing of how it is built.
#include <cstdint>
#include <cstdio>
#include <oriel/oriel.hpp>
#include <string>
#include <vector>

#if __has_include(<ATen/core/Tensor.h>)
#error "oriel's target puts libtorch's headers on the include path of whoever links it"
#endif
#if ORIEL_VERSION < 100
#error "expected oriel 0.1.0 or later"
#endif

namespace {

constexpr oriel::Size photo_size{40, 30};

/// RGB: red grows to the right, green downwards.
std::vector<uint8_t> gradient() {
  std::vector<uint8_t> pixels;
  for (int64_t y = 0; y < photo_size.height; ++y)
    for (int64_t x = 0; x < photo_size.width; ++x)
      pixels.insert(pixels.end(), {static_cast<uint8_t>(x * 6), static_cast<uint8_t>(y * 8), 128});
  return pixels;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: stranger MODEL_DIRECTORY\n"), 2;

  const oriel::VisionTower tower = oriel::VisionTower::load(argv[1]);
  const std::vector<uint8_t> pixels = gradient();
  const oriel::Image photo = oriel::Image::from_pixels({.data = pixels.data(), .size = photo_size});
  const oriel::MMEmbedding embedding = tower.get_image_embeddings(photo, {.text_alias = "<image_1>"});
  std::printf("oriel %s: rows [%ld, %ld]\n", std::string(oriel::version()).c_str(), embedding.length(),
              embedding.hidden_size());

  // Thrown inside the library, caught outside: both sides must mean the same type.
  try {
    static_cast<void>(oriel::VisionTower::load("no/such/directory"));
  } catch (const oriel::Error& error) {
    const bool names_the_code = error.code() == oriel::ErrorCode::file_error;
    std::printf("caught %s: %s\n", names_the_code ? "file_error" : "another error", error.what());
    return 0;
  }
  return 1;
}
