#pragma once
#include <optional>
#include <oriel/embedding_cache.hpp>
#include <string>

namespace oriel {

/// The second tier of an EmbeddingCache: one safetensors file per key. Everything that goes wrong with it is a warning,
/// never an error: a cache that can't store is slow, not broken. Safe from many threads.
class CacheDirectory {
 public:
  /// Makes the directory if one is wanted; throws file_error if that fails, invalid_argument for negative limits.
  explicit CacheDirectory(const CacheOptions& options);

  /// What is stored under `key`, if it is sound and was made by this tower (and of this content, unless that is zero).
  [[nodiscard]] std::optional<MMEmbedding> read(const std::string& key, ContentHash content,
                                                const VisionTower& tower) const;
  /// Stores an embedding, and removes the oldest files beyond the limit.
  void write(const std::string& key, const MMEmbedding& embedding) const;

 private:
  [[nodiscard]] std::filesystem::path file(const std::string& key) const;
  void trim() const;
  void warn(const std::string& message) const;

  const CacheOptions& options_;
};

}  // namespace oriel
