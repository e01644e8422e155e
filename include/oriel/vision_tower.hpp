#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include <oriel/crops.hpp>
#include <oriel/export.hpp>
#include <oriel/image.hpp>
#include <oriel/load_options.hpp>
#include <oriel/mm_embedding.hpp>
#include <oriel/tensor.hpp>
#include <oriel/types.hpp>

namespace oriel {

class TextModel;
class Tokenizer;

/// Whose resize arithmetic is followed, bit for bit.
enum class ResizeBackend {
  torchvision,  ///< what transformers 5 computes by default (its torchvision-backed processors, on the CPU)
  pillow,       ///< its *Pil processors with Pillow 13
  pillow12,     ///< the same with Pillow up to 12.3, which always resizes horizontally first
};

/// Which rows an MMEmbedding holds.
enum class TokenLayout {
  transformers,  ///< the tower's rows alone; special tokens are ordinary ids around them
  exllamav2,     ///< the rows of ExLlamaV2: special tokens are rows too (needs EmbedOptions::token_rows)
};

struct LoadOptions {
  Device device = Device::cpu();
  std::optional<DType> dtype = {};  ///< of weights and rows; unset: float32 on the CPU, bfloat16 on a GPU
  int threads = 0;                  ///< for pixel work, the caller's thread included: 1 to 1024; 0: the hardware's
  /// Pictures packed into one call get the rows that they get alone, bit for bit: on a GPU by products whose algorithm
  /// does not depend on the number of rows (up to some ten percent slower), on the CPU by one picture after the other.
  bool deterministic = false;
  bool weights = true;  ///< false: plan and preprocess only; encoding throws invalid_argument
  /// On a GPU: a file that remembers which matrix products were found fastest, for towers and processes to come. Made
  /// and kept up to date by calls that time new sizes; one for each kind of GPU. Trouble with it is a warning.
  std::optional<std::filesystem::path> tuning_file = {};
  ProgressCallback progress = {};
  std::stop_token cancel = {};
};

/// What plan and preprocess can be told. Pixel limits count pixels of the resized picture. They act alone or together
/// (transformers ignores a lone one), and are an invalid_argument for families that have no such limits.
struct PreprocessOptions {
  std::optional<int64_t> min_pixels = {};
  std::optional<int64_t> max_pixels = {};
  std::optional<int64_t> max_tokens = {};  ///< rows per picture; a picture that needs more is a limit_exceeded
  ResizeBackend resize = ResizeBackend::torchvision;
  ProgressCallback progress = {};
  std::stop_token cancel = {};
  void* stream = nullptr;  ///< as EncodeOptions::stream, for patches made on a GPU
};

struct EncodeOptions {
  bool embeddings_cpu = true;  ///< copy results to host memory; false leaves them on the tower's device
  ProgressCallback progress = {};
  std::stop_token cancel = {};
  /// A cudaStream_t of the tower's GPU to work on; null: libtorch's current stream of the calling thread. What the call
  /// reads on the GPU is read, and what it leaves there is valid, in the order of this stream; with embeddings_cpu =
  /// false the host does not wait for it, but for the first calls of a size. Patches on the GPU that were made on
  /// another stream must live until that work is done. Use few streams for many calls: each has memory and tables of
  /// its own. The legacy default stream is cudaStreamLegacy. Destroy a stream only when its work is done.
  /// invalid_argument for a tower on the CPU, for cudaStreamPerThread (one name for many streams), and for a stream of
  /// another GPU where CUDA (12.8) can tell.
  void* stream = nullptr;
};

/// Everything of one call from picture to MMEmbedding; the fields mean what they mean above.
struct EmbedOptions {
  std::string text_alias = {};  ///< for one picture; several pictures at once take MMEmbedding::with_alias
  bool embeddings_cpu = true;
  std::optional<int64_t> min_pixels = {};
  std::optional<int64_t> max_pixels = {};
  std::optional<int64_t> max_tokens = {};
  ResizeBackend resize = ResizeBackend::torchvision;
  TokenLayout layout = TokenLayout::transformers;
  TokenRows token_rows = {};  ///< for TokenLayout::exllamav2
  ProgressCallback progress = {};
  std::stop_token cancel = {};
  void* stream = nullptr;
};

/// How the frames of a video are chosen and sized. The defaults are transformers': every frame, the file's pixel limits
/// for each frame, no cap over the whole video.
struct VideoOptions {
  double fps = 24.0;                          ///< of the frames given
  std::optional<double> sample_fps = {};      ///< keep about this many frames per second
  std::optional<int64_t> sample_frames = {};  ///< or this many in all
  bool cap_pixels_per_frame = false;          ///< share transformers' budget of 128,000 tokens among the frames
  EmbedOptions embed = {};
};

/// What a picture of some size will become and cost, known from its size alone.
struct ImagePlan {
  Size original = {};
  Size resized = {};  ///< what the tower sees, pixels
  Grid grid = {};     ///< patches before merging
  /// Rows of the MMEmbedding.
  int64_t tokens = 0;
  /// Length of the prompt's token list, special tokens included; equals tokens for a model without a text side.
  int64_t prompt_tokens = 0;
  /// Preprocessed patches: float32 in host memory for a tower on the CPU, in the tower's dtype on its GPU.
  int64_t pixel_bytes = 0;
  /// What a call of this picture alone takes at its peak beside weights, patches and rows, on the tower's device,
  /// within 5 percent of what is held at once, allocation by allocation. On a GPU: a tower's first calls of this size
  /// alone; where later ones are replayed (docs/architecture.md) most of it stays held, and a second such size may make
  /// that what the largest size up to the next power of two takes. Not counted there: what libtorch's attention holds
  /// inside (float32, chips before Hopper), what CUDA keeps of a graph's launches, and copies of a weight that time the
  /// products of a new size: twice the L2 cache (some 100 MB), never more than a quarter of what is free.
  int64_t working_bytes = 0;
  /// The rows, in the tower's dtype.
  int64_t embedding_bytes = 0;
  [[nodiscard]] int64_t total_bytes() const { return pixel_bytes + working_bytes + embedding_bytes; }
};

/// One picture (or video) among Patches.
struct PatchedImage {
  Grid grid = {};
  Size original = {};
  Size resized = {};
  std::string name = {};          ///< for messages
  ContentHash content_hash = {};  ///< zero if unknown
  bool is_video = false;
  double seconds_per_slot = 0;
};

/// Preprocessed pictures, packed: what a tower's encoder reads. Build one yourself to bring your own pixels.
struct Patches {
  /// float32 [sum of grid.patches(), patch values] in host memory; for a tower on a GPU also there, in float32 or in
  /// the tower's dtype. One row a patch, pictures one after the other, in the order in which transformers' processor
  /// hands patches over: raster order, or merge blocks for families that merge neighbours in the tower. Values of a
  /// row: (channel, frame in the temporal slot, y, x).
  Tensor values = {};
  std::vector<PatchedImage> images = {};
};

/// A vision tower: preprocessing, transformer and projector of one checkpoint.
///
/// All methods are const and may be called from many threads at once. Results in host memory are finished. Rows left on
/// a GPU (embeddings_cpu = false) and patches made there are enqueued on the options' stream, or else on libtorch's
/// current stream of the calling thread, and valid in its order; a tower must not be destroyed before such work is
/// done. Compute on the CPU uses libtorch's threads (set_compute_threads). A tower that was moved from may only be
/// assigned to or destroyed. Errors common to the calls: invalid_argument (options), limit_exceeded, unsupported_image
/// (a shape that the family does not take; the message names the picture), cancelled, out_of_memory; after any of them
/// the tower stays usable.
class ORIEL_API VisionTower {
 public:
  /// Loads a Hugging Face checkpoint directory: config.json, processor_config.json or preprocessor_config.json, and
  /// safetensors weights, single or sharded; only the tower's tensors are read. Throws file_error, malformed_model
  /// (every tensor that is missing or has a wrong shape is listed), unsupported_model, unavailable, cancelled.
  [[nodiscard]] static VisionTower load(const std::filesystem::path& directory, const LoadOptions& options = {});

