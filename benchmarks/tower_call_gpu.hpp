#pragma once
// What the programs that time a tower's packed calls on a GPU share: the call as text, and patches for it.
#include <ATen/ops/randn.h>
#include <cuda_runtime_api.h>

#include <oriel/torch.hpp>
#include <sstream>
#include <stdexcept>

#include "bench.hpp"

namespace bench {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

/// 1024x768,640x480 (width x height)
inline std::vector<oriel::Size> sizes_of(const std::string& call) {
  std::vector<oriel::Size> sizes;
  std::istringstream text(call);
  for (std::string one; std::getline(text, one, ',');) {
    oriel::Size size;
    char times = 0;
    std::istringstream part(one);
    if (!(part >> size.width >> times >> size.height) || times != 'x')
      throw std::invalid_argument("--call: expected such as 1024x768, got " + one);
    sizes.push_back(size);
  }
  return sizes;
}

/// Random patches in the tower's dtype on its GPU for pictures of these sizes.
inline oriel::Patches random_patches(const oriel::VisionTower& tower, const std::vector<oriel::Size>& sizes) {
  oriel::Patches patches;
  int64_t rows = 0;
  for (const oriel::Size size : sizes) {
    const oriel::ImagePlan plan = tower.plan(size);
    rows += plan.grid.patches();
    patches.images.push_back({.grid = plan.grid, .original = size, .resized = plan.resized, .name = "random"});
  }
  const int64_t values = 3 * tower.patch_size() * tower.patch_size() * (tower.has_video() ? 2 : 1);
  const at::ScalarType dtype = tower.dtype() == oriel::DType::float32   ? at::kFloat
                               : tower.dtype() == oriel::DType::float16 ? at::kHalf
                                                                        : at::kBFloat16;
  patches.values = oriel::from_torch(at::randn({rows, values}, at::dtype(dtype).device(at::kCUDA)));
  return patches;
}

}  // namespace bench
