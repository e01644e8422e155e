#pragma once
// A step of a decoder is some hundreds of launches of a few microseconds each. A CUDA graph launches them all at once.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "nn/cuda/graph_capture.hpp"

namespace oriel::nn {

/// The graphs of one decoder and one cache on one GPU: one for each number of tokens that steps are rounded up to, by
/// tokens that are nobody's. Those are the powers of two up to most_tokens, so that there are few of them; they share
/// their memory, which is that of the largest step's results between layers and logits. The first step of a size runs
/// plainly (it may time matrix products), the second one is captured, later ones are replayed; where memory lacked for
/// that, a later one is captured. What can't be captured, and larger steps, run plainly. Of one thread at a time, like
/// the cache.
class DecoderGraphs {
 public:
  static constexpr int64_t most_tokens = 64;

  /// From `input` int64 [rows, n] on the GPU to logits [n, vocabulary].
  using Forward = std::function<at::Tensor(const at::Tensor& input)>;

  DecoderGraphs(std::shared_ptr<const void> owner, c10::Device device);
  ~DecoderGraphs();
  DecoderGraphs(const DecoderGraphs&) = delete;
  DecoderGraphs& operator=(const DecoderGraphs&) = delete;

  /// forward's result for `input` int64 [rows, n] on the CPU, enqueued on the current stream of the device, which must
  /// be the current one. Every column is a token's; columns of zeros, which are nobody's, may be added to those given.
  /// `forward` must do the same whenever it is called, but for what it reads.
  [[nodiscard]] at::Tensor run(const at::Tensor& input, const Forward& forward);

  [[nodiscard]] const void* owner() const { return owner_.get(); }  ///< Decoder::identity_
  /// How many steps were replayed so far: tests ask, so that they know which path they test.
  [[nodiscard]] int64_t replays() const { return replays_; }

 private:
  struct Entry;

  Entry& entry_of(int64_t tokens, int64_t rows);

  std::shared_ptr<const void> owner_;  ///< kept, so that no other decoder gets its address
  c10::Device device_;
  GraphCaptures captures_;
  std::map<int64_t, Entry> entries_;  ///< by number of tokens
  LastUse rooms_;                     ///< of the entries
  int64_t replays_ = 0;
};

}  // namespace oriel::nn
