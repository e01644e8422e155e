#include "nn/cuda/decoder_graphs.hpp"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAStream.h>

#include <bit>
#include <utility>

#include "ops/device.hpp"

namespace oriel::nn {

struct DecoderGraphs::Entry {
  at::Tensor staging;  ///< pinned: what the room gets next
  at::Tensor room;     ///< what the graph reads; stays where it is
  std::unique_ptr<CapturedGraph> graph;
  bool has_run = false;
  CaptureTurns captures;
};

DecoderGraphs::DecoderGraphs(std::shared_ptr<const void> owner, c10::Device device)
    : owner_(std::move(owner)), device_(device), captures_(device) {}

DecoderGraphs::~DecoderGraphs() = default;

at::Tensor DecoderGraphs::run(const at::Tensor& input, const Forward& forward) {
  const int64_t tokens = input.size(1);
  if (tokens > most_tokens) return forward(ops::upload(input, device_));
  Entry& entry = entry_of(static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(tokens))), input.size(0));
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream(device_.index());
  rooms_.wait();  // the step before, mostly long ago
  const RecordAtEnd record = rooms_.on(stream);
  entry.staging.zero_();
  entry.staging.narrow(1, 0, tokens).copy_(input);
  entry.room.copy_(entry.staging, /*non_blocking=*/true);

  if (entry.has_run && !entry.graph && entry.captures.is_next()) {
    entry.graph = captures_.capture([&] { return forward(entry.room); });
    if (!entry.graph) entry.captures.failed(captures_.memory_ran_out());
  }
  if (!entry.graph) {
    at::Tensor logits = forward(entry.room).narrow(0, 0, tokens);
    entry.has_run = true;  // to its end: what is not timed by then would be captured untimed
    return logits;
  }
  entry.graph->replay();
  ++replays_;
  return entry.graph->result().narrow(0, 0, tokens).clone();
}

DecoderGraphs::Entry& DecoderGraphs::entry_of(int64_t tokens, int64_t rows) {
  if (const auto found = entries_.find(tokens); found != entries_.end()) return found->second;
  Entry entry;  // kept when all of it is there: memory may run out on the way
  entry.staging = at::empty({rows, tokens}, at::dtype(at::kLong).pinned_memory(true));
  entry.room = at::empty({rows, tokens}, at::dtype(at::kLong).device(device_));
  return entries_.emplace(tokens, std::move(entry)).first->second;
}

}  // namespace oriel::nn
