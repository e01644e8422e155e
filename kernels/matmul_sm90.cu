// Matrix products with an activation in the epilogue on Hopper (sm_90a): formula and inputs in matmul_sm90.h.
//
// Layout. x [rows, in] and weight [parts, out, in] (a gated product has two parts, G and U) are read where they lie:
// the copy engine fetches boxes of 64 columns into shared memory, swizzled as the tensor cores want it, zeros past the
// ends. A tile is 128 rows by 128 columns of the products, or 64 by 256 where 128 would add too many rows of nothing to
// the last ones. For a gated product the first half of these columns comes from G and the second from U, so that a
// thread holds gate and up of the same element, and half as many are written.
//
// Idea. Persistent clusters of two blocks with neighbouring rows; each fetches half of the weight's tile and sends it
// to both. In a block one warpgroup loads and two take turns: their tiles follow one another in the ring of stages, so
// that the epilogue of one (exponentials, stores) runs beside the products of the other, which alone keep the tensor
// cores busy. Rows leave through shared memory, 64 columns at a time, by the copy engine, which clips the ends. Tiles
// are taken in groups of kGroup row pairs, so that those in work at one time share rows and weights in L2.
//
// Sameness. The inner dimension is summed in order, 16 at a time, whatever the tile. Where a row's bits must depend on
// that row alone, all tiles are square, so that nobody need know whether the two instructions round alike.
//
// Limits. bfloat16, float16; in, out and x_stride multiples of 8, pointers of 16 bytes. SiLU gates and quick GELU
// alone: erf GELU keeps the multiprocessor longer than the store of its argument would take, and cuBLASLt has tanh
// GELU.
//
// Square tiles take 64 bytes a clock into a multiprocessor, flat ones 80: gate of 1024, 4096, 16384 and 32768 rows,
// 1024 to 4096, 661, 732, 759 and 718 TFLOP/s instead of 595, 690, 712 and 712 on an H200 in bfloat16 (power binds the
// last).
//
// Tried and lost there: both warpgroups at one tile of 128 by 256, a few stages apart (2 to 10 % slower than flat ones
// that take turns: the tensor cores waited for both epilogues); clusters of four (30 of them find room: half the
// speed); tiles of 64 by 128 for few rows (never faster than cuBLASLt and a kernel behind it).
#include "matmul_sm90.h"

#include <cuda.h>

#include <algorithm>

#include "activation.cuh"
#include "element.cuh"
#include "launch.cuh"
#include "matmul_sm90_shape.cuh"
#include "tensor_map.h"

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#include "matmul_sm90_instructions.cuh"
#endif

namespace oriel::kernels {
namespace {

template <class S>
struct KernelArguments {
  const void* bias;
  int out;    // columns of y
  int steps;  // of kInner along the inner dimension
  sm90::TileOrder<S> order;
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

/// A stage of the ring.
template <int kStages>
class Ring {
 public:
  [[nodiscard]] __device__ __forceinline__ int slot() const { return slot_; }
  [[nodiscard]] __device__ __forceinline__ std::uint32_t parity() const { return parity_; }
  __device__ __forceinline__ void advance() {
    if (++slot_ == kStages) {
      slot_ = 0;
      parity_ ^= 1;
    }
  }
  __device__ __forceinline__ void skip(int stages) {
    const int to = slot_ + stages;
    parity_ ^= to / kStages & 1;
    slot_ = to % kStages;
  }

