#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include <oriel/export.hpp>
#include <oriel/log.hpp>
#include <oriel/mm_embedding.hpp>
#include <oriel/vision_tower.hpp>

namespace oriel {

struct CacheOptions {
  int64_t max_host_bytes = int64_t{1} << 30;    ///< rows in host memory; 0 keeps none
  int64_t max_device_bytes = int64_t{1} << 28;  ///< rows on GPUs (embeddings_cpu = false); 0 keeps none
  /// A second tier that survives restarts: one file per embedding. Made if it does not exist. Files that can't be read
  /// or do not fit their key are ignored with a warning, and replaced. May be shared by processes.
  std::optional<std::filesystem::path> directory = {};
  int64_t max_directory_bytes = int64_t{10} << 30;  ///< the oldest files go first
  LogCallback log = {};
};

/// What a cache has done since it was made, and what it holds.
struct CacheStats {
  int64_t hits = 0;            ///< found in memory
  int64_t directory_hits = 0;  ///< read from the directory
  int64_t misses = 0;          ///< encoded
  int64_t waits = 0;           ///< hits that waited for another thread's encoding
  int64_t evictions = 0;
  int64_t entries = 0;
  int64_t host_bytes = 0;
  int64_t device_bytes = 0;
};

/// Embeddings by content: the same pixels under the same options and model are encoded once, and give the same ids for
/// as long as memory holds them; what is read from the directory gets new ids. Least recently used ones go when the
/// bytes run out; embeddings that a caller still holds live on with the caller. Bytes count rows alone.
///
/// All methods may be called from many threads at once. Threads that ask for a picture which another is encoding wait
/// for it; if that call fails, one of them encodes instead. The tower is used outside the cache's lock. Rows on a GPU
/// are finished when a call returns, so that hits may come on any stream; a miss waits for them.
class ORIEL_API EmbeddingCache {
 public:
  /// Throws invalid_argument for negative limits, file_error if the directory can't be made.
  explicit EmbeddingCache(CacheOptions options = {});
  ~EmbeddingCache();
  EmbeddingCache(const EmbeddingCache&) = delete;
  EmbeddingCache& operator=(const EmbeddingCache&) = delete;

  /// tower.get_image_embeddings(image, options), or what it gave before. The key is the content hash, every option that
  /// changes the rows, and the tower's fingerprint and device; options.text_alias is put on the result and is no part
  /// of the key. Progress is reported on a miss only; `cancel` ends waiting for another thread, too. Throws what the
  /// tower throws (limits also on a hit), and invalid_argument for TokenLayout::exllamav2, whose rows come from a
  /// callback that no key can name: use the overload with a key.
  [[nodiscard]] MMEmbedding get_image_embeddings(const VisionTower& tower, const Image& image,
                                                 const EmbedOptions& options = {});

  /// The same under the caller's key, in place of the content hash; `open` runs only on a miss, on the calling thread.
  /// The caller promises that one key always stands for the same picture (and the same token rows). max_tokens holds
  /// for a hit, too, by the size of the picture that the rows were made from. Throws what `open` throws, too.
  [[nodiscard]] MMEmbedding get_image_embeddings(const VisionTower& tower, std::string_view key,
                                                 const std::function<Image()>& open, const EmbedOptions& options = {});

  [[nodiscard]] CacheStats stats() const;
  /// Forgets what memory holds; the directory stays.
  void clear();

 private:
  struct ORIEL_LOCAL Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace oriel
