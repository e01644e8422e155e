#pragma once
// The argmax of whole batches where the logits are: no row leaves the device.
#include <ATen/core/Tensor.h>

#include <vector>

#include "text/sampler.hpp"

namespace oriel::text {

/// The first largest of each row of float32 logits [n, vocabulary], and its log_softmax, which is NaN for a row that
/// holds NaN or infinity.
[[nodiscard]] std::vector<Choice> choose_greedily(const at::Tensor& logits);

}  // namespace oriel::text
