#include "nn/cuda/vit_graphs.hpp"

#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace oriel::nn {
namespace {

constexpr size_t most_sizes = 4096;  // that are remembered without a graph
constexpr int64_t most_budget = int64_t{512} << 20;

int64_t budget_of_device() {
  size_t free = 0;
  size_t total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return std::min(static_cast<int64_t>(total) / 64, most_budget);
}

/// Room for the segments, and for those of the rows that are added.
int64_t rounded_segments(const ops::Segments& segments, int64_t added_rows) {
  if (segments.bounds.empty()) return 0;
  const int64_t longest = segments.longest_possible;
  const int64_t count = static_cast<int64_t>(segments.bounds.size()) - 1;
  // Of a picture's segments always one more, so that whether rows are added makes no difference.
  return longest > 0 ? (count + (added_rows + longest - 1) / longest + 31) / 32 * 32
                     : static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(count + 1)));
}

/// Copies x to the first rows of its room, which is made with the first x.
void fill(at::Tensor& room, const at::Tensor& x) {
  if (!x.defined()) return;
  if (!room.defined()) room = at::zeros({VitGraphs::most_patches, x.size(1)}, x.options());
  room.narrow(0, 0, x.size(0)).copy_(x);
}

int64_t bytes_of(const ops::Segments& segments) {
  int64_t bytes = 0;
  for (const at::Tensor& x : {segments.cu_seqlens, segments.plan})
    if (x.defined()) bytes += static_cast<int64_t>(x.nbytes());
  return bytes;
}

/// Its memory goes to others when what is enqueued on the stream is done.
void let_go(ops::Segments& segments, c10::cuda::CUDAStream stream) {
  for (const at::Tensor& x : {segments.cu_seqlens, segments.plan})
    if (x.defined()) x.record_stream(stream.unwrap());
  segments = {};
}

}  // namespace

struct VitGraphs::Entry {
  ops::Segments segments, windows;  ///< what the graph reads; stay where they are
  at::Tensor arranged_for;          ///< cu_seqlens of the call whose segments are there
  std::unique_ptr<CapturedGraph> graph;
  int64_t last_use = 0;
  int64_t bytes = 0;
  bool has_run = false;
  CaptureTurns captures;
};

/// One call of run: what is the same for whatever is made of it.
struct VitGraphs::Call {
  const VitSpec& spec;
  const VitInput& input;
  const Forward& forward;
  Key key;

  Call(const VitSpec& the_spec, const VitInput& the_input, const Forward& the_forward, int64_t padded)
      : spec(the_spec),
        input(the_input),
        forward(the_forward),
        key(key_of(the_input.patches.size(0), padded, the_input)) {}

  [[nodiscard]] ops::Segments segments() const { return pad(input.segments, key.segments); }
  [[nodiscard]] ops::Segments windows() const {
    return key.windows > 0 ? pad(input.window_segments, key.windows) : ops::Segments();
  }
  /// Puts the segments where the graph reads them: the first ones are the room for all that follow.
  void arrange(Entry& entry) const {
    if (entry.arranged_for.is_same(input.segments.cu_seqlens)) return;
    entry.arranged_for.reset();  // until all of it is there
    ops::Segments padded = segments();
    ops::Segments padded_windows = windows();
    if (entry.segments.cu_seqlens.defined()) {
      ops::refill(entry.segments, padded);
      if (key.windows > 0) ops::refill(entry.windows, padded_windows);
    } else {
      entry.segments = std::move(padded);
      entry.windows = std::move(padded_windows);
    }
    entry.arranged_for = input.segments.cu_seqlens;
  }

 private:
  [[nodiscard]] ops::Segments pad(const ops::Segments& from, int64_t count) const {
    const ops::AttentionShape shape{spec.heads, spec.head_dim(), from.longest_possible};
    return ops::pad_segments(from, key.rows, count, shape, input.patches.device());
  }
};

VitGraphs::Key VitGraphs::key_of(int64_t rows, int64_t padded, const VitInput& arrangement) {
  return {padded, rounded_segments(arrangement.segments, padded - rows),
          rounded_segments(arrangement.window_segments, padded - rows)};
}

int64_t VitGraphs::rounded_rows(int64_t rows) {
  const auto octave = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows)));
  const int64_t step = std::clamp<int64_t>(octave / 16, 64, 256);
  return (rows + step - 1) / step * step;
}

VitGraphs::VitGraphs(int64_t budget) : budget_(budget) {}

VitGraphs::~VitGraphs() = default;

