#include "nn/cuda/vit_graphs.hpp"

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/cuda/CUDAGraph.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
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
  at::Tensor features;      ///< what the graph writes
  std::unique_ptr<at::cuda::CUDAGraph> graph;
  bool has_run = false;
  bool is_plain = false;  ///< capturing failed
};

struct VitGraphs::Shared {
  at::cuda::MempoolId_t pool{0, 0};  ///< of all graphs: they never run at the same time
  at::cuda::CUDAEvent done;          ///< behind the last use of the rooms
  /// Of all captures, and of nobody else: what another thread enqueued here would be captured, too. One for all, since
  /// libtorch's allocator keeps a pool's blocks apart by stream.
  cudaStream_t capturing = nullptr;

  Shared() { C10_CUDA_CHECK(cudaStreamCreateWithFlags(&capturing, cudaStreamNonBlocking)); }
  ~Shared() { (void)cudaStreamDestroy(capturing); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
};

int64_t VitGraphs::rounded_rows(int64_t rows) {
  const auto octave = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(rows)));
  const int64_t step = std::clamp<int64_t>(octave / 16, 64, 256);
  return (rows + step - 1) / step * step;
}

VitGraphs::VitGraphs() = default;

VitGraphs::~VitGraphs() {
  try {
    if (shared_) shared_->done.synchronize();  // the rooms may be in use
  } catch (const std::exception&) {
    (void)cudaGetLastError();  // the GPU is lost, and with it what used them
  }
  entries_.clear();
}

namespace {

/// Records the event on the stream when it ends, whatever happened: what was enqueued until then uses the rooms.
class RecordAtEnd {
 public:
  RecordAtEnd(at::cuda::CUDAEvent& event, c10::cuda::CUDAStream stream) : event_(event), stream_(stream) {}
  ~RecordAtEnd() {
    try {
      event_.record(stream_);
    } catch (const std::exception&) {
      (void)cudaGetLastError();
    }
  }
  RecordAtEnd(const RecordAtEnd&) = delete;
  RecordAtEnd& operator=(const RecordAtEnd&) = delete;

 private:
  at::cuda::CUDAEvent& event_;
  c10::cuda::CUDAStream stream_;
};

}  // namespace

std::optional<at::Tensor> VitGraphs::run(const VitSpec& spec, const VitInput& input, const Forward& forward) {
  const int64_t rows = input.patches.size(0);
  const ops::AttentionShape shape{spec.heads, spec.head_dim(), input.window_segments.longest_possible};
  if (rows == 0 || rows > most_patches || !input.patches.is_contiguous() ||
      !ops::attention_can_be_captured(input.patches.scalar_type(), input.patches.device(), shape))
    return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (!shared_) shared_ = std::make_unique<Shared>();  // here, where the tower's device is the current one
  const int64_t padded = rounded_rows(rows);
  const Key key{padded, rounded_segments(input.segments, padded - rows),
                rounded_segments(input.window_segments, padded - rows)};
  Entry& entry = entry_of(key, input);
  if (entry.is_plain) return std::nullopt;

  const c10::cuda::CUDAStream stream = c10::cuda::getCurrentCUDAStream();
  if (shared_->done.isCreated()) shared_->done.block(stream);
  const RecordAtEnd record(shared_->done, stream);
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
  if (!entry.graph) capture(entry, forward);
  if (entry.is_plain) return std::nullopt;
  entry.graph->replay();
  ++replays_;
  return entry.features.narrow(0, 0, rows).clone();
}

int64_t VitGraphs::replays() {
  const std::lock_guard lock(mutex_);
  return replays_;
}

VitGraphs::Entry& VitGraphs::entry_of(const Key& key, const VitInput& input) {
  const auto found = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.key == key; });
  if (found != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, found);
    return entries_.front();
  }
  if (entries_.size() >= most_graphs) {
    shared_->done.synchronize();  // its rooms may be in use
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

/// Other threads may go on allocating and launching meanwhile. What fails here, fails for good: the size runs plainly.
void VitGraphs::capture(Entry& entry, const Forward& forward) {
  // The pool ends with the last graph that used it; libtorch takes no further capture into it then.
  if (std::none_of(entries_.begin(), entries_.end(), [](const Entry& e) { return e.graph != nullptr; }))
    shared_->pool = at::cuda::graph_pool_handle();
  auto graph = std::make_unique<at::cuda::CUDAGraph>();
  const c10::DeviceIndex device = entry.input.patches.device().index();
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromExternal(shared_->capturing, device));
  try {
    graph->capture_begin(shared_->pool, cudaStreamCaptureModeThreadLocal);
    try {
      entry.features = forward(entry.input);
    } catch (...) {
      graph->capture_end();
      throw;
    }
    graph->capture_end();
    entry.graph = std::move(graph);
  } catch (const std::exception&) {
    (void)cudaGetLastError();
    entry.features.reset();
    entry.is_plain = true;
    (void)graph.release();  // if it could not end, libtorch's allocator still refers to it
  }
}

}  // namespace oriel::nn
