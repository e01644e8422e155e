#pragma once
// What a VisionTower holds, and what its source files share.
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <oriel/vision_tower.hpp>
#include <string>
#include <string_view>

#include "arch/architecture.hpp"
#include "core/thread_pool.hpp"
#include "nn/vit.hpp"
#include "ops/pixels.hpp"
#include "ops/tuning_file.hpp"
#include "tower_arrangement.hpp"

namespace oriel {

/// A call on a GPU as far as its memory goes. The defaults are what plan counts: the first calls of a size, of one
/// picture whose patches are there.
struct GpuCall {
  bool uploads = false;              ///< patches come from host memory, or in another dtype
  bool results_stay = false;         ///< on the GPU
  std::vector<int64_t> layers = {};  ///< whose hidden states are wanted instead of rows
  size_t pictures = 1;
  bool arranged = false;        ///< the arrangement is kept from an earlier call
  nn::GraphMemory graphs = {};  ///< and so is this
};

struct VisionTower::Impl {
  std::unique_ptr<arch::Architecture> architecture;
  std::optional<nn::Vit> vit;  ///< empty if loaded without weights
  std::unique_ptr<ThreadPool> pool;
  std::unique_ptr<ops::TuningFile> tuning;  ///< if one is wanted
  Device device;
  DType dtype = DType::float32;
  ContentHash fingerprint;
  int64_t weight_bytes = 0;
  bool deterministic = false;

  mutable ArrangementCache arrangements;
  mutable ops::PixelKernels pixel_kernels;

  [[nodiscard]] const arch::Traits& traits() const { return architecture->traits(); }

  void load_weights(const arch::ModelFiles& files, const LoadOptions& options);

  /// The target of a picture, with everything checked that makes it impossible. `name` opens the message.
  [[nodiscard]] arch::ImageTarget plan(Size size, const PreprocessOptions& options, const std::string& name) const;
  [[nodiscard]] std::vector<Rect> plan_crops(Size size, const CropOptions& options, const std::string& name) const;
  [[nodiscard]] arch::VideoTarget plan_video(Size frame, int64_t frames, const VideoOptions& options,
                                             const std::string& name) const;
  /// A picture in host memory, or pixels on the GPU.
  struct GpuPicture {
    const Image* host = nullptr;
    DevicePixelView pixels;  ///< of a picture in host memory the size alone
    std::string name;
  };
  [[nodiscard]] Patches preprocess(std::span<const Image> images, const PreprocessOptions& options) const;
  /// On the tower's device: float32 in host memory for a tower on the CPU, the tower's dtype on a GPU.
  /// `then` says what follows of the same call, if anything: that must fit as well.
  [[nodiscard]] Patches preprocess_where_it_runs(std::span<const Image> images, const PreprocessOptions& options,
                                                 const std::optional<GpuCall>& then = {}) const;
  [[nodiscard]] Patches preprocess_on_gpu(std::span<const DevicePixelView> images, const PreprocessOptions& options,
                                          const std::optional<GpuCall>& then = {}) const;
  [[nodiscard]] Patches preprocess_on_gpu(std::span<const GpuPicture> pictures, const PreprocessOptions& options,
                                          const std::optional<GpuCall>& then) const;
  [[nodiscard]] Patches preprocess_video(std::span<const Image> frames, const VideoOptions& options) const;
  [[nodiscard]] Patches preprocess_video_where_it_runs(std::span<const Image> frames, const VideoOptions& options,
                                                       const std::optional<GpuCall>& then = {}) const;
  [[nodiscard]] Patches preprocess_video_on_gpu(std::span<const DevicePixelView> frames, const VideoOptions& options,
                                                const std::optional<GpuCall>& then = {}) const;
  [[nodiscard]] Patches preprocess_video_on_gpu(std::span<const GpuPicture> frames, const VideoOptions& options,
                                                const std::optional<GpuCall>& then) const;
  /// The rows of one temporal slot, whose frames are all in host memory or all on the GPU.
  void write_slot(const std::vector<const GpuPicture*>& frames, Size target, ResizeBackend resize,
                  const at::Tensor& rows) const;
  /// What frames of these sizes and names, all of one size, become.
  struct Frame {
    Size size;
    const std::string& name;
  };
  [[nodiscard]] arch::VideoTarget plan_frames(int64_t count, const std::function<Frame(size_t)>& frame,
                                              const VideoOptions& options) const;

