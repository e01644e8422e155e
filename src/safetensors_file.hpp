#pragma once
#include <oriel/tensor.hpp>
#include <string>

namespace oriel {

/// The safetensors name of a dtype, such as "BF16".
[[nodiscard]] std::string file_dtype(DType dtype);

}  // namespace oriel
