#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include <oriel/export.hpp>
#include <oriel/load_options.hpp>
#include <oriel/mm_embedding.hpp>
#include <oriel/tensor.hpp>
#include <oriel/types.hpp>

namespace oriel {

struct TextLoadOptions {
  Device device = Device::cpu();
  std::optional<DType> dtype = {};  ///< of weights and cache; unset: float32 on the CPU, bfloat16 on a GPU
  ProgressCallback progress = {};   ///< Progress::Stage::load
  std::stop_token cancel = {};
};

/// The result of TextModel::forward.
struct ForwardResult {
  Tensor logits = {};     ///< float32 [n, vocabulary] on the CPU, of every id of the prompt
  Tensor positions = {};  ///< int64 [axes, n]: 3 axes (time, row, column) with M-RoPE, else 1
};

/// The language model of a checkpoint directory, which reads MMEmbeddings: rows in place of ids.
///
/// All methods are const and may be called from many threads at once; the generator (oriel/generator.hpp) keeps the
/// state of a conversation. Compute on the CPU uses libtorch's threads (set_compute_threads). A model that was moved
/// from may only be assigned to or destroyed.
class ORIEL_API TextModel {
 public:
  /// Reads config.json, generation_config.json and the text model's tensors. Throws file_error, malformed_model (every
  /// tensor that is missing or has a wrong shape is listed), unsupported_model, unavailable, cancelled.
  [[nodiscard]] static TextModel load(const std::filesystem::path& directory, const TextLoadOptions& options = {});

  TextModel(TextModel&&) noexcept;
  TextModel& operator=(TextModel&&) noexcept;
  ~TextModel();

  /// Ids to the rows that the first layer reads: [n, hidden] in the model's dtype on its device. Ids of the vocabulary
  /// are looked up (and scaled where the model scales); ids of `embeddings` become their rows, unscaled, and rounded if
  /// they are of another dtype, as transformers rounds them. An id that neither has, rows of another width and rows
  /// made for another family are an invalid_argument that names the id or the alias.
  [[nodiscard]] Tensor embed(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings = {}) const;
  /// The same for a batch: int64 [batch, n] on the CPU, such as BatchEncoding::ids, to [batch, n, hidden].
  [[nodiscard]] Tensor embed_batch(const Tensor& ids, std::span<const MMEmbedding> embeddings = {}) const;
  /// int64 [axes, n]: where transformers puts each id of a prompt.
  [[nodiscard]] Tensor positions(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings = {}) const;
  /// One pass over a whole prompt without a cache: logits of every id.
  [[nodiscard]] ForwardResult forward(std::span<const int64_t> ids, std::span<const MMEmbedding> embeddings = {}) const;
  /// What EmbedOptions::token_rows wants (ExLlamaV2's row layout). Keeps the weights alive.
  [[nodiscard]] TokenRows token_rows() const;

  [[nodiscard]] const std::string& family() const noexcept;  ///< such as "Qwen2.5-VL"
  [[nodiscard]] int64_t hidden_size() const noexcept;
  [[nodiscard]] int64_t vocabulary_size() const noexcept;  ///< columns of the logits
  [[nodiscard]] int64_t layers() const noexcept;
  [[nodiscard]] int64_t max_positions() const noexcept;  ///< of one sequence, as config.json says
  /// Ids that end an answer as transformers' generate finds them: generation_config.json's, or if there is no such file
  /// config.json's.
  [[nodiscard]] const std::vector<int64_t>& stop_ids() const noexcept;
  [[nodiscard]] double repetition_penalty() const noexcept;  ///< generation_config.json's; 1 without one
  [[nodiscard]] Device device() const noexcept;
  [[nodiscard]] DType dtype() const noexcept;
  [[nodiscard]] ContentHash fingerprint() const noexcept;
  [[nodiscard]] int64_t weight_bytes() const noexcept;
  /// Of the KV cache, for each token that it can hold.
  [[nodiscard]] int64_t cache_bytes_per_token() const noexcept;

 private:
  friend class Generator;
  friend struct TextModelAccess;
  struct ORIEL_LOCAL Impl;
  explicit TextModel(std::shared_ptr<const Impl> impl);
  std::shared_ptr<const Impl> impl_;
};

}  // namespace oriel
