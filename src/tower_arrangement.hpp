#pragma once
// Where patches of one call belong: order, positions and segments, on the tower's device.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <oriel/types.hpp>
#include <vector>

#include "nn/vit.hpp"

namespace oriel {

/// What a call needs beside its patches; depends on the grids alone.
struct PlacedArrangement {
  at::Tensor order;    ///< as arch::Arrangement::order
  nn::VitInput input;  ///< without patches
};

/// The arrangements of the last calls on a GPU: making one takes the host longer than a small tower takes the GPU, and
/// one to two percent of a large call. Those of small calls and of large ones have a budget each, so that a few large
/// ones do not displace all that graphs are replayed with. Safe from many threads; those of one stream are not seen by
/// another, which would have to wait for them.
class ArrangementCache {
 public:
  static constexpr int64_t most_bytes = int64_t{128} << 20;  ///< of either kind: some sixty sizes of small pictures
  static constexpr int64_t small_patches = 8192;             ///< of a small call, at most
  static constexpr int64_t most_patches = 65536;             ///< of any

  using Make = std::function<PlacedArrangement()>;
  [[nodiscard]] std::shared_ptr<const PlacedArrangement> get(const std::vector<Grid>& grids, int64_t stream,
                                                             const Make& make);
  /// Whether get would find it.
  [[nodiscard]] bool holds(const std::vector<Grid>& grids, int64_t stream) const;

 private:
  struct Entry {
    std::vector<Grid> grids;
    int64_t stream;
    std::shared_ptr<const PlacedArrangement> arrangement;
    int64_t bytes;
  };
  struct Kept {
    std::list<Entry> entries;  ///< most recently used first
    int64_t bytes = 0;

    [[nodiscard]] std::list<Entry>::const_iterator find(const std::vector<Grid>& grids, int64_t stream) const;
  };

  mutable std::mutex mutex_;
  Kept small_, large_;
};

}  // namespace oriel
