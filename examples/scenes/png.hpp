#pragma once
// Writes PNG files without compressing them, which needs no library.
#include <cstdint>
#include <span>
#include <string>

namespace scenes {

/// An RGB picture as a PNG file. `pixels` is [height, width, 3].
std::string encode_png(std::span<const uint8_t> pixels, int width, int height);

}  // namespace scenes