 private:
  int slot_ = 0;
  std::uint32_t parity_ = 0;
};

/// By one thread of each block.
template <class S, bool kGated>
__device__ void load_tiles(const CUtensorMap& x, const CUtensorMap& weight, const sm90::ProductMemory<S>& shared,
                           const KernelArguments<S>& arguments, int rank) {
  constexpr int kHalf = S::kColumns / 2;
  Ring<S::kStages> ring;
  for (int t = blockIdx.x / S::kCluster; t < arguments.order.count; t += gridDim.x / S::kCluster) {
    const sm90::Tile tile = arguments.order.tile(t);
    const int row = (tile.row_pair * S::kCluster + rank) * S::kRows;
    const int column = kGated ? tile.column * kHalf : tile.column * S::kColumns + rank * kHalf;
#pragma unroll 1
    for (int step = 0; step < arguments.steps; ++step) {
      sm90::barrier_wait(shared.empty(ring.slot()), ring.parity() ^ 1);
      sm90::barrier_arrive_expecting(shared.full(ring.slot()), S::kStageBytes);
      sm90::copy_box(shared.x(ring.slot()), x, step * S::kInner, row, 0, shared.full(ring.slot()));
      sm90::copy_box_to_all(shared.weight(ring.slot()) + rank * (S::kWeightBytes / 2), weight, step * S::kInner, column,
                            kGated ? rank : 0, shared.full(ring.slot()), (1 << S::kCluster) - 1);
      ring.advance();
    }
  }
}

/// A warpgroup of those that compute: every other tile of its block.
///
/// Registers of a part, in the layout of wgmma's accumulators: lane l of warp w holds rows 16 w + l / 4 and 8 below it,
/// and of every 8 columns the two from 2 (l % 4) on. Element [4 i + 2 r + c] is row r of the two, and of the columns
/// 8 i + 2 (l % 4) + c.
template <class S, class T, ElementwiseFunction kFunction, bool kGated>
class Rows {
  using Op = sm90::Instructions<T>;
  static constexpr int kSums = S::kColumns / 2;                               // of a part
  static constexpr std::uint32_t kPartOperand = S::kXBytes / S::kParts / 16;  // as operands count addresses
  static constexpr int kOutColumns = kGated ? S::kColumns / 2 : S::kColumns;

 public:
  __device__ __forceinline__ Rows(const sm90::ProductMemory<S>& shared, const CUtensorMap& y,
                                  const KernelArguments<S>& arguments, int group, int rank)
      : shared_(shared),
        y_(y),
        arguments_(arguments),
        group_(group),
        rank_(rank),
        thread_(threadIdx.x % 128),
        lane_(threadIdx.x % 32) {}

  __device__ __forceinline__ void run() {
    const int stride = gridDim.x / S::kCluster;
    const int first = blockIdx.x / S::kCluster;
    const int other = 1 - group_;
    ring_.skip(group_ * arguments_.steps);
    for (int t = first + group_ * stride; t < arguments_.order.count; t += S::kConsumers * stride) {
      // A turn begins when the other's stages are full: a barrier's parity alone tells no more than two phases apart.
      if (t != first) sm90::meet(kFirstTurnBarrier + group_, 2 * 128);
      multiply(t + stride < arguments_.order.count ? kFirstTurnBarrier + other : 0);
      ring_.skip((S::kConsumers - 1) * arguments_.steps);
      finish(arguments_.order.tile(t));
    }
    if (thread_ == 0) sm90::stores_wait<0>();  // the block's memory goes when it ends
  }

 private:
  static constexpr int kFirstStoreBarrier = 1;
  static constexpr int kFirstTurnBarrier = 3;

  /// `next`: the barrier at which the other warpgroup waits for its turn, or 0.
  __device__ __forceinline__ void multiply(int next) {
    hold_sums();
#pragma unroll 1
    for (int step = 0; step < arguments_.steps; ++step) {
      sm90::barrier_wait(shared_.full(ring_.slot()), ring_.parity());
      const std::uint32_t x = sm90::operand_low(shared_.x(ring_.slot()), 16);
      const std::uint32_t weight = sm90::operand_low(shared_.weight(ring_.slot()), 16);
      sm90::product_fence();
#pragma unroll
      for (int i = 0; i < S::kInner / 16; ++i) {
        const std::uint64_t columns = sm90::operand(weight + 2 * i, sm90::kSwizzle128);
#pragma unroll
        for (int part = 0; part < S::kParts; ++part)
          sm90::WideProducts<T>::product(sums_[part], sm90::operand(x + part * kPartOperand + 2 * i, sm90::kSwizzle128),
                                         columns, i > 0 || step > 0);
      }
      sm90::product_commit();
      if (step > 0) {
        sm90::products_wait<1>();
        release(previous_);
      }
      previous_ = ring_.slot();
      ring_.advance();
    }
    if (next != 0) sm90::pass(next, 2 * 128);
    sm90::products_wait<0>();
    hold_sums();
    release(previous_);
  }

  /// Each warp's first lanes tell one block of the cluster each: its loader writes here, too.
  __device__ __forceinline__ void release(int slot) const {
    if (lane_ < S::kCluster) sm90::barrier_arrive_at(shared_.empty(slot), static_cast<std::uint32_t>(lane_));
  }

