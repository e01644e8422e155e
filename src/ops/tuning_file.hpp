#pragma once
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <mutex>

namespace oriel::ops {

/// A file in which a GPU's fastest algorithms for matrix products outlive the process. Everything that goes wrong with
/// it is a warning, never an error: without it they are timed again. Safe from many threads; processes may share a
/// file.
class TuningFile {
 public:
  /// Hands what the file holds to the products of `device`, if the same cuBLASLt chose it on a GPU of the same kind.
  /// On the CPU there is nothing to choose: the file is left alone.
  TuningFile(std::filesystem::path path, c10::Device device);
  /// If something was chosen since the last time, writes all that is known, with what others wrote meanwhile.
  void save_if_new();

 private:
  std::filesystem::path path_;
  c10::Device device_;
  std::mutex mutex_;
  int64_t saved_ = 0;  ///< products that had been chosen for
};

}  // namespace oriel::ops
