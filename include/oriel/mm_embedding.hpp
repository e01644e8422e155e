#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <oriel/export.hpp>
#include <oriel/tensor.hpp>
#include <oriel/types.hpp>

namespace oriel {

/// What an MMEmbedding knows beside its rows. VisionTower fills it in; fill it in yourself to wrap rows of your own.
struct MMEmbeddingInfo {
  std::string text_alias = {};  ///< UTF-8; empty: "<$EMB_{first_id}$>"
  Grid grid = {};               ///< patches before merging; {1, 0, 0} if there is no grid
  int64_t merge_size = 1;       ///< patches along each side of one row's area
  Size original_size = {};      ///< of the upright picture, pixels
  Size preprocessed_size = {};  ///< what the tower saw, pixels
  int64_t pre_tokens = 0;       ///< leading rows that are special tokens (TokenLayout::exllamav2 only)
  int64_t post_tokens = 0;      ///< trailing rows that are special tokens
  /// The prompt ids of this picture as transformers' processor writes them: special tokens, and placeholder_id once for
  /// every row of the tower. Empty if the model has no text side. The ids are config.json's, and for tokens that it
  /// does not name the tokenizer's added tokens.
  std::vector<int64_t> placeholder_tokens = {};
  int64_t placeholder_id = -1;  ///< the id in placeholder_tokens that stands for a row
  /// Why placeholder_tokens is empty although the model has a text side, such as a missing tokenizer.json.
  std::string tokens_unavailable = {};
  double seconds_per_slot = 0;         ///< video: seconds between temporal slots; 0 for pictures
  ContentHash content_hash = {};       ///< of the upright RGB pixels; of a video, of the frames kept
  ContentHash model_fingerprint = {};  ///< of the tower that made the rows
  std::string model_family = {};       ///< VisionTower::family() of it, for which a text model looks; empty: unknown
};

/// The rows that a language model reads in place of a picture, with the ids and the alias that stand for them in a
/// prompt. A cheap immutable value: copies share the rows and the ids. Safe from many threads. One that was moved from
/// may only be assigned to or destroyed.
///
/// Ids are process-wide unique: [first_id, first_id + length), counted up from 1,000,000,000 and never used twice.
/// Three views of the prompt: ids() (one unique id per row), tokens() (the model's real special ids around them, what a
/// tokenizer splices in), placeholder_tokens() (transformers' input_ids).
class ORIEL_API MMEmbedding {
 public:
  /// Wraps rows [length, hidden] (float32, bfloat16 or float16), handing out new ids. Throws invalid_argument if the
  /// shape or dtype is wrong, there are no rows, the alias is not UTF-8, or the placeholders do not match the number of
  /// rows.
  [[nodiscard]] static MMEmbedding from_rows(Tensor rows, MMEmbeddingInfo info = {});

  [[nodiscard]] const Tensor& embeddings() const noexcept;  ///< [length, hidden]
  [[nodiscard]] int64_t length() const noexcept;
  [[nodiscard]] int64_t hidden_size() const noexcept;
  [[nodiscard]] int64_t first_id() const noexcept;
  [[nodiscard]] std::vector<int64_t> ids() const;
  /// First and one-past-last id of the rows that have a position on the grid: special-token rows left out.
  [[nodiscard]] std::pair<int64_t, int64_t> vision_id_range() const noexcept;
  /// The prompt: real special ids, and this embedding's own ids where rows go. Equals ids() where special rows are
  /// baked in and where the model has no text side. Throws unavailable, with the reason, if the special ids are
  /// unknown.
  [[nodiscard]] std::vector<int64_t> tokens() const;
  /// The prompt as transformers' processor writes it. Empty without a text side; throws unavailable as tokens() does.
  [[nodiscard]] const std::vector<int64_t>& placeholder_tokens() const;

  [[nodiscard]] const std::string& text_alias() const noexcept;
  /// The same rows and ids under another alias; empty means the automatic one. Throws invalid_argument for bytes that
  /// are not UTF-8.
  [[nodiscard]] MMEmbedding with_alias(std::string text_alias) const;
  /// The same rows and ids with other special tokens around them: placeholder_id once for every row, or nothing for
  /// rows alone. Throws invalid_argument for another number of placeholders.
  [[nodiscard]] MMEmbedding with_placeholder_tokens(std::vector<int64_t> placeholder_tokens) const;

  [[nodiscard]] const MMEmbeddingInfo& info() const noexcept;
  [[nodiscard]] Grid grid() const noexcept { return info().grid; }
  [[nodiscard]] Size original_size() const noexcept { return info().original_size; }
  [[nodiscard]] Size preprocessed_size() const noexcept { return info().preprocessed_size; }
  [[nodiscard]] ContentHash content_hash() const noexcept { return info().content_hash; }
  /// Where a point of the preprocessed picture (what grounding models speak of) lies in the original, and back. Throws
  /// invalid_argument if one of the two sizes is unknown.
  [[nodiscard]] Point to_original(Point preprocessed) const;
  [[nodiscard]] Point to_preprocessed(Point original) const;
  /// Bytes of the rows.
  [[nodiscard]] size_t size_in_bytes() const;

  /// The same embedding with its rows on another device: ids and alias stay. Throws unavailable, out_of_memory.
  [[nodiscard]] MMEmbedding to(Device device) const;

  /// Writes rows and info as safetensors. Throws file_error.
  void save(const std::filesystem::path& path) const;
  /// Reads what save wrote, rows on the CPU. The embedding gets new ids, and a new alias if its alias was automatic.
  /// Throws file_error, or malformed_model or limit_exceeded naming the file and the entry that is wrong.
  [[nodiscard]] static MMEmbedding load(const std::filesystem::path& path);

 private:
  struct State;
  explicit MMEmbedding(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

/// One picture: the whole of it, and after that crops of it. What VisionTower::get_image_views makes.
using PictureViews = std::vector<MMEmbedding>;

}  // namespace oriel
