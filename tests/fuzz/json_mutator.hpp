#pragma once
#include "fuzz/fuzz.hpp"

namespace oriel::fuzz {

/// Replaces one value of a JSON text by another one, most often keeping the text well formed: random bytes would mostly
/// break it, and configs are about values. Falls back to libFuzzer's own mutation where there is no value.
size_t mutate_json(uint8_t* data, size_t size, size_t max_size, unsigned int seed);

}  // namespace oriel::fuzz
