#include "ops/causal_runs.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "core/error.hpp"
#ifdef ORIEL_CUDA
#include "ops/cuda/causal_attention.hpp"
#endif

namespace oriel::ops {

std::vector<CausalStretch> cut_at_blocks(const CausalRun& run) {
  std::vector<CausalStretch> result;
  const int64_t first = run.keys - run.queries;  // in the sequence, as everything here
  int64_t done = first;
  const auto take_until = [&](int64_t end, bool is_block) {
    if (end <= done) return;
    result.push_back({.query_begin = run.query_begin + done - first,
                      .key_begin = run.key_begin,
                      .queries = end - done,
                      .keys = end,
                      .is_block = is_block});
    done = end;
  };
  for (const TokenRange& block : run.blocks) {
    if (block.end <= first) continue;
    if (block.begin >= run.keys) break;
    if (block.end > run.keys)
      throw_error(ErrorCode::internal, "attention: the block [{}, {}) is cut at {}", block.begin, block.end, run.keys);
    take_until(block.begin, false);
    take_until(block.end, true);
  }
  take_until(run.keys, false);
  return result;
}

CausalRuns make_causal_runs(std::vector<CausalRun> runs, std::span<const int64_t> windows,
                            [[maybe_unused]] const DecodeShape& shape, [[maybe_unused]] at::ScalarType dtype,
                            c10::Device device) {
  CausalRuns result{.runs = std::move(runs), .tiles = {}, .flash = {}, .visibility = {}};
#ifdef ORIEL_CUDA
  if (cuda::has_tiles(result.runs, shape, dtype, device)) {
    for (const int64_t window : windows)
      if (!result.tiles.contains(window))
        result.tiles.emplace(window, cuda::place_tiles(result.runs, shape, window, device));
    return result;
  }
  if (cuda::has_flash(result.runs, shape, dtype, device)) {
    result.flash = cuda::place_stretches(result.runs, device);
    return result;
  }
#endif
  for (const int64_t window : windows) {
    std::vector<Visibility>& seen = result.visibility[window];
    if (!seen.empty()) continue;
    for (const CausalRun& run : result.runs)
      seen.push_back(make_visibility(run.keys - run.queries, run.queries, window, run.blocks, device));
  }
  return result;
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const CausalRuns& runs,
                            int64_t window, double scale) {
#ifdef ORIEL_CUDA
  if (!runs.tiles.empty()) return cuda::causal_attention(q, k, v, runs.tiles.at(window), scale);
  if (runs.flash.query_bounds.defined()) return cuda::causal_attention(q, k, v, runs.flash, window, scale);
#endif
  const std::vector<Visibility>& visibility = runs.visibility.at(window);
  const auto attend = [&](size_t i) {
    const CausalRun& run = runs.runs[i];
    const auto known = [&](const at::Tensor& all) { return all.narrow(0, run.key_begin, run.keys); };
    return causal_attention(q.narrow(0, run.query_begin, run.queries), known(k), known(v), visibility[i], scale);
  };
  if (runs.runs.size() == 1) return attend(0);
  at::Tensor out = at::empty({q.size(0), q.size(1) * q.size(2)}, q.options());
  for (size_t i = 0; i < runs.runs.size(); ++i)
    out.narrow(0, runs.runs[i].query_begin, runs.runs[i].queries).copy_(attend(i));
  return out;
}

}  // namespace oriel::ops
