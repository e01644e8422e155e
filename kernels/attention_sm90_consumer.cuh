// A consumer warpgroup of the Hopper attention kernels: 64 queries of each tile, step by step over the keys, 64 at a
// time.
//
// Registers, in the layout of wgmma's accumulators: lane l of warp w holds rows 16 w + l / 4 and 8 below it, and of
// every 8 columns the two from 2 (l % 4) on. Element [4 i + 2 r + c] is row r of the two, column 8 i + 2 (l % 4) + c.
// So a row's four lanes are neighbours (a quad), and packed scores are at once the A operand of the product with V.
#pragma once

#include "attention_sm90_instructions.cuh"
#include "attention_sm90_shape.cuh"
#include "attention_sm90_view.cuh"
#include "mma.cuh"

namespace oriel::kernels::sm90 {

/// How far probabilities may exceed 1 before the running maximum is raised, as the limit of a sum of some of them, and
/// how far from 0 the first maximum of a prescaled row may be for it to be left out. P is rounded to T and must neither
/// overflow nor, for float16, sink into its subnormals.
template <class T>
struct Limits;
template <>
struct Limits<__nv_bfloat16> {
  static constexpr float kSum = 1.8e19f;  // 2^64
  static constexpr float kPlain = 40.f;
};
template <>
struct Limits<__half> {
  static constexpr float kSum = 32768.f;
  static constexpr float kPlain = 6.f;
};

template <class T, int kHeadDim, class View>
class Consumer {
  using S = Shape<kHeadDim>;
  using Tile = typename View::Tile;
  using Ring = RingPosition<S::kStages>;
  using Op = Instructions<T>;
  static constexpr int kScores = S::kUnit / 2;  // floats a thread of 64 scores a row
  static constexpr int kOutputs = kHeadDim / 2;

 public:
  __device__ __forceinline__ Consumer(const SharedMap<kHeadDim>& shared, int consumer,
                                      const Arguments<T, Tile>& arguments)
      : shared_(shared),
        consumer_(consumer),
        lane_(threadIdx.x % 32),
        keys_low_(operand_low(shared.keys(0), 16)),
        values_low_(operand_low(shared.values(0), S::kPanelBytes)),
        out_(arguments.out),
        heads_(arguments.heads),
        scale_(arguments.scale_log2),
        prescaled_(arguments.prescaled) {}

  /// The last product with V of a tile is left for the first step of the next, so that the tensor cores never wait for
  /// a tile's end, unless there are steps between the two that this warpgroup takes no part in.
  __device__ __forceinline__ void run(const TileRange<Tile>& tiles) {
    bool pending = false;
    for (const Tile* next = tiles.begin; next != tiles.end; ++next) {
      const Tile tile = load_tile(next);
      const Steps steps = View::steps(tile, consumer_);
      const bool takes_part = consumer_ * S::kUnit < tile.rows;
      if (!takes_part || steps.before > 0) {
        if (pending) finish(next - 1);
        pending = false;
        pass_by(takes_part ? steps.before : steps.all);
        if (!takes_part) continue;
      }
      view_.begin(tile, consumer_, row());
      begin_queries();
      if (pending) {
        step<true, true>(view_.place(0, steps.own), next - 1);
      } else {
        step<true, false>(view_.place(0, steps.own), nullptr);
      }
#pragma unroll 1
      for (int i = 1; i < steps.own; ++i) step<false, true>(view_.place(i, steps.own), nullptr);
      release(shared_.queries_empty(queries_.slot, consumer_));
      queries_ = queries_.next();
      pending = steps.behind == 0;
      if (!pending) {
        finish(next);
        pass_by(steps.behind);
      }
    }
    if (pending) finish(tiles.end - 1);
  }

 private:
  /// Row of the tile: this lane's first of two.
  __device__ __forceinline__ int row() const { return consumer_ * S::kUnit + threadIdx.x % 128 / 32 * 16 + lane_ / 4; }

  __device__ __forceinline__ void release(std::uint32_t barrier) const {
    if (lane_ == 0) barrier_arrive(barrier);
  }

  __device__ __forceinline__ void begin_queries() {
    barrier_wait(shared_.queries_full(queries_.slot, consumer_), queries_.parity);
    queries_low_ = operand_low(shared_.queries(queries_.slot, consumer_), 16);
  }