std::optional<at::Tensor> VitGraphs::run(const VitSpec& spec, const VitInput& input, const Forward& forward) {
  const int64_t rows = input.patches.size(0);
  const ops::AttentionShape shape{spec.heads, spec.head_dim(), input.window_segments.longest_possible};
  if (rows == 0 || rows > most_patches || !input.patches.is_contiguous() ||
      !ops::attention_can_be_captured(input.patches.scalar_type(), input.patches.device(), shape))
    return std::nullopt;
  const std::lock_guard lock(mutex_);
  const Call call(spec, input, forward, rounded_rows(rows));
  Entry& entry = entry_of(call.key);
  if (entry.has_run && !entry.graph && !entry.captures.is_next()) return std::nullopt;

  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  last_use_.block(stream);
  const RecordAtEnd record = last_use_.on(stream);
  fill_room(input);
  if (!entry.has_run) {
    at::Tensor result = forward(room_with(call.segments(), call.windows(), call.key.rows)).narrow(0, 0, rows);
    entry.has_run = true;
    return result;
  }
  call.arrange(entry);
  if (!entry.graph && !capture(entry, call)) return std::nullopt;
  entry.graph->replay();
  ++replays_;
  return entry.graph->result().narrow(0, 0, rows).clone();
}

bool VitGraphs::has_graph(int64_t rows, const VitInput& arrangement) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key_of(rows, rounded_rows(rows), arrangement));
  return found != entries_.end() && found->second.graph;
}

bool VitGraphs::has_room() {
  const std::lock_guard lock(mutex_);
  return room_.patches.defined();
}

int64_t VitGraphs::replays() {
  const std::lock_guard lock(mutex_);
  return replays_;
}

int64_t VitGraphs::graph_bytes() {
  const std::lock_guard lock(mutex_);
  return graph_bytes_;
}

VitGraphs::Entry& VitGraphs::entry_of(const Key& key) {
  if (entries_.size() >= most_sizes && !entries_.contains(key))
    std::erase_if(entries_, [](const auto& entry) { return !entry.second.graph; });
  Entry& entry = entries_[key];
  entry.last_use = ++calls_;
  return entry;
}

void VitGraphs::fill_room(const VitInput& input) {
  fill(room_.patches, input.patches);
  if (tables_of_.is_same(input.segments.cu_seqlens)) return;
  tables_of_.reset();  // until all of it is there
  fill(room_.positions, input.positions);
  fill(room_.rotary.cos, input.rotary.cos);
  fill(room_.rotary.sin, input.rotary.sin);
  fill(room_.rotary.turns, input.rotary.turns);
  tables_of_ = input.segments.cu_seqlens;
}

VitInput VitGraphs::room_with(ops::Segments segments, ops::Segments windows, int64_t rows) const {
  const auto first = [rows](const at::Tensor& room) { return room.defined() ? room.narrow(0, 0, rows) : room; };
  return {.patches = first(room_.patches),
          .positions = first(room_.positions),
          .rotary = {first(room_.rotary.cos), first(room_.rotary.sin), first(room_.rotary.turns)},
          .segments = std::move(segments),
          .window_segments = std::move(windows)};
}

/// Makes the graph of an entry whose segments are there; false if there is none.
bool VitGraphs::capture(Entry& entry, const Call& call) {
  if (!captures_) captures_.emplace(call.input.patches.device());
  widen_pool(call);
  const VitInput padded = room_with(entry.segments, entry.windows, call.key.rows);
  entry.graph = captures_->capture([&] { return call.forward(padded); });
  if (!entry.graph) {
    entry.segments = entry.windows = {};
    entry.arranged_for.reset();
    entry.captures.failed(captures_->memory_ran_out());
    return false;
  }
  pool_rows_ = std::max(pool_rows_, call.key.rows);
  entry.bytes = entry.graph->launch_bytes() + bytes_of(entry.segments) + bytes_of(entry.windows);
  graph_bytes_ += entry.bytes;
  make_way_for(entry);
  return true;
}

/// Blocks that graphs of one size left in the pool are no room for a larger one's, and sizes that come in rising order
/// would each add theirs. So with the second size of an octave the pool is made large enough for all of it, by a
/// capture of its largest one that is not kept. If that fails, nothing is lost.
void VitGraphs::widen_pool(const Call& call) {
  const auto octave = [](int64_t rows) { return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows))); };
  const int64_t rows = octave(call.key.rows);
  if (call.key.rows <= pool_rows_ || pool_rows_ == 0 || octave(pool_rows_) != rows || call.key.rows == rows ||
      rows == not_widened_to_)
    return;
  const Call largest(call.spec, call.input, call.forward, rows);
  const VitInput padded = room_with(largest.segments(), largest.windows(), rows);
  if (captures_->capture([&] { return call.forward(padded); }))
    pool_rows_ = rows;
  else
    not_widened_to_ = rows;
}

/// Lets go of what was used least recently until the budget is kept. CUDA ends a graph when it has run.
void VitGraphs::make_way_for(const Entry& newest) {
  if (budget_ == 0) budget_ = budget_of_device();
  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();  // it waits for the last use of all of them
  while (graph_bytes_ > budget_) {
    Entry* oldest = nullptr;
    for (auto& [key, entry] : entries_)
      if (entry.graph && &entry != &newest && (oldest == nullptr || entry.last_use < oldest->last_use)) oldest = &entry;
    if (oldest == nullptr) return;
    oldest->graph.reset();
    oldest->arranged_for.reset();
    let_go(oldest->segments, stream);
    let_go(oldest->windows, stream);
    graph_bytes_ -= std::exchange(oldest->bytes, 0);
  }
}

}  // namespace oriel::nn
