#pragma once
// What tests of a decoder's step on a GPU share: its dtypes, how exact they are, and tokens of a KV cache.
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <string>
#include <utility>

#include "kernels/random_on_gpu.hpp"
#include "ops/decode.hpp"

namespace oriel::ops {

inline const std::vector<at::ScalarType> dtypes{at::kFloat, at::kBFloat16, at::kHalf};

/// Half a unit in the last place of a dtype, relative: what one rounding of the result may cost, with some room for
/// sums; in float32 for one value alone of thousands of terms that mostly cancel (3e-6 was seen), too.
inline double tolerance(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return 4e-3;
  return dtype == at::kHalf ? 5e-4 : 1e-5;
}

/// Some tokens of a cache of five slots; the third token is nobody's.
struct Cached {
  static constexpr int64_t slots = 5;
  int64_t capacity;
  std::vector<int64_t> slot{4, 0, 0, 2};
  std::vector<int64_t> length;
  at::Tensor keys, values;

  Cached(std::vector<int64_t> lengths, int64_t kv_heads, int64_t head_dim, at::ScalarType dtype)
      : capacity(*std::max_element(lengths.begin(), lengths.end()) + 3), length(std::move(lengths)) {
    keys = at::randn({slots, capacity, kv_heads, head_dim}, at::kFloat).to(dtype).cuda();
    values = at::randn({slots, capacity, kv_heads, head_dim}, at::kFloat).to(dtype).cuda();
  }
  [[nodiscard]] CachedTokens tokens() const {
    return {keys, values, at::stack({at::tensor(slot, at::kLong), at::tensor(length, at::kLong)}).cuda()};
  }
};

}  // namespace oriel::ops
