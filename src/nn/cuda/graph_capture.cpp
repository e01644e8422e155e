#include "nn/cuda/graph_capture.hpp"

#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/from_blob.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/util/Exception.h>

#include <exception>
#include <utility>

#include "ops/device.hpp"

namespace oriel::nn {
namespace allocator = c10::cuda::CUDACachingAllocator;

class GraphPool {
 public:
  explicit GraphPool(c10::Device device) : device_(device), kept_(device) {}
  ~GraphPool() {
    try {
      for (; uses_ > 0; --uses_) allocator::releasePool(device_.index(), id_);
    } catch (const std::exception&) {  // what ends can't be refused; the memory stays libtorch's
    }
  }
  GraphPool(const GraphPool&) = delete;
  GraphPool& operator=(const GraphPool&) = delete;

  /// From here on what libtorch allocates for the stream comes from the pool.
  void begin(cudaStream_t stream) {
    const auto is_it = [stream](cudaStream_t other) { return other == stream; };
    allocator::beginAllocateToPool(device_.index(), id_, is_it);
    ++uses_;
  }
  void end() { allocator::endAllocateToPool(device_.index(), id_); }

  /// Counts what the pool keeps unused. Wanted when it may have grown.
  void count() noexcept {
    try {
      int64_t unused = 0;
      for (const auto& segment : allocator::snapshot(id_, /*include_traces=*/false).segments)
        if (segment.owner_private_pool_id == id_)
          unused += static_cast<int64_t>(segment.total_size) - static_cast<int64_t>(segment.allocated_size);
      kept_.set(unused);
    } catch (const std::exception&) {  // an allocator without pools, which keeps nothing for them
    }
  }

 private:
  at::cuda::MempoolId_t id_ = at::cuda::graph_pool_handle();
  c10::Device device_;
  ops::KeptForGraphs kept_;
  int uses_ = 0;
};

namespace {

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { (void)cudaGraphDestroy(graph); }
};
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;

/// While it lives, what this thread enqueues on the stream is recorded, with memory from the pool.
class Recording {
 public:
  Recording(GraphPool& pool, cudaStream_t stream) : pool_(pool), stream_(stream) {
    pool.begin(stream);
    const cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) pool.end();
    C10_CUDA_CHECK(error);
  }
  ~Recording() {
    if (stream_ != nullptr) (void)end();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  /// What was recorded; null where something was enqueued that can't be.
  Graph end() {
    cudaGraph_t graph = nullptr;
    (void)cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph);
    pool_.end();
    return Graph(graph);
  }

 private:
  GraphPool& pool_;
  cudaStream_t stream_;
};

CapturedGraph::Executable instantiate(cudaGraph_t graph) {
  constexpr auto flags = cudaGraphInstantiateFlagAutoFreeOnLaunch | cudaGraphInstantiateFlagUseNodePriority;
  cudaGraphExec_t executable = nullptr;
  const cudaError_t error = cudaGraphInstantiateWithFlags(&executable, graph, flags);
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError();
    TORCH_CHECK_WITH(OutOfMemoryError, false, "no memory for a graph itself");
  }
  C10_CUDA_CHECK(error);
  return CapturedGraph::Executable(executable);
}

/// The same values, whose memory the pool may give to other graphs: they do not run while these are read.
at::Tensor without_hold(const at::Tensor& x) {
  return at::for_blob(x.mutable_data_ptr(), x.sizes())
      .strides(x.strides())
      .options(x.options())
      .target_device(x.device())
      .make_tensor();
}

/// Null where CUDA can't capture what forward does.
std::unique_ptr<CapturedGraph> capture_into(const std::shared_ptr<GraphPool>& pool, cudaStream_t stream,
                                            const std::function<at::Tensor()>& forward) {
  Recording recording(*pool, stream);
  at::Tensor result = forward();
  const Graph graph = recording.end();
  if (!graph) return nullptr;
  size_t launches = 0;
  C10_CUDA_CHECK(cudaGraphGetNodes(graph.get(), nullptr, &launches));
  return std::make_unique<CapturedGraph>(pool, instantiate(graph.get()), without_hold(result),
                                         static_cast<int64_t>(launches));
}

/// The pool can't use what libtorch's allocator caches for others, such as what the same forward used when it ran
/// plainly, and while a stream is captured the allocator does not give it back by itself. Sets `memory_ran_out` where
/// the first try found no memory.
std::unique_ptr<CapturedGraph> capture_with_all_memory(const std::shared_ptr<GraphPool>& pool, cudaStream_t stream,
                                                       const std::function<at::Tensor()>& forward,
                                                       bool& memory_ran_out) {
  try {
    return capture_into(pool, stream, forward);
  } catch (const c10::OutOfMemoryError&) {
    memory_ran_out = true;
    allocator::emptyCache();
  }
  return capture_into(pool, stream, forward);
}

}  // namespace

void CapturedGraph::replay() {
  C10_CUDA_CHECK(cudaGraphLaunch(executable_.get(), c10::cuda::getCurrentCUDAStream(result_.device().index())));
}

int64_t CapturedGraph::launch_bytes() const {
  constexpr int first_frugal_driver = 12040;
  int driver = 0;
  C10_CUDA_CHECK(cudaDriverGetVersion(&driver));
  return launches_ * (driver < first_frugal_driver ? int64_t{64} << 10 : int64_t{8} << 10);
}

GraphCaptures::GraphCaptures(c10::Device device) : device_(device) {
  const c10::cuda::CUDAGuard guard(device);
  C10_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}

GraphCaptures::~GraphCaptures() { (void)cudaStreamDestroy(stream_); }

std::unique_ptr<CapturedGraph> GraphCaptures::capture(const std::function<at::Tensor()>& forward) {
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromExternal(stream_, device_.index()));
  std::shared_ptr<GraphPool> pool = pool_.lock();
  if (!pool) pool_ = pool = std::make_shared<GraphPool>(device_);
  std::unique_ptr<CapturedGraph> graph;
  memory_ran_out_ = false;
  try {
    graph = capture_with_all_memory(pool, stream_, forward, memory_ran_out_);
    if (graph) memory_ran_out_ = false;
  } catch (const std::exception&) {  // no graph for this forward, which then runs plainly and may throw there
  }
  if (!graph) (void)cudaGetLastError();  // not to be found by the next launch
  pool->count();
  return graph;
}

RecordAtEnd::~RecordAtEnd() {
  try {
    event_.record(stream_);
  } catch (const std::exception&) {
    (void)cudaGetLastError();
  }
}

LastUse::~LastUse() {
  try {
    wait();
  } catch (const std::exception&) {
    (void)cudaGetLastError();  // the GPU is lost, and with it what used the rooms
  }
}

void LastUse::block(c10::cuda::CUDAStream stream) {
  if (event_.isCreated()) event_.block(stream);
}

}  // namespace oriel::nn