  __device__ __forceinline__ void hold_sums() {
#pragma unroll
    for (int part = 0; part < S::kParts; ++part) sm90::hold(sums_[part]);
  }

  __device__ __forceinline__ void finish(const sm90::Tile tile) {
    const int row = (tile.row_pair * S::kCluster + rank_) * S::kRows;
#pragma unroll
    for (int part = 0; part < S::kParts; ++part)
      finish_part(sums_[part], row + part * S::kPartRows, tile.column * kOutColumns);
  }

  __device__ __forceinline__ void finish_part(const float (&sums)[kSums], int row, int column) {
#pragma unroll
    for (int panel = 0; panel < kOutColumns / 64; ++panel) {
      const std::uint32_t staging = shared_.staging(group_);
      std::uint32_t packed[16];
      compute(sums, panel, column + 64 * panel, packed);
      if (thread_ == 0) sm90::stores_wait<0>();  // what lay there before
      sm90::meet(kFirstStoreBarrier + group_, 128);
      stage(staging, packed);
      sm90::shared_writes_fence();
      sm90::meet(kFirstStoreBarrier + group_, 128);
      if (thread_ == 0) {
        sm90::store_box(y_, column + 64 * panel, row, staging);
        sm90::stores_commit();
      }
    }
  }

  /// This thread's two bias values at `column`, zeros past the end.
  __device__ __forceinline__ float2 bias_at(int column, int part) const {
    if (arguments_.bias == nullptr || column >= arguments_.out) return {0.F, 0.F};
    const T* const from = static_cast<const T*>(arguments_.bias) + static_cast<std::int64_t>(part) * arguments_.out;
    const std::uint32_t word = __ldg(reinterpret_cast<const std::uint32_t*>(from + column));
    const T* const pair = reinterpret_cast<const T*>(&word);
    return {widen(pair[0]), widen(pair[1])};
  }

  /// A part's 64 columns of y from `column` on.
  __device__ __forceinline__ void compute(const float (&all)[kSums], int panel, int column,
                                          std::uint32_t (&packed)[16]) const {
    const int own = column + 2 * (lane_ % 4);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float* const sums = all + 4 * (8 * panel + i);
      const float2 bias = bias_at(own + 8 * i, 0);
      float values[4];
#pragma unroll
      for (int k = 0; k < 4; ++k) values[k] = apply<T, kFunction>(sums[k] + (k % 2 == 0 ? bias.x : bias.y));
      if constexpr (kGated) {
        const float2 up = bias_at(own + 8 * i, 1);
#pragma unroll
        for (int k = 0; k < 4; ++k) values[k] *= sums[kSums / 2 + k] + (k % 2 == 0 ? up.x : up.y);
      }
      packed[2 * i] = Op::pack(values[0], values[1]);
      packed[2 * i + 1] = Op::pack(values[2], values[3]);
    }
  }

  /// 64 rows of 64 columns, swizzled as the tensor map of y says: chunk c of row r lies at c ^ r % 8.
  __device__ __forceinline__ void stage(std::uint32_t staging, const std::uint32_t (&packed)[16]) const {
    const int row = thread_ / 32 * 16 + lane_ % 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int chunk = 2 * i + lane_ / 16;
      const std::uint32_t matrices[4] = {packed[4 * i], packed[4 * i + 1], packed[4 * i + 2], packed[4 * i + 3]};
      sm90::store_matrices(staging + row * 128 + (chunk ^ row % 8) * 16, matrices);
    }
  }