  VisionTower(VisionTower&&) noexcept;
  VisionTower& operator=(VisionTower&&) noexcept;
  ~VisionTower();

  /// What a picture of this size becomes; needs no pixels. Sides of 1 to 2^31. Ignores progress, cancel and stream.
  [[nodiscard]] ImagePlan plan(Size size, const PreprocessOptions& options = {}) const;

  /// The crops that the tower sees beside a picture of this size, in the order of get_image_views; none of one that is
  /// not long enough. Throws unsupported_model for families that see pictures as a whole.
  [[nodiscard]] std::vector<Rect> plan_crops(Size size, const CropOptions& options = {}) const;

  /// A picture to the rows that the language model reads.
  [[nodiscard]] MMEmbedding get_image_embeddings(const Image& image, const EmbedOptions& options = {}) const;
  /// Several pictures of any sizes in one packed call. An empty span gives an empty result.
  [[nodiscard]] std::vector<MMEmbedding> get_image_embeddings(std::span<const Image> images,
                                                              const EmbedOptions& options = {}) const;
  /// ExLlamaV2's call, and its row layout: the special tokens around and between a picture's rows are rows, too, looked
  /// up in `model`. Throws invalid_argument if the model's hidden size is not the tower's, or if `tokenizer` or the
  /// model lacks one of those tokens.
  [[nodiscard]] MMEmbedding get_image_embeddings(const TextModel& model, const Tokenizer& tokenizer, const Image& image,
                                                 std::string text_alias = {}, bool embeddings_cpu = true) const;
  /// Pictures that are in the memory of the tower's GPU already, without a trip to the host. Their content hashes are
  /// unknown, and they are called "image 0", "image 1", ... in messages. Throws invalid_argument for a tower on the
  /// CPU.
  [[nodiscard]] std::vector<MMEmbedding> get_image_embeddings(std::span<const DevicePixelView> images,
                                                              const EmbedOptions& options = {}) const;
  /// A picture as a whole and its crops, in one packed call, for ChatMessage::content: Gemma 3's pan and scan, as of
  /// transformers' processor with do_pan_and_scan=True, whatever the checkpoint's files say. Throws as plan_crops does,
  /// and invalid_argument for a text_alias; max_tokens is of each view.
  [[nodiscard]] PictureViews get_image_views(const Image& image, const CropOptions& crops = {},
                                             const EmbedOptions& options = {}) const;
  /// Frames of equal size to one embedding. Throws unsupported_model for families without video.
  [[nodiscard]] MMEmbedding get_video_embeddings(std::span<const Image> frames, const VideoOptions& options = {}) const;
  /// The same of frames that are in the memory of the tower's GPU already, called "frame 0", "frame 1", ... in
  /// messages; else as pictures there.
  [[nodiscard]] MMEmbedding get_video_embeddings(std::span<const DevicePixelView> frames,
                                                 const VideoOptions& options = {}) const;

