#include <fmt/format.h>

#include <condition_variable>
#include <list>
#include <mutex>
#include <oriel/embedding_cache.hpp>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "cache_directory.hpp"
#include "core/error.hpp"
#include "core/hash.hpp"
#include "ops/device.hpp"
#include "tensor_types.hpp"
#include "torch_errors.hpp"
#include "tower_impl.hpp"

namespace oriel {
namespace {

using Key = std::string;  // 32 hexadecimal digits

/// Everything that decides the rows but the picture: options and model.
void add_options(Hasher& hasher, const VisionTower& tower, const EmbedOptions& options) {
  const auto add_limit = [&](const std::optional<int64_t>& limit) { hasher.update(limit.value_or(-1)); };
  hasher.update(tower.fingerprint().to_string()).update(to_string(tower.device()));
  add_limit(options.min_pixels);
  add_limit(options.max_pixels);
  hasher.update(static_cast<int64_t>(options.resize)).update(static_cast<int64_t>(options.layout));
  hasher.update(options.embeddings_cpu ? 1 : 0);
}

Key make_key(std::string_view kind, std::string_view picture, const VisionTower& tower, const EmbedOptions& options) {
  Hasher hasher;
  hasher.update(kind).update(static_cast<int64_t>(picture.size())).update(picture);
  add_options(hasher, tower, options);
  return hasher.digest().to_string();
}

}  // namespace

struct EmbeddingCache::Impl {
  struct Entry {
    Key key;
    MMEmbedding embedding;
    int64_t bytes;
    bool on_device;
  };
  using Entries = std::list<Entry>;  // the most recently used first

  explicit Impl(CacheOptions given) : options(std::move(given)), directory(options) {}

  [[nodiscard]] MMEmbedding get(const Key& key, ContentHash content, const VisionTower& tower,
                                const EmbedOptions& embed, const std::function<MMEmbedding()>& encode);

  CacheOptions options;
  CacheDirectory directory;
  mutable std::mutex mutex;
  std::condition_variable_any changed;
  Entries entries;
  std::unordered_map<Key, Entries::iterator> by_key;
  std::unordered_set<Key> in_progress;  // keys that some thread is encoding
  CacheStats stats;

