#pragma once
// A small picture's tower is some two hundred launches of a few microseconds each: the host can't keep up. A CUDA graph
// launches them all at once.
#include <ATen/core/Tensor.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>

#include "nn/cuda/graph_capture.hpp"
#include "nn/vit.hpp"

namespace oriel::nn {

/// The graphs of one tower on one GPU: one for every size that inputs are rounded up to, by rows that belong to no
/// picture. The first input of a size runs plainly (it may time matrix products), the second one is captured, later
/// ones are replayed; where memory lacked for that, a later one is captured. Safe from many threads; replays of one
/// tower run one after the other on the GPU.
///
/// That they do lets them share their memory: one room for the rows that they read, large enough for all sizes, and one
/// pool for what they make, results included. Of its own a graph has its segments and what CUDA keeps of its launches.
/// Where these pass the budget, what was replayed least recently gives way, without anyone waiting for the GPU; a size
/// that was only seen once has no graph, and takes nothing.
class VitGraphs {
 public:
  static constexpr int64_t most_patches = graph_input_rows;  ///< of a call: larger ones keep the GPU busy by themselves

  /// What a number of rows is rounded up to: sixteen sizes an octave, in steps of 64 to 256 rows.
  [[nodiscard]] static int64_t rounded_rows(int64_t rows);

  using Forward = std::function<at::Tensor(VitInput)>;  ///< features [T, width * feature_layers]

  /// `budget` is in bytes; 0: a 64th of the GPU's memory, at most 512 MiB.
  explicit VitGraphs(int64_t budget = 0);
  ~VitGraphs();

  /// The features of `input`, enqueued on the current stream, or nothing if this input is to be run plainly.
  [[nodiscard]] std::optional<at::Tensor> run(const VitSpec& spec, const VitInput& input, const Forward& forward);
  /// Whether an input of so many patches that is arranged like this one would be replayed, from memory that is held.
  [[nodiscard]] bool has_graph(int64_t rows, const VitInput& arrangement);
  /// Whether the room is there.
  [[nodiscard]] bool has_room();

  /// How many calls were replayed so far: tests ask, so that they know which path they test.
  [[nodiscard]] int64_t replays();
  /// What counts towards the budget.
  [[nodiscard]] int64_t graph_bytes();

 private:
  /// A size: all that the launches depend on.
  struct Key {
    int64_t rows = 0;
    int64_t segments = 0;
    int64_t windows = 0;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  struct Entry;
  struct Call;

  /// Of an input with so many rows of its own, and others up to `padded`.
  [[nodiscard]] static Key key_of(int64_t rows, int64_t padded, const VitInput& arrangement);
  [[nodiscard]] Entry& entry_of(const Key& key);
  void fill_room(const VitInput& input);
  /// The room's first rows as an input.
  [[nodiscard]] VitInput room_with(ops::Segments segments, ops::Segments windows, int64_t rows) const;
  [[nodiscard]] bool capture(Entry& entry, const Call& call);
  void widen_pool(const Call& call);
  void make_way_for(const Entry& newest);

  std::mutex mutex_;
  int64_t budget_;
  std::optional<GraphCaptures> captures_;  ///< made with the first, where the device is known
  std::map<Key, Entry> entries_;
  VitInput room_;               ///< most_patches rows that all graphs read the first ones of; without segments
  at::Tensor tables_of_;        ///< cu_seqlens of the call whose positions and rotary tables are in the room
  LastUse last_use_;            ///< of room, entries and pool
  int64_t pool_rows_ = 0;       ///< rows for which the pool has memory
  int64_t not_widened_to_ = 0;  ///< rows that it had no memory for
  int64_t graph_bytes_ = 0;
  int64_t calls_ = 0;
  int64_t replays_ = 0;
};

}  // namespace oriel::nn