  /// The stages one by one: pixels to patches, patches to rows, rows to embeddings.
  [[nodiscard]] Patches preprocess(std::span<const Image> images, const PreprocessOptions& options = {}) const;
  /// The same on the tower's GPU: the patches are there, in the tower's dtype.
  [[nodiscard]] Patches preprocess(std::span<const DevicePixelView> images,
                                   const PreprocessOptions& options = {}) const;
  [[nodiscard]] Patches preprocess_video(std::span<const Image> frames, const VideoOptions& options = {}) const;
  /// The same on the tower's GPU, as preprocess does it.
  [[nodiscard]] Patches preprocess_video(std::span<const DevicePixelView> frames,
                                         const VideoOptions& options = {}) const;
  /// Rows [tokens, hidden] in the tower's dtype for every picture of `patches`.
  [[nodiscard]] std::vector<Tensor> encode(const Patches& patches, const EncodeOptions& options = {}) const;
  /// Pixel limits and resize of the options must be left alone here: the pixels are done. Patches are not looked at for
  /// anything but their shape.
  [[nodiscard]] std::vector<MMEmbedding> get_image_embeddings(const Patches& patches,
                                                              const EmbedOptions& options = {}) const;

  /// Hidden states of the transformer before the projector: for every entry of `layers` a tensor
  /// [patches, width], rows in the order of Patches. Layers count as in transformers' hidden_states: 0 is the input of
  /// the first block, i the output of block i - 1, negative ones count from the end. In the tower's dtype.
  [[nodiscard]] std::vector<Tensor> get_hidden_states(const Patches& patches, std::span<const int64_t> layers,
                                                      const EncodeOptions& options = {}) const;

