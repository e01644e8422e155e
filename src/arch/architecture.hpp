#pragma once
// What an architecture tells the rest of oriel. Everything particular to a model is behind this.
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "arch/model_files.hpp"
#include "arch/weights.hpp"
#include "image/patches.hpp"
#include "nn/vit.hpp"
#include "oriel/crops.hpp"
#include "oriel/types.hpp"

namespace oriel::arch {

enum class Modality { image, video };

/// Pixel limits of one call; what is set replaces the file's value.
struct PixelBudget {
  std::optional<int64_t> min_pixels;
  std::optional<int64_t> max_pixels;
};

/// What a picture becomes.
struct ImageTarget {
  Size resized;
  Grid grid;         ///< patches before merging, floor
  int64_t rows = 0;  ///< of the projector's output
};

/// How many frames of a video are kept, and how they are sized.
struct VideoRequest {
  Size frame;
  int64_t frames = 0;
  double fps = 24.0;
  std::optional<double> sample_fps;
  std::optional<int64_t> sample_frames;
  bool cap_pixels_per_frame = false;
  PixelBudget budget;
};
struct VideoTarget {
  ImageTarget target;                  ///< grid.t temporal slots
  std::vector<int64_t> frame_indices;  ///< the frames kept; the last one repeats to fill a slot
  double seconds_per_slot = 0;
};

/// Everything about the order and the positions of packed patches, made from their grids alone.
struct Arrangement {
  at::Tensor
      order;  ///< int64 [T]: row of the processor's order that the tower reads at each place; undefined: as given
  at::Tensor positions;                    ///< [T, width], in the tower's order; undefined: none
  ops::Rotary rotary;                      ///< [T, head_dim], in the tower's order; undefined: none
  std::vector<int64_t> cu_seqlens;         ///< attention segments
  std::vector<int64_t> cu_window_seqlens;  ///< of windowed blocks; empty if there are none
  int64_t longest_window = 0;              ///< patches of a whole window; 0 if there are none
};

/// The prompt ids of one picture: special tokens, and `placeholder` once for every row.
struct Prompt {
  std::vector<int64_t> tokens;  ///< empty without a text side
  int64_t placeholder = -1;
  int64_t pre_tokens = 0;   ///< special tokens in front of the first row
  int64_t post_tokens = 0;  ///< behind the last row
  std::string unavailable;  ///< why some special ids are unknown; they are -1 in tokens then
};

/// How a text for transformers' processor marks the place of a picture: what the processor looks for, and what it
/// writes beside the tokens of `Prompt`.
struct Placeholder {
  Modality modality = Modality::image;
  std::string token = {};    ///< what the processor replaces
  std::string opening = {};  ///< special token that the template has in front of it, and `Prompt` too
  std::string closing = {};  ///< the same behind it; a text may lack both, and then has the rows alone
  std::string around = {};   ///< plain text that the processor writes on both sides
  std::string row = {};      ///< token of one row, which no text with pictures may hold; empty: `token`
  /// What the processor writes where a picture is followed by crops of it, each as a picture is written.
  struct Crops {
    std::string introduction = {};  ///< plain text in front of the whole picture; empty: the family has no crops
    std::string transition = {};    ///< behind it
    std::string separator = {};     ///< between two crops
  };
  Crops crops = {};
};

/// What arrange and project hold beside the transformer; plan counts memory with it (tower_memory.cpp).
struct Footprint {
  bool positions = false;  ///< arrange makes positions
  bool rotary = false;     ///< arrange makes rotary tables
  bool order = false;      ///< arrange makes an order
  int64_t projector_values =
      0;  ///< for every row, at the peak of project: rows and what they are made from, not features
};

/// What is plain data about an architecture; its constructor fills it in from the files.
struct Traits {
  std::string family;
  image::PixelSpec pixels;        ///< of pictures
  image::PixelSpec video_pixels;  ///< of video frames, where has_video
  nn::VitSpec vit;
  NameRules names;
  int64_t row_width = 0;          ///< columns of the projector's output
  int64_t merge_size = 1;         ///< patches along each side of one row's area
  bool has_pixel_limits = false;  ///< whether PixelBudget means something
  bool has_video = false;
  bool has_crops = false;  ///< whether the tower may see crops of a picture beside the whole of it
  Footprint footprint;
  std::vector<Placeholder> placeholders = {};  ///< empty without a text side
};

class Architecture {
 public:
  virtual ~Architecture() = default;

  [[nodiscard]] const Traits& traits() const { return traits_; }

  /// Target of an upright picture with positive sides. Throws unsupported_image where transformers raises.
  [[nodiscard]] virtual ImageTarget plan(Size size, const PixelBudget& budget) const = 0;
  [[nodiscard]] virtual VideoTarget plan_video(const VideoRequest& request) const;
  /// Crops of a picture, in the order in which the prompt has them; none of one that is seen as a whole alone.
  [[nodiscard]] virtual std::vector<Rect> plan_crops(Size size, const CropOptions& options) const;

  /// Takes the projector's weights, and returns the transformer's.
  [[nodiscard]] virtual nn::VitWeights load(WeightReader& reader) = 0;

  /// `grids` are those of plan; other grids (brought by the caller) are checked: invalid_argument.
  [[nodiscard]] virtual Arrangement arrange(std::span<const Grid> grids, c10::Device device) const = 0;
  /// features [T, width * feature layers] in the processor's order -> rows [sum of rows, row_width].
  [[nodiscard]] virtual at::Tensor project(const at::Tensor& features, std::span<const Grid> grids) const = 0;
  /// Rows that project makes of one grid.
  [[nodiscard]] virtual int64_t rows(const Grid& grid) const;
  [[nodiscard]] virtual Prompt prompt(const Grid& grid, Modality modality) const = 0;
  /// Length of prompt's tokens, without making them; 0 without a text side.
  [[nodiscard]] virtual int64_t prompt_length(const Grid& grid) const { return rows(grid) + 2; }

  /// Special tokens of ExLlamaV2's row layout (spec/reference_api.md 4): the prompt with other special tokens in it.
  [[nodiscard]] virtual Prompt reference_prompt(const Grid& grid, Modality modality) const {
    return prompt(grid, modality);
  }

 protected:
  Traits traits_;
};

/// Segment bounds of packed pictures: every temporal slot is one segment.
[[nodiscard]] std::vector<int64_t> segment_bounds(std::span<const Grid> grids);

/// Row and column of every patch, int64 [T] each, in the processor's order: raster for merge 1, else merge blocks.
struct PatchCoordinates {
  at::Tensor rows;
  at::Tensor columns;
};
[[nodiscard]] PatchCoordinates patch_coordinates(std::span<const Grid> grids, int64_t merge);

/// Throws malformed_model if a special token has the id of the placeholder: rows and tokens could not be told apart.
void expect_distinct(const Json& config, int64_t placeholder, std::string_view placeholder_key,
                     std::initializer_list<int64_t> special_tokens);

/// A prompt of the form: start, n placeholders, end.
[[nodiscard]] Prompt bracketed_prompt(int64_t start, int64_t placeholder, int64_t rows, int64_t end);

}  // namespace oriel::arch
