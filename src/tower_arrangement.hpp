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
/// one to two percent of a large call. Safe from many threads; those of one stream are not seen by another, which would
/// have to wait for them.
class ArrangementCache {
 public:
  static constexpr int64_t most_bytes = int64_t{128} << 20;  ///< of all: some sixty sizes of pictures
  static constexpr int64_t most_patches = 65536;             ///< of a call

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
  [[nodiscard]] std::list<Entry>::const_iterator find(const std::vector<Grid>& grids, int64_t stream) const;

  mutable std::mutex mutex_;
  std::list<Entry> entries_;  ///< most recently used first
  int64_t bytes_ = 0;
};

}  // namespace oriel
