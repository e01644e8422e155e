#include "nn/cuda/vit_graphs.hpp"

#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace oriel::nn {
namespace {

/// Room for the segments, and for those of the rows that are added.
int64_t rounded_segments(const ops::Segments& segments, int64_t added_rows) {
  if (segments.bounds.empty()) return 0;
  const int64_t longest = segments.longest_possible > 0 ? segments.longest_possible : added_rows + 1;
  const int64_t count = static_cast<int64_t>(segments.bounds.size()) - 1 + (added_rows + longest - 1) / longest;
  return segments.longest_possible > 0 ? (count + 31) / 32 * 32
                                       : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(count)));
}

at::Tensor room_like(const at::Tensor& x, int64_t rows) {
  return x.defined() ? at::zeros({rows, x.size(1)}, x.options()) : at::Tensor();
}

void fill(const at::Tensor& room, const at::Tensor& x) {
  if (x.defined()) room.narrow(0, 0, x.size(0)).copy_(x);
}

/// The first ones are the room for all that follow.
void arrange(ops::Segments& room, ops::Segments padded) {
  if (room.cu_seqlens.defined())
    ops::refill(room, padded);
  else
    room = std::move(padded);
}

}  // namespace

struct VitGraphs::Key {
  int64_t rows = 0;
  int64_t segments = 0;
  int64_t windows = 0;
  friend bool operator==(const Key&, const Key&) = default;
};

struct VitGraphs::Entry {
  Key key;
  VitInput input;           ///< what the graph reads; stays where it is
  at::Tensor arranged_for;  ///< cu_seqlens of the call that the arrangement in `input` came from
  std::unique_ptr<CapturedGraph> graph;
  bool has_run = false;
  CaptureTurns captures;
};

VitGraphs::Key VitGraphs::key_of(int64_t rows, const VitInput& arrangement) {
  const int64_t padded = rounded_rows(rows);
  return {padded, rounded_segments(arrangement.segments, padded - rows),
          rounded_segments(arrangement.window_segments, padded - rows)};
}

int64_t VitGraphs::rounded_rows(int64_t rows) {
  const auto octave = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows)));
  const int64_t step = std::clamp<int64_t>(octave / 16, 64, 256);
  return (rows + step - 1) / step * step;
}

VitGraphs::VitGraphs() = default;

VitGraphs::~VitGraphs() = default;

std::optional<at::Tensor> VitGraphs::run(const VitSpec& spec, const VitInput& input, const Forward& forward) {
  const int64_t rows = input.patches.size(0);
  const ops::AttentionShape shape{spec.heads, spec.head_dim(), input.window_segments.longest_possible};
  if (rows == 0 || rows > most_patches || !input.patches.is_contiguous() ||
      !ops::attention_can_be_captured(input.patches.scalar_type(), input.patches.device(), shape))
    return std::nullopt;
  const std::lock_guard lock(mutex_);
  const Key key = key_of(rows, input);
  Entry& entry = entry_of(key, input);
  if (entry.has_run && !entry.graph && !entry.captures.is_next()) return std::nullopt;

  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  rooms_.block(stream);
  const RecordAtEnd record = rooms_.on(stream);
  fill(entry.input.patches, input.patches);
  if (!entry.arranged_for.is_same(input.segments.cu_seqlens)) {
    entry.arranged_for.reset();  // until all of it is there
    fill(entry.input.positions, input.positions);
    fill(entry.input.rotary.cos, input.rotary.cos);
    fill(entry.input.rotary.sin, input.rotary.sin);
    fill(entry.input.rotary.turns, input.rotary.turns);
    const ops::AttentionShape whole{spec.heads, spec.head_dim(), input.segments.longest_possible};
    const c10::Device device = input.patches.device();
    arrange(entry.input.segments, ops::pad_segments(input.segments, key.rows, key.segments, whole, device));
    if (key.windows > 0)
      arrange(entry.input.window_segments,
              ops::pad_segments(input.window_segments, key.rows, key.windows, shape, device));
    entry.arranged_for = input.segments.cu_seqlens;
  }

  if (!entry.has_run) {
    at::Tensor result = forward(entry.input).narrow(0, 0, rows);
    entry.has_run = true;
    return result;
  }
  if (!entry.graph) {
    if (!captures_) captures_.emplace(input.patches.device());
    entry.graph = captures_->capture([&] { return forward(entry.input); });
    if (!entry.graph) {
      entry.captures.failed(captures_->memory_ran_out());
      return std::nullopt;
    }
  }
  entry.graph->replay();
  ++replays_;
  return entry.graph->result().narrow(0, 0, rows).clone();
}

bool VitGraphs::has_graph(int64_t rows, const VitInput& arrangement) {
  const std::lock_guard lock(mutex_);
  const auto found = find(key_of(rows, arrangement));
  return found != entries_.end() && found->graph;
}

int64_t VitGraphs::replays() {
  const std::lock_guard lock(mutex_);
  return replays_;
}

std::list<VitGraphs::Entry>::iterator VitGraphs::find(const Key& key) {
  return std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.key == key; });
}

VitGraphs::Entry& VitGraphs::entry_of(const Key& key, const VitInput& input) {
  const auto found = find(key);
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return entries_.front();
  }
  if (entries_.size() >= most_graphs) {
    rooms_.wait();
    entries_.pop_back();
  }
  Entry entry;
  entry.key = key;
  entry.input.patches = room_like(input.patches, key.rows);
  entry.input.positions = room_like(input.positions, key.rows);
  entry.input.rotary = {room_like(input.rotary.cos, key.rows), room_like(input.rotary.sin, key.rows),
                        room_like(input.rotary.turns, key.rows)};
  entries_.push_front(std::move(entry));
  return entries_.front();
}

}  // namespace oriel::nn