  const sm90::ProductMemory<S>& shared_;
  const CUtensorMap& y_;
  const KernelArguments<S>& arguments_;
  const int group_;
  const int rank_;
  const int thread_;
  const int lane_;
  Ring<S::kStages> ring_;
  int previous_ = 0;  // slot whose products may still run
  float sums_[S::kParts][kSums];
};

template <class S, class T, ElementwiseFunction kFunction, bool kGated>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(S::kThreads, 1)
    product_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
                   const __grid_constant__ CUtensorMap y, const __grid_constant__ KernelArguments<S> arguments) {
  extern __shared__ std::uint8_t memory[];
  const sm90::ProductMemory<S> shared{(sm90::shared_address(memory) + S::kAlignment - 1) &
                                      ~static_cast<std::uint32_t>(S::kAlignment - 1)};
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < S::kStages; ++stage) {
      sm90::barrier_init(shared.full(stage), 1);
      sm90::barrier_init(shared.empty(stage), 4 * S::kCluster);  // each warp of the tile's warpgroups
    }
    sm90::barrier_init_fence();
  }
  let_next_kernel_begin();
  sm90::cluster_sync();
  wait_for_kernels_before();

  const int rank = static_cast<int>(sm90::cluster_rank());
  const int group = __shfl_sync(~0U, threadIdx.x / 128, 0);  // uniform for the compiler too
  if (group == S::kConsumers) {
    sm90::give_registers<S::kLoaderRegisters>();
    if (threadIdx.x % 128 == 0) load_tiles<S, kGated>(x, weight, shared, arguments, rank);
    __syncwarp();
  } else {
    sm90::take_registers<S::kConsumerRegisters>();
    Rows<S, T, kFunction, kGated>(shared, y, arguments, group, rank).run();
  }
  sm90::cluster_sync();  // the other block may still tell this one's barriers
}

#else

// What other architectures get. Its limit of threads a block tells the launcher that the device has this one.
template <class S, class T, ElementwiseFunction kFunction, bool kGated>
__global__ void __launch_bounds__(1)
    product_kernel(const __grid_constant__ CUtensorMap, const __grid_constant__ CUtensorMap,
                   const __grid_constant__ CUtensorMap, const __grid_constant__ KernelArguments<S>) {}

#endif

struct Maps {
  CUtensorMap x, weight, y;
};

template <class S>
cudaError_t encode_maps(const MatmulSm90Params& p, Maps& maps) {
  const auto size = [](int64_t value) { return static_cast<cuuint64_t>(value); };
  const cuuint64_t x_sizes[3] = {size(p.in), size(p.rows), 1};
  const cuuint64_t x_strides[2] = {size(2 * p.x_stride), size(2 * p.x_stride * p.rows)};
  const cuuint32_t x_box[3] = {S::kInner, S::kRows, 1};
  cudaError_t error = encode_tensor_map(p.element, p.x, 3, x_sizes, x_strides, x_box, &maps.x);
  const cuuint64_t weight_sizes[3] = {size(p.in), size(p.out), p.gated ? cuuint64_t{2} : cuuint64_t{1}};
  const cuuint64_t weight_strides[2] = {size(2 * p.in), size(2 * p.in * p.out)};
  const cuuint32_t weight_box[3] = {S::kInner, S::kColumns / S::kCluster, 1};
  if (error == cudaSuccess)
    error = encode_tensor_map(p.element, p.weight, 3, weight_sizes, weight_strides, weight_box, &maps.weight);
  const cuuint64_t y_sizes[2] = {size(p.out), size(p.rows)};
  const cuuint64_t y_strides[1] = {size(2 * p.out)};
  const cuuint32_t y_box[2] = {64, S::kPartRows};
  if (error == cudaSuccess) error = encode_tensor_map(p.element, p.y, 2, y_sizes, y_strides, y_box, &maps.y);
  return error;
}

/// Tiles along the rows, two blocks' each, and along the columns.
struct Tiles {
  int64_t row_pairs;
  int64_t columns;

  template <class S>
  Tiles(const MatmulSm90Params& p, S) {
    const int64_t out_columns = p.gated ? S::kColumns / 2 : S::kColumns;
    row_pairs = divide_up(p.rows, S::kCluster * S::kRows);
    columns = divide_up(p.out, out_columns);
  }
  [[nodiscard]] int64_t count() const { return row_pairs * columns; }
};

Tiles tiles_of(const MatmulSm90Params& p) {
  return matmul_sm90_is_square(p) ? Tiles(p, sm90::SquareProduct()) : Tiles(p, sm90::FlatProduct());
}

int64_t clusters_of(int processors) { return std::max(processors / sm90::FlatProduct::kCluster, 1); }

