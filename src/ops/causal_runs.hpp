#pragma once
// Attention of the runs of a decoder's forward, all in one call where a kernel takes them.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "ops/causal_attention.hpp"
#include "ops/decode.hpp"

namespace oriel::ops {

/// The newest `queries` of a sequence of `keys` tokens, packed with those of others: query i of the run is token
/// keys - queries + i.
struct CausalRun {
  int64_t query_begin = 0;  ///< row of the first one among all queries: runs follow each other
  int64_t key_begin = 0;    ///< row of the sequence's first token among all keys
  int64_t queries = 0;
  int64_t keys = 0;
  std::vector<TokenRange> blocks = {};  ///< of the sequence: what Visibility says of them
};

/// Neighbouring queries of a run that see the keys behind them by one rule: all of a block, or only those in front.
struct CausalStretch {
  int64_t query_begin = 0;
  int64_t key_begin = 0;
  int64_t queries = 0;
  int64_t keys = 0;  ///< of the sequence, with the stretch
  bool is_block = false;
  friend bool operator==(const CausalStretch&, const CausalStretch&) = default;
};
/// A run cut where blocks begin and end. A kernel that knows both rules and windows needs nothing else.
[[nodiscard]] std::vector<CausalStretch> cut_at_blocks(const CausalRun& run);

/// The stretches of all runs as oriel's kernel for sm_90 reads them on the GPU, for one window.
struct CausalTiles {
  at::Tensor plan;  ///< uint8
  int32_t blocks = 0;
};

/// The stretches of all runs as libtorch's flash attention reads them on the GPU.
struct FlashStretches {
  at::Tensor query_bounds;  ///< int32 [stretches + 1]; undefined where this is not how the runs are attended
  at::Tensor key_begins;    ///< int32 [stretches + 1], of which the last means nothing
  at::Tensor text_keys;     ///< int32 [stretches]: keys of those in text, 0 of blocks
  at::Tensor block_keys;    ///< int32 [stretches]: the other way round; undefined without blocks
  int64_t most_queries = 0;
  int64_t most_keys = 0;
};

/// What all layers of a forward know of its runs.
struct CausalRuns {
  std::vector<CausalRun> runs;
  std::map<int64_t, CausalTiles> tiles;                   ///< by window, where oriel's kernel takes the runs
  FlashStretches flash;                                   ///< where libtorch's does
  std::map<int64_t, std::vector<Visibility>> visibility;  ///< by window, of each run, where no kernel takes them
};
/// `windows` are those of all layers, 0 for none. Throws internal for a block that the end of its run cuts.
[[nodiscard]] CausalRuns make_causal_runs(std::vector<CausalRun> runs, std::span<const int64_t> windows,
                                          const DecodeShape& shape, at::ScalarType dtype, c10::Device device);

/// softmax(q k^T * scale) v. q [queries, heads, head_dim]; k and v [keys, kv_heads, head_dim], of which
/// heads / kv_heads query heads in a row share one; any strides with a dense last dimension. A query sees what
/// Visibility says of its sequence. Result [queries, heads * head_dim]; the bits of a run's depend on that run alone
/// (on sm_86 and sm_89 also on whether `window` cuts anything of any run: libtorch's tiles differ there).
[[nodiscard]] at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const CausalRuns& runs, int64_t window, double scale);

}  // namespace oriel::ops
