#pragma once
// A small picture's tower is some two hundred launches of a few microseconds each: the host can't keep up. A CUDA graph
// launches them all at once.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <list>
#include <mutex>
#include <optional>

#include "nn/cuda/graph_capture.hpp"
#include "nn/vit.hpp"

namespace oriel::nn {

/// The graphs of one tower on one GPU: one for every size that inputs are rounded up to, by rows that belong to no
/// picture; the least recently used one gives way when there are `most_graphs`. The first input of a size runs plainly
/// (it may time matrix products), the second one is captured, later ones are replayed; where memory lacked for that, a
/// later one is captured. Safe from many threads; replays of one tower run one after the other on the GPU.
class VitGraphs {
 public:
  static constexpr size_t most_graphs = 8;
  static constexpr int64_t most_patches = 4096;  ///< of a call: larger ones keep the GPU busy by themselves

  /// What a number of rows is rounded up to: sixteen sizes an octave, in steps of 64 to 256 rows.
  [[nodiscard]] static int64_t rounded_rows(int64_t rows);

  using Forward = std::function<at::Tensor(VitInput)>;  ///< features [T, width * feature_layers]

  VitGraphs();
  ~VitGraphs();

  /// The features of `input`, enqueued on the current stream, or nothing if this input is to be run plainly.
  [[nodiscard]] std::optional<at::Tensor> run(const VitSpec& spec, const VitInput& input, const Forward& forward);
  /// Whether an input of so many patches that is arranged like this one would be replayed, from memory that is held.
  [[nodiscard]] bool has_graph(int64_t rows, const VitInput& arrangement);
  /// How many calls were replayed so far: tests ask, so that they know which path they test.
  [[nodiscard]] int64_t replays();

 private:
  struct Key;
  struct Entry;

  [[nodiscard]] static Key key_of(int64_t rows, const VitInput& arrangement);
  [[nodiscard]] std::list<Entry>::iterator find(const Key& key);
  Entry& entry_of(const Key& key, const VitInput& input);

  std::mutex mutex_;
  std::optional<GraphCaptures> captures_;  ///< made with the first, where the device is known
  std::list<Entry> entries_;               ///< most recently used first
  LastUse rooms_;                          ///< of the entries
  int64_t replays_ = 0;
};

}  // namespace oriel::nn
