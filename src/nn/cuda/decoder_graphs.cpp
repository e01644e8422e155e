#include "nn/cuda/decoder_graphs.hpp"

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace oriel::nn {

struct DecoderGraphs::Entry {
  at::Tensor staging;  ///< pinned: what the room gets next
  at::Tensor room;     ///< what the graph reads; stays where it is
  at::Tensor logits;   ///< what the graph writes
  std::unique_ptr<at::cuda::CUDAGraph> graph;
  bool has_run = false;
  bool is_plain = false;  ///< capturing failed
};

struct DecoderGraphs::Shared {
  at::cuda::MempoolId_t pool = at::cuda::graph_pool_handle();  ///< of all graphs: they never run at the same time
  at::cuda::CUDAEvent done;                                    ///< behind the last use of the rooms
  cudaStream_t capturing = nullptr;  ///< of captures alone: what another thread enqueued there would be captured too

  Shared() { C10_CUDA_CHECK(cudaStreamCreateWithFlags(&capturing, cudaStreamNonBlocking)); }
  ~Shared() { (void)cudaStreamDestroy(capturing); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
};

DecoderGraphs::DecoderGraphs(const void* owner, c10::Device device)
    : owner_(owner), device_(device), shared_(std::make_unique<Shared>()) {}

DecoderGraphs::~DecoderGraphs() {
  try {
    shared_->done.synchronize();  // the rooms may be in use
  } catch (const std::exception&) {
    (void)cudaGetLastError();  // the GPU is lost, and with it what used them
  }
  entries_.clear();
}

at::Tensor DecoderGraphs::run(const at::Tensor& input, const Forward& forward) {
  const int64_t tokens = input.size(1);
  if (tokens > most_tokens) return forward(input.to(device_));
  Entry& entry = entry_of(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens))), input.size(0));
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device_.index());
  shared_->done.synchronize();  // the copy out of the staging room, mostly long ago
  entry.staging.zero_();
  entry.staging.narrow(1, 0, tokens).copy_(input);
  entry.room.copy_(entry.staging, /*non_blocking=*/true);
  shared_->done.record(stream);

  const auto finish = [&](const at::Tensor& logits) {
    shared_->done.record(stream);
    return logits;
  };
  if (entry.has_run && !entry.graph && !entry.is_plain) capture(entry, forward);
  if (!entry.graph) {
    const at::Tensor logits = forward(entry.room).narrow(0, 0, tokens);
    entry.has_run = true;  // to its end: what is not timed by then would be captured untimed
    return finish(logits);
  }
  entry.graph->replay();
  ++replays_;
  return finish(entry.logits.narrow(0, 0, tokens).clone());
}

DecoderGraphs::Entry& DecoderGraphs::entry_of(int64_t tokens, int64_t rows) {
  if (const auto found = entries_.find(tokens); found != entries_.end()) return found->second;
  Entry entry;  // kept when all of it is there: memory may run out on the way
  entry.staging = at::empty({rows, tokens}, at::dtype(at::kLong).pinned_memory(true));
  entry.room = at::empty({rows, tokens}, at::dtype(at::kLong).device(device_));
  return entries_.emplace(tokens, std::move(entry)).first->second;
}

/// Other threads may go on allocating and launching meanwhile. What fails here, fails for good: the size runs plainly.
void DecoderGraphs::capture(Entry& entry, const Forward& forward) {
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromExternal(shared_->capturing, device_.index()));
  try {
    graph->capture_begin(shared_->pool, cudaStreamCaptureModeThreadLocal);
    try {
      entry.logits = forward(entry.room);
    } catch (...) {
      graph->capture_end();
      throw;
    }
    graph->capture_end();
    entry.graph = std::move(graph);
  } catch (const std::exception&) {
    (void)cudaGetLastError();
    entry.logits.reset();
    entry.is_plain = true;
    (void)graph.release();  // if it could not end, libtorch's allocator still refers to it
  }
}

}  // namespace oriel::nn