 private:
  [[nodiscard]] std::optional<MMEmbedding> find(const Key& key);
  [[nodiscard]] MMEmbedding produce(const Key& key, ContentHash content, const VisionTower& tower,
                                    const EmbedOptions& embed, const std::function<MMEmbedding()>& encode);
  void insert(const Key& key, const MMEmbedding& embedding);
  void evict(bool on_device);
  [[nodiscard]] int64_t& bytes_of(bool on_device) { return on_device ? stats.device_bytes : stats.host_bytes; }
  [[nodiscard]] int64_t limit_of(bool on_device) const {
    return on_device ? options.max_device_bytes : options.max_host_bytes;
  }
};

MMEmbedding EmbeddingCache::Impl::get(const Key& key, ContentHash content, const VisionTower& tower,
                                      const EmbedOptions& embed, const std::function<MMEmbedding()>& encode) {
  std::unique_lock lock(mutex);
  bool waited = false;
  while (true) {
    if (const auto found = find(key)) {
      ++stats.hits;
      if (waited) ++stats.waits;
      return found->with_alias(embed.text_alias);
    }
    if (!in_progress.contains(key)) break;
    waited = true;
    if (!changed.wait(lock, embed.cancel, [&] { return !in_progress.contains(key); }))
      throw_error(ErrorCode::cancelled, "the call was cancelled");
  }
  in_progress.insert(key);
  lock.unlock();

  // Whatever happens, the others must be woken.
  const auto finish = [&] {
    lock.lock();
    in_progress.erase(key);
    changed.notify_all();
  };
  try {
    const MMEmbedding embedding = produce(key, content, tower, embed, encode);
    finish();
    insert(key, embedding);
    return embedding.with_alias(embed.text_alias);
  } catch (...) {
    if (!lock.owns_lock()) finish();
    throw;
  }
}

std::optional<MMEmbedding> EmbeddingCache::Impl::find(const Key& key) {
  const auto place = by_key.find(key);
  if (place == by_key.end()) return std::nullopt;
  entries.splice(entries.begin(), entries, place->second);
  return place->second->embedding;
}

MMEmbedding EmbeddingCache::Impl::produce(const Key& key, ContentHash content, const VisionTower& tower,
                                          const EmbedOptions& embed, const std::function<MMEmbedding()>& encode) {
  if (auto stored = directory.read(key, content, tower)) {
    const std::lock_guard guard(mutex);
    ++stats.directory_hits;
    return embed.embeddings_cpu ? *stored : stored->to(tower.device());
  }
  MMEmbedding embedding = encode();
  // Hits come on other streams, and the file is written on this thread's current one.
  if (!embed.embeddings_cpu)
    with_torch_errors("embedding cache", [&] { ops::wait_for(embed.stream, to_torch_device(tower.device())); });
  directory.write(key, embedding);
  const std::lock_guard guard(mutex);
  ++stats.misses;
  return embedding;
}

void EmbeddingCache::Impl::insert(const Key& key, const MMEmbedding& embedding) {
  const auto bytes = static_cast<int64_t>(embedding.size_in_bytes());
  const bool on_device = embedding.embeddings().device().kind != Device::Kind::cpu;
  if (bytes > limit_of(on_device)) return;
  entries.push_front({key, embedding.with_alias(""), bytes, on_device});
  by_key[key] = entries.begin();
  bytes_of(on_device) += bytes;
  evict(on_device);
}

void EmbeddingCache::Impl::evict(bool on_device) {
  auto place = entries.end();
  while (bytes_of(on_device) > limit_of(on_device) && place != entries.begin()) {
    --place;
    if (place->on_device != on_device) continue;
    bytes_of(on_device) -= place->bytes;
    by_key.erase(place->key);
    place = entries.erase(place);
    ++stats.evictions;
  }
}

EmbeddingCache::EmbeddingCache(CacheOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
EmbeddingCache::~EmbeddingCache() = default;

MMEmbedding EmbeddingCache::get_image_embeddings(const VisionTower& tower, const Image& image,
                                                 const EmbedOptions& options) {
  if (options.layout != TokenLayout::transformers)
    throw_error(ErrorCode::invalid_argument,
                "layout exllamav2: its rows depend on token_rows; use the overload of the cache that takes a key");
  (void)tower.plan(image.size(), preprocess_options(options));  // a hit keeps to the limits of this call, too
  const ContentHash content = image.content_hash();
  return impl_->get(make_key("content", content.to_string(), tower, options), content, tower, options,
                    [&] { return tower.get_image_embeddings(image, options); });
}

MMEmbedding EmbeddingCache::get_image_embeddings(const VisionTower& tower, std::string_view key,
                                                 const std::function<Image()>& open, const EmbedOptions& options) {
  const MMEmbedding embedding = impl_->get(make_key("caller", key, tower, options), {}, tower, options,
                                           [&] { return tower.get_image_embeddings(open(), options); });
  // Nobody opened the picture of a hit, but its rows know its size.
  if (options.max_tokens) (void)tower.plan(embedding.original_size(), preprocess_options(options));
  return embedding;
}

CacheStats EmbeddingCache::stats() const {
  const std::lock_guard guard(impl_->mutex);
  CacheStats stats = impl_->stats;
  stats.entries = static_cast<int64_t>(impl_->entries.size());
  return stats;
}

void EmbeddingCache::clear() {
  const std::lock_guard guard(impl_->mutex);
  impl_->by_key.clear();
  impl_->entries.clear();
  impl_->stats.host_bytes = 0;
  impl_->stats.device_bytes = 0;
}

}  // namespace oriel
