#pragma once
// Keys and values of sequences that are being generated, allocated once.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

namespace oriel::nn {

class DecoderGraphs;

/// What one layer's attention reads and writes.
struct LayerCache {
  at::Tensor keys;    ///< [slots, capacity, kv_heads, head_dim]
  at::Tensor values;  ///< the same
};

/// Room for `slots` sequences of up to `capacity` tokens. Layers with a window keep all tokens too; attention masks.
/// Who writes a token says where; what the cache does not know is how many tokens of a slot are filled. Not safe from
/// many threads.
class KvCache {
 public:
  struct Shape {
    int64_t layers = 0;
    int64_t slots = 0;
    int64_t capacity = 0;  ///< tokens of a slot
    int64_t kv_heads = 0;
    int64_t head_dim = 0;
  };
  /// Filled with zeros, which on the CPU takes memory only where tokens are written. Throws limit_exceeded if the size
  /// does not fit 64 bits.
  KvCache(const Shape& shape, at::ScalarType dtype, at::Device device);

  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] LayerCache layer(int64_t index) const;
  /// Makes the first `tokens` tokens of `to` those of `from`, in all layers.
  void copy_prefix(int64_t from, int64_t to, int64_t tokens);
  /// Of one token in all layers.
  [[nodiscard]] static int64_t bytes_per_token(const Shape& shape, at::ScalarType dtype);
  /// The graphs that read and write this cache, and end with it; the decoder makes them when it first wants some.
  [[nodiscard]] std::shared_ptr<DecoderGraphs>& graphs() { return graphs_; }

 private:
  Shape shape_;
  at::Tensor data_;  ///< [layers, 2, slots, capacity, kv_heads, head_dim]
  std::shared_ptr<DecoderGraphs> graphs_;
};

}  // namespace oriel::nn
