#pragma once
#include <cstdint>
#include <functional>
#include <span>

#include <oriel/tensor.hpp>

namespace oriel {

/// How far a long call has come. `done` of `total` in units of the stage: bytes of weights (load, where files may hold
/// more than is read), pictures or temporal slots (preprocess), transformer blocks (encode, from 0 to all of them).
struct Progress {
  enum class Stage { load, preprocess, encode };
  Stage stage;
  int64_t done;
  int64_t total;
};
/// Called on the thread that made the call; must not call back into the object that reports.
using ProgressCallback = std::function<void(const Progress&)>;

/// The text model's embedding rows of some token ids: [ids, hidden], as the text model would feed them to its first
/// layer (with its scaling, if it has one). Any dtype and device. Called on the thread that made the call.
using TokenRows = std::function<Tensor(std::span<const int64_t> ids)>;

}  // namespace oriel