  [[nodiscard]] const std::string& family() const noexcept;  ///< such as "Qwen2.5-VL"
  [[nodiscard]] int64_t hidden_size() const noexcept;        ///< columns of a row
  [[nodiscard]] int64_t patch_size() const noexcept;         ///< pixels
  [[nodiscard]] int64_t merge_size() const noexcept;         ///< patches along each side of one row's area
  [[nodiscard]] int64_t depth() const noexcept;              ///< transformer blocks
  [[nodiscard]] int64_t width() const noexcept;              ///< columns of a hidden state
  [[nodiscard]] bool has_video() const noexcept;
  [[nodiscard]] bool has_crops() const noexcept;         ///< whether plan_crops and get_image_views mean something
  [[nodiscard]] bool has_pixel_limits() const noexcept;  ///< whether min_pixels and max_pixels mean something
  [[nodiscard]] Device device() const noexcept;
  [[nodiscard]] DType dtype() const noexcept;
  /// Identifies weights, preprocessing and dtype: equal fingerprints and pixels give equal rows on equal machines. On a
  /// GPU that holds bit for bit for `deterministic` towers; others time their matrix products anew in each process,
  /// unless a `tuning_file` has kept the choices, and rows may differ by rounding. Without weights it identifies the
  /// rest.
  [[nodiscard]] ContentHash fingerprint() const noexcept;
  [[nodiscard]] int64_t weight_bytes() const noexcept;

 private:
  struct ORIEL_LOCAL Impl;
  explicit VisionTower(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// One tensor of a checkpoint, for ModelReport.
struct ReportedTensor {
  std::string name = {};   ///< as in the file
  std::string dtype = {};  ///< as in the file, such as "BF16"
  std::vector<int64_t> shape = {};
};

/// What a checkpoint directory holds of a tower.
struct ModelReport {
  std::string model_type = {};  ///< config.json's
  std::string family = {};
  std::vector<ReportedTensor> found = {};    ///< tensors the tower needs and has
  std::vector<std::string> missing = {};     ///< needed and absent
  std::vector<std::string> mismatched = {};  ///< one sentence each: name, expected, found
  std::vector<ReportedTensor> unused = {};   ///< of the tower's part, but not needed
  int64_t weight_bytes = 0;                  ///< of `found`, as stored
  [[nodiscard]] bool complete() const { return missing.empty() && mismatched.empty(); }
};

/// Reads headers only, no tensor data. Throws as VisionTower::load does, except for what the report itself lists.
[[nodiscard]] ORIEL_API ModelReport inspect_model(const std::filesystem::path& directory);

/// How many threads libtorch uses for towers on the CPU: in calls made by this thread, and by threads that have not
/// computed yet. Those that have computed keep their number, so call it first. Throws invalid_argument below 1.
ORIEL_API void set_compute_threads(int threads);

}  // namespace oriel