template <class S, class T, ElementwiseFunction kFunction, bool kGated>
cudaError_t launch(const MatmulSm90Params& p, int clusters, cudaStream_t stream) {
  const auto kernel = product_kernel<S, T, kFunction, kGated>;
  if (const cudaError_t error = allow_shared_memory(reinterpret_cast<const void*>(kernel), S::kThreads, S::kBytes);
      error != cudaSuccess)
    return error;
  Maps maps;
  if (const cudaError_t error = encode_maps<S>(p, maps); error != cudaSuccess) return error;
  const Tiles tiles(p, S());
  const KernelArguments<S> arguments{p.bias,
                                     static_cast<int>(p.out),
                                     static_cast<int>(divide_up(p.in, S::kInner)),
                                     {static_cast<int>(tiles.row_pairs), static_cast<int>(tiles.columns)}};
  const auto blocks = static_cast<unsigned>(S::kCluster * std::min(clusters, arguments.order.count));
  return launch_overlapping(kernel, Grid{dim3(blocks), dim3(S::kThreads), S::kBytes}, stream, maps.x, maps.weight,
                            maps.y, arguments);
}

template <class S, class T>
cudaError_t launch_function(const MatmulSm90Params& p, int clusters, cudaStream_t stream) {
  using E = ElementwiseFunction;
  return p.gated ? launch<S, T, E::silu, true>(p, clusters, stream)
                 : launch<S, T, E::quick_gelu, false>(p, clusters, stream);
}

template <class S>
cudaError_t launch_shape(const MatmulSm90Params& p, int clusters, cudaStream_t stream) {
  return p.element == Element::float16 ? launch_function<S, __half>(p, clusters, stream)
                                       : launch_function<S, __nv_bfloat16>(p, clusters, stream);
}

}  // namespace

bool matmul_sm90_supports(const MatmulSm90Params& p, int compute_major, int compute_minor) {
  using E = ElementwiseFunction;
  const auto aligned = [](const void* pointer) { return is_aligned(pointer, 16); };
  const bool function = p.function == (p.gated ? E::silu : E::quick_gelu);
  const bool sizes = p.in % 8 == 0 && p.out % 8 == 0 && p.x_stride % 8 == 0 && p.rows <= INT32_MAX / 2 &&
                     p.in <= INT32_MAX / 2 && p.out <= INT32_MAX / 2 && tiles_of(p).count() <= INT32_MAX / 2;
  return compute_major == 9 && compute_minor == 0 && function && sizes && p.element != Element::float32 &&
         aligned(p.x) && aligned(p.weight) && aligned(p.bias) && aligned(p.y);
}

// What square tiles add to the last rows costs more than they win: 1,344 rows would run as 1,536.
bool matmul_sm90_is_square(const MatmulSm90Params& p) {
  constexpr int64_t step = sm90::SquareProduct::kCluster * sm90::SquareProduct::kRows;
  const int64_t added = divide_up(p.rows, step) * step - p.rows;
  return p.deterministic || 32 * added <= p.rows;
}

bool matmul_sm90_pays(const MatmulSm90Params& p, int processors) {
  const int64_t tiles = tiles_of(p).count();
  const int64_t rounds = divide_up(tiles, clusters_of(processors));
  const int64_t least_percent = matmul_sm90_is_square(p) ? 78
                                : p.gated                ? 80
                                                         : 85;  // of the tiles that the rounds have room for
  return (p.gated && rounds <= 1) || 100 * tiles >= least_percent * rounds * clusters_of(processors);
}

bool matmul_sm90_is_close(const MatmulSm90Params& p, int processors) {
  return tiles_of(p).count() <= 2 * clusters_of(processors);
}

cudaError_t matmul_sm90(const MatmulSm90Params& p, int processors, cudaStream_t stream) {
  if (!matmul_sm90_supports(p, 9, 0)) return cudaErrorNotSupported;  // another chip: found by the launch
  if (p.rows < 0 || p.in < 1 || p.out < 1 || p.x_stride < p.in || processors < sm90::FlatProduct::kCluster)
    return cudaErrorInvalidValue;
  if (p.rows == 0) return cudaSuccess;
  if (p.x == nullptr || p.weight == nullptr || p.y == nullptr) return cudaErrorInvalidValue;
  const auto clusters = static_cast<int>(clusters_of(processors));
  return matmul_sm90_is_square(p) ? launch_shape<sm90::SquareProduct>(p, clusters, stream)
                                  : launch_shape<sm90::FlatProduct>(p, clusters, stream);
}

}  // namespace oriel::kernels