  /// One tile of keys: scores and probabilities of this step, product with V of the step before.
  /// @param place     View::place of the step
  /// @param previous  kFirst and kPending: the tile that ends here
  template <bool kFirst, bool kPending>
  __device__ __forceinline__ void step(int place, const Tile* previous) {
    float s[kScores];
    float previous_sum[2] = {sum_[0], sum_[1]};
    if constexpr (kPending) await_values();
    if constexpr (S::kOverlap && kPending) {
      await_keys();
      hold(s), hold(o_), hold(p_);
      product_fence();
      issue_scores(s);
      issue_values();
      products_wait<1>();
      hold(s);
    } else {
      if constexpr (kPending) {
        multiply_values();
        if constexpr (kFirst) store(load_tile(previous), previous_sum);
      }
      await_keys();
      hold(s);
      product_fence();
      issue_scores(s);
      products_wait<0>();
      hold(s);
    }

    view_.mask(s, place, lane_);
    if constexpr (kFirst) {
      start_row(s);
    } else if constexpr (View::kRowsBeginLate) {
      if (view_.rows_begin(place)) start_late_rows(s, place);
    }
    exponentiate(s);
    const Ring keys = keys_ring_, next_keys = keys.next();
    keys_there_ = barrier_passed(shared_.keys_full(next_keys.slot), next_keys.parity);  // asked early: no latency later
    if constexpr (S::kOverlap && kPending) {
      products_wait<0>();
      hold(o_), hold(p_);
      release_values();
    }
    values_there_ = barrier_passed(shared_.values_full(values_ring_.slot), values_ring_.parity);
    if constexpr (!kFirst) raise_maximum_on_overflow(s, place);
    release(shared_.keys_empty(keys.slot));  // not sooner: raising the maximum reads K again
    keys_ring_ = next_keys;

    if constexpr (kFirst) {
      sum_[0] = partial_[0] + partial_[1];
      sum_[1] = partial_[2] + partial_[3];
    } else {
      sum_[0] += partial_[0] + partial_[1];
      sum_[1] += partial_[2] + partial_[3];
    }
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) p_[i] = Op::pack(s[2 * i], s[2 * i + 1]);
    if constexpr (kFirst) {
      if constexpr (S::kOverlap && kPending) store(load_tile(previous), previous_sum);
#pragma unroll
      for (int i = 0; i < kOutputs; ++i) o_[i] = 0.f;
    }
  }

  /// The last product with V of a tile with nothing behind it.
  __device__ __forceinline__ void finish(const Tile* tile) {
    await_values();
    multiply_values();
    values_there_ = false;
    store(load_tile(tile), sum_);
  }

  /// Steps in which this warpgroup has no row: its share of turning the rings.
  __device__ __forceinline__ void pass_by(int steps) {
#pragma unroll 1
    for (int i = 0; i < steps; ++i) {
      barrier_wait(shared_.keys_full(keys_ring_.slot), keys_ring_.parity);
      release(shared_.keys_empty(keys_ring_.slot));
      keys_ring_ = keys_ring_.next();
      barrier_wait(shared_.values_full(values_ring_.slot), values_ring_.parity);
      release_values();
    }
    keys_there_ = values_there_ = false;
  }

  // ---- products

  __device__ __forceinline__ void await_keys() const {
    if (!keys_there_) barrier_wait(shared_.keys_full(keys_ring_.slot), keys_ring_.parity);
  }

  __device__ __forceinline__ void await_values() const {
    if (!values_there_) barrier_wait(shared_.values_full(values_ring_.slot), values_ring_.parity);
  }

  __device__ __forceinline__ void release_values() {
    release(shared_.values_empty(values_ring_.slot));
    values_ring_ = values_ring_.next();
  }

  __device__ __forceinline__ void issue_scores(float (&s)[kScores]) const {  // S[64, 64] = Q K^T
    const std::uint32_t keys = keys_low_ + keys_ring_.slot * (S::kKeyBytes / 16);
#pragma unroll
    for (int i = 0; i < S::kPanels * 4; ++i) {  // 16 columns a time, 4 times a panel
      const std::uint32_t offset = i / 4 * (S::kPanelBytes / 16) + i % 4 * 2;
      Op::scores(s, operand(queries_low_ + offset, kSwizzle128), operand(keys + offset, kSwizzle128), i > 0);
    }
    if constexpr (S::kTail) {
      constexpr std::uint32_t kOffset = S::kPanels * S::kPanelBytes / 16;
      Op::scores(s, operand(queries_low_ + kOffset, kSwizzle32), operand(keys + kOffset, kSwizzle32), true);
    }
    product_commit();
  }

  __device__ __forceinline__ void issue_values() {  // O[64, head_dim] += P V
    const std::uint32_t values = values_low_ + values_ring_.slot * (S::kValueBytes / 16);
#pragma unroll
    for (int i = 0; i < S::kUnit / 16; ++i) {  // 16 keys a time, two groups of 8 rows of 128 bytes
      Op::values(o_, p_ + 4 * i, operand(values + i * (2048 / 16), kSwizzle128));
    }
    product_commit();
  }

  __device__ __forceinline__ void multiply_values() {
    hold(o_), hold(p_);
    product_fence();
    issue_values();
    products_wait<0>();
    hold(o_), hold(p_);
    release_values();
  }

