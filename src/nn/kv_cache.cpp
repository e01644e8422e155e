#include "nn/kv_cache.hpp"

#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include "core/error.hpp"

namespace oriel::nn {

int64_t KvCache::bytes_per_token(const Shape& shape, at::ScalarType dtype) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t side : {shape.layers, int64_t{2}, shape.kv_heads, shape.head_dim})
    bytes = checked_multiply(bytes, side, "KV cache");
  return bytes;
}

KvCache::KvCache(const Shape& shape, at::ScalarType dtype, at::Device device) : shape_(shape) {
  const int64_t tokens = checked_multiply(shape.slots, shape.capacity, "KV cache");
  (void)checked_multiply(tokens, bytes_per_token(shape, dtype), "KV cache");
  data_ = at::zeros({shape.layers, 2, shape.slots, shape.capacity, shape.kv_heads, shape.head_dim},
                    at::dtype(dtype).device(device));
}

LayerCache KvCache::layer(int64_t index) const {
  const at::Tensor both = data_.select(0, index);
  return {both.select(0, 0), both.select(0, 1)};
}

void KvCache::copy_prefix(int64_t from, int64_t to, int64_t tokens) {
  const auto fits = [&](int64_t slot) { return slot >= 0 && slot < shape_.slots; };
  if (!fits(from) || !fits(to) || tokens < 0 || tokens > shape_.capacity)
    throw_error(ErrorCode::internal, "KV cache: expected {} slots of {} tokens, got {} tokens from {} to {}",
                shape_.slots, shape_.capacity, tokens, from, to);
  if (from == to) return;
  const c10::InferenceMode guard;
  const auto prefix = [&](int64_t slot) { return data_.select(2, slot).narrow(2, 0, tokens); };
  prefix(to).copy_(prefix(from));
}

}  // namespace oriel::nn