  [[nodiscard]] PlacedArrangement arrange(const std::vector<Grid>& grids) const;
  struct Encoded {
    std::vector<at::Tensor> rows;           ///< one a picture
    std::vector<at::Tensor> hidden_states;  ///< one a layer
  };
  /// Runs the tower; with `layers`, returns those hidden states in the processor's order instead of rows.
  [[nodiscard]] Encoded encode(const Patches& patches, const std::vector<int64_t>& layers,
                               const EncodeOptions& options) const;
  /// The same for patches whose grids, at least one, are checked.
  [[nodiscard]] Encoded encode_checked(const Patches& patches, const std::vector<Grid>& grids,
                                       const std::vector<int64_t>& layers, const EncodeOptions& options) const;
  [[nodiscard]] Encoded encode_one_by_one(const Patches& patches, const std::vector<Grid>& grids,
                                          const std::vector<int64_t>& layers, const EncodeOptions& options) const;
  /// Throws invalid_argument for a tower that was loaded without weights.
  void check_has_weights() const;
  /// Throws unsupported_model for a family without video.
  void check_has_video() const;
  /// Throws invalid_argument if a stream is given to a tower on the CPU.
  void check_stream(void* stream) const;
  /// What encode holds at its peak on a GPU beside weights, patches and what is kept from earlier calls. `call` says
  /// what is wanted; what is kept is found here. On the current stream, which is the call's.
  [[nodiscard]] int64_t encode_bytes(const std::vector<Grid>& grids, GpuCall call) const;
  /// Throws out_of_memory for a call on a GPU that has not the memory for it, before anything of it is done.
  void check_fits(std::string_view what, int64_t patches, int64_t needed) const;
  /// The same for patches that are to be made there, which takes `beside` for a moment, and for what then follows.
  void check_patches_fit(const std::vector<Grid>& grids, int64_t patch_values, int64_t beside,
                         const std::optional<GpuCall>& then) const;
  [[nodiscard]] std::vector<MMEmbedding> embed(const Patches& patches, const EmbedOptions& options) const;
};

/// The parts of EmbedOptions that one stage reads.
[[nodiscard]] PreprocessOptions preprocess_options(const EmbedOptions& options);
[[nodiscard]] EncodeOptions encode_options(const EmbedOptions& options);
[[nodiscard]] GpuCall gpu_call(const EmbedOptions& options);

[[nodiscard]] image::ResizeArithmetic arithmetic(ResizeBackend backend);

/// The frame at a place of the temporal slots: the last one is repeated until its slot is full.
[[nodiscard]] inline size_t frame_at(const arch::VideoTarget& plan, int64_t place) {
  return static_cast<size_t>(plan.frame_indices[std::min(static_cast<size_t>(place), plan.frame_indices.size() - 1)]);
}
[[nodiscard]] PatchedImage patched_video(const arch::VideoTarget& plan, Size frame, const std::string& name,
                                         ContentHash content);

/// Throws limit_exceeded if there is a limit of tokens and `rows` are more.
void check_tokens(int64_t rows, const std::optional<int64_t>& most, const std::string& name,
                  const std::string& advice = {});

/// Throws cancelled if a stop was requested.
void check_cancelled(const std::stop_token& token);

/// The most that encode holds at once for one picture of this grid, beside weights and patches, on the tower's device.
[[nodiscard]] int64_t peak_bytes(const arch::Traits& traits, const Grid& grid, DType dtype, Device device);

}  // namespace oriel