  // ---- softmax: p = 2^(s scale - m), m the maximum of the first tile of keys

  /// Over the row: this thread's scores, then the quad's. -Inf only if all are (or NaN): then 0, for which p is 0.
  __device__ __forceinline__ void row_maximum(const float (&s)[kScores], float (&maximum)[2]) const {
    float m[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) m[i] = s[i];
#pragma unroll
    for (int i = 8; i < kScores; ++i) m[i % 8] = fmaxf(m[i % 8], s[i]);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float x = fmaxf(fmaxf(m[2 * r], m[2 * r + 1]), fmaxf(m[2 * r + 4], m[2 * r + 5]));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
      maximum[r] = x == -INFINITY ? 0.f : x;
    }
  }

  /// True if `a`, of this lane's first row, or `b`, of its second, holds for any row of the warp. Rows outside of the
  /// sequence hold another's queries and have no say: the answer is the same whatever is packed beside it.
  __device__ __forceinline__ bool any_row(bool a, bool b) const {
    return __any_sync(~0u, (a && view_.has_row(0)) || (b && view_.has_row(8)));
  }

  __device__ __forceinline__ void start_row(const float (&s)[kScores]) {
    float maximum[2];
    row_maximum(s, maximum);
    minus_max_[0] = -maximum[0] * scale_;
    minus_max_[1] = -maximum[1] * scale_;
    plain_ = prescaled_ && !any_row(!(fabsf(maximum[0]) < Limits<T>::kPlain), !(fabsf(maximum[1]) < Limits<T>::kPlain));
    if (plain_) minus_max_[0] = minus_max_[1] = 0.f;
  }

  /// Rows that see none of the keys before this step have no sum and no output yet: any number can be subtracted from
  /// now on, and it is the maximum of this step.
  __device__ __forceinline__ void start_late_rows(const float (&s)[kScores], int place) {
    float maximum[2];
    row_maximum(s, maximum);
    const bool late[2] = {view_.row_begins(place, 0), view_.row_begins(place, 8)};
    plain_ = plain_ && !any_row(late[0] && !(fabsf(maximum[0]) < Limits<T>::kPlain),
                                late[1] && !(fabsf(maximum[1]) < Limits<T>::kPlain));
    if (plain_) return;
#pragma unroll
    for (int r = 0; r < 2; ++r) minus_max_[r] = late[r] ? -maximum[r] * scale_ : minus_max_[r];
  }

  /// S becomes P in place; partial_ its sums, two a row.
  __device__ __forceinline__ void exponentiate(float (&s)[kScores]) {
    partial_[0] = partial_[1] = partial_[2] = partial_[3] = 0.f;
    if (plain_) {
#pragma unroll
      for (int i = 0; i < kScores; ++i) partial_[i % 4] += s[i] = exp2_fast(s[i]);
    } else {
#pragma unroll
      for (int i = 0; i < kScores; ++i) {
        partial_[i % 4] += s[i] = exp2_fast(fmaf(s[i], scale_, minus_max_[i / 2 % 2]));
      }
    }
  }

  /// Softmax does not care which number is subtracted, and float32 sums reach far: so the maximum is not looked for
  /// after the first tile. Only where that overflows are the scores computed again and the maximum raised.
  __device__ __forceinline__ void raise_maximum_on_overflow(float (&s)[kScores], int place) {
    const bool over[2] = {partial_[0] + partial_[1] > Limits<T>::kSum, partial_[2] + partial_[3] > Limits<T>::kSum};
    if (!any_row(over[0], over[1])) return;
    scores_again(s);
    view_.mask(s, place, lane_);
    float maximum[2];
    row_maximum(s, maximum);
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float raised = fminf(-maximum[r] * scale_, minus_max_[r]);
      factor[r] = exp2_fast(raised - minus_max_[r]);
      sum_[r] *= factor[r];
      minus_max_[r] = raised;
    }
    plain_ = false;
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) o_[i] *= factor[i / 2 % 2];
    exponentiate(s);
  }

  /// S of this warp's 16 rows by the warp's own instructions: wgmma would need all four warps, which may not overflow.
  __device__ __forceinline__ void scores_again(float (&s)[kScores]) const {
#pragma unroll
    for (int i = 0; i < kScores; ++i) s[i] = 0.f;
    const int warp = threadIdx.x % 128 / 32;
    const std::uint32_t queries = shared_.queries(queries_.slot, consumer_), keys = shared_.keys(keys_ring_.slot);
    // Which of an operand's four 8 x 8 matrices this lane addresses: Q's second one is 8 rows below, K's 8 columns on.
    const int q_row = lane_ % 16, q_half = lane_ / 16;
    const int k_row = lane_ % 8 + lane_ / 16 * 8, k_half = lane_ / 8 % 2;
#pragma unroll 1
    for (int i = 0; i < S::kPanels * 4; ++i) {
      const std::uint32_t panel = i / 4 * S::kPanelBytes;
      const std::uint32_t q = queries + panel + (warp * 16 + q_row) * 128 + ((i % 4 * 2 + q_half) ^ (q_row % 8)) * 16;
      const std::uint32_t k = keys + panel + k_row * 128 + ((i % 4 * 2 + k_half) ^ (k_row % 8)) * 16;
      add_scores(s, q, k, 16 * 128);
    }
    if constexpr (S::kTail) {
      constexpr std::uint32_t kOffset = S::kPanels * S::kPanelBytes;
      const std::uint32_t q = queries + kOffset + (warp * 16 + q_row) * 32 + (q_half ^ (q_row / 4 % 2)) * 16;
      const std::uint32_t k = keys + kOffset + k_row * 32 + (k_half ^ (k_row / 4 % 2)) * 16;
      add_scores(s, q, k, 16 * 32);
    }
  }

  /// 16 columns of Q and K; the lane's addresses, and bytes from 16 keys to the next 16.
  __device__ __forceinline__ static void add_scores(float (&s)[kScores], std::uint32_t q, std::uint32_t k,
                                                    int key_bytes) {
    std::uint32_t a[4], b[4];
    load_matrices(a, q);
#pragma unroll
    for (int n = 0; n < S::kUnit / 16; ++n) {
      load_matrices(b, k + n * key_bytes);
      multiply<T>(s + 8 * n, a[0], a[1], a[2], a[3], b[0], b[1]);
      multiply<T>(s + 8 * n + 4, a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }

  // ---- output

  /// out rows = O / sum. Lanes of a quad trade 2 columns of four 8-column groups for 8 columns of one: 16-byte stores.
  __device__ __forceinline__ void store(const Tile& tile, const float (&sum)[2]) const {
    const int first_row = row();
    T* const out = out_ + (static_cast<std::int64_t>(tile.query_begin + first_row) * heads_ + tile.head) * kHeadDim;
    const int position = lane_ % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float total = sum[r];
      total += __shfl_xor_sync(~0u, total, 1);
      total += __shfl_xor_sync(~0u, total, 2);
      const float inverse = 1.f / total;
      const bool inside = View::stores(tile, first_row + 8 * r);
      T* const to = out + static_cast<std::int64_t>(8 * r) * heads_ * kHeadDim;
#pragma unroll
      for (int group = 0; group < kHeadDim / 8; group += 4) {
        std::uint32_t v[4];
#pragma unroll
        for (int k = 0; k < 4 && group + k < kHeadDim / 8; ++k) {
          const int i = 4 * (group + k) + 2 * r;
          v[k] = Op::pack(o_[i] * inverse, o_[i + 1] * inverse);
        }
        if (group + 4 <= kHeadDim / 8) {
          transpose(v, position);
          if (inside) *reinterpret_cast<uint4*>(to + (group + position) * 8) = make_uint4(v[0], v[1], v[2], v[3]);
        } else {
#pragma unroll
          for (int k = 0; k < kHeadDim / 8 % 4; ++k) {
            if (inside) *reinterpret_cast<std::uint32_t*>(to + (group + k) * 8 + position * 2) = v[k];
          }
        }
      }
    }
  }

  /// 4 x 4 over the quad: v[k] of lane i becomes v[i] of lane k.
  __device__ __forceinline__ static void transpose(std::uint32_t (&v)[4], int position) {
#pragma unroll
    for (int k = 0; k < 4; k += 2) exchange(v[k], v[k + 1], position & 1, 1);
#pragma unroll
    for (int k = 0; k < 2; ++k) exchange(v[k], v[k + 2], position & 2, 2);
  }

  __device__ __forceinline__ static void exchange(std::uint32_t& low, std::uint32_t& high, bool upper, int distance) {
    const std::uint32_t received = __shfl_xor_sync(~0u, upper ? low : high, distance);
    (upper ? low : high) = received;
  }

  const SharedMap<kHeadDim> shared_;
  const int consumer_, lane_;
  const std::uint32_t keys_low_, values_low_;  // operands of slot 0
  std::uint32_t queries_low_ = 0;
  RingPosition<S::kQueryBuffers> queries_;
  Ring keys_ring_, values_ring_;
  bool keys_there_ = false, values_there_ = false;  // the next tile's barrier was seen to have passed

  T* const out_;
  const int heads_;
  const float scale_;
  const bool prescaled_;

  View view_;           // of the tile, for this lane
  bool plain_ = false;  // the whole warp subtracts nothing
  float minus_max_[2], sum_[2], partial_[4];
  float o_[kOutputs];             // [64, head_dim]
  std::uint32_t p_[kScores / 2];  // [64, 64], two a word
};

}  // namespace oriel::kernels::sm90
