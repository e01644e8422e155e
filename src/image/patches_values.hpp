#pragma once
// How a byte becomes a float: the table, and arithmetic that was found to give the table's bits.
#include <array>

#include "image/patches.hpp"
#include "image/resize_kernels.hpp"

namespace oriel::image {

/// For each channel the arithmetic that gives `table`, which must outlive the result; `computable` is false where none
/// of the known forms does, and then the table is read.
[[nodiscard]] std::array<ByteToFloat, 3> find_arithmetic(const ValueTable& table, const PixelSpec& spec,
                                                         ResizeArithmetic arithmetic);

}  // namespace oriel::image
