#include "cache_directory.hpp"

#include <algorithm>
#include <system_error>
#include <vector>

#include "core/error.hpp"
#include "core/log.hpp"

namespace oriel {
namespace {

constexpr std::string_view extension = ".oriel.safetensors";

struct StoredFile {
  std::filesystem::path path;
  std::filesystem::file_time_type time;
  int64_t bytes;
};

std::vector<StoredFile> stored_files(const std::filesystem::path& directory) {
  std::vector<StoredFile> files;
  std::error_code status;
  for (std::filesystem::directory_iterator place(directory, status);
       !status && place != std::filesystem::directory_iterator(); place.increment(status)) {
    const std::filesystem::directory_entry& entry = *place;
    if (!entry.path().string().ends_with(extension)) continue;
    std::error_code gone;  // another process may have removed it
    const auto bytes = entry.file_size(gone);
    const auto time = entry.last_write_time(gone);
    if (!gone) files.push_back({entry.path(), time, static_cast<int64_t>(bytes)});
  }
  return files;
}

}  // namespace

CacheDirectory::CacheDirectory(const CacheOptions& options) : options_(options) {
  const auto check = [](const char* name, int64_t value) {
    if (value < 0) throw_error(ErrorCode::invalid_argument, "{}: expected at least 0, got {}", name, value);
  };
  check("max_host_bytes", options.max_host_bytes);
  check("max_device_bytes", options.max_device_bytes);
  check("max_directory_bytes", options.max_directory_bytes);
  if (!options.directory) return;
  std::error_code status;
  std::filesystem::create_directories(*options.directory, status);
  if (!std::filesystem::is_directory(*options.directory))
    throw_error(ErrorCode::file_error, "{}: the cache directory can't be made: {}", options.directory->string(),
                status ? status.message() : "something else has that name");
}

std::filesystem::path CacheDirectory::file(const std::string& key) const {
  return *options_.directory / (key + std::string(extension));
}

void CacheDirectory::warn(const std::string& message) const { log(options_.log, LogLevel::warning, message); }

std::optional<MMEmbedding> CacheDirectory::read(const std::string& key, ContentHash content,
                                                const VisionTower& tower) const {
  if (!options_.directory) return std::nullopt;
  const std::filesystem::path path = file(key);
  std::error_code status;
  if (!std::filesystem::exists(path, status)) return std::nullopt;
  try {
    MMEmbedding embedding = MMEmbedding::load(path);
    const MMEmbeddingInfo& info = embedding.info();
    const bool fits = info.model_fingerprint == tower.fingerprint() &&
                      (content == ContentHash{} || info.content_hash == content) &&
                      embedding.hidden_size() == tower.hidden_size();
    if (fits) return embedding;
    warn(path.string() + ": ignored: it holds another picture or another model's rows");
  } catch (const Error& error) {
    warn(std::string("ignored: ") + error.what());
  }
  return std::nullopt;
}

void CacheDirectory::write(const std::string& key, const MMEmbedding& embedding) const {
  if (!options_.directory || static_cast<int64_t>(embedding.size_in_bytes()) > options_.max_directory_bytes) return;
  try {
    embedding.with_alias("").save(file(key));
    trim();
  } catch (const Error& error) {
    warn(std::string("not stored: ") + error.what());
  }
}

void CacheDirectory::trim() const {
  std::vector<StoredFile> files = stored_files(*options_.directory);
  int64_t total = 0;
  for (const StoredFile& file : files) total += file.bytes;
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.time < b.time; });
  for (const StoredFile& file : files) {
    if (total <= options_.max_directory_bytes) return;
    std::error_code status;
    if (std::filesystem::remove(file.path, status)) total -= file.bytes;
    if (status) warn(file.path.string() + ": can't be removed: " + status.message());
  }
}

}  // namespace oriel
