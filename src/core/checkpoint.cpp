#include "core/checkpoint.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

#include "core/error.hpp"
#include "core/json.hpp"

namespace oriel {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view single_name = "model.safetensors";
constexpr std::string_view index_name = "model.safetensors.index.json";

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);  // follows links: a hub cache is made of them
}

/// "a, b, c and 7 more".
std::string listed(const std::vector<std::string>& names) {
  constexpr size_t max_listed = 8;
  const std::span<const std::string> shown(names.data(), std::min(names.size(), max_listed));
  const std::string text = fmt::format("{}", fmt::join(shown, ", "));
  return names.size() > max_listed ? fmt::format("{} and {} more", text, names.size() - max_listed) : text;
}

/// Says which weights in other formats a directory holds, because that is what its owner will wonder about.
std::string other_weights(const fs::path& directory) {
  std::vector<std::string> pickled;
  std::vector<std::string> gguf;
  std::vector<std::string> safetensors;
  std::error_code error;
  for (fs::directory_iterator place(directory, error); !error && place != fs::directory_iterator();
       place.increment(error)) {
    const std::string name = place->path().filename().string();
    const std::string extension = place->path().extension().string();
    if (extension == ".bin" || extension == ".pt" || extension == ".pth") pickled.push_back(name);
    if (extension == ".gguf") gguf.push_back(name);
    if (extension == ".safetensors") safetensors.push_back(name);
  }
  std::string text;
  const auto add = [&](std::vector<std::string>& names, std::string_view format, std::string_view meaning) {
    std::ranges::sort(names);
    if (!names.empty()) text += fmt::format("; found {}: {}, {}", format, listed(names), meaning);
  };
  add(pickled, "pickled weights",
      "which oriel does not read because unpickling runs code; convert them to safetensors");
  add(gguf, "GGUF weights", "which oriel does not read; take the original checkpoint");
  add(safetensors, "safetensors files of another layout", "which oriel does not read; take the transformers layout");
  return text;
}

/// A shard's path, if it stays inside the directory. Links are followed: a hub cache is made of them.
fs::path shard_path(const fs::path& directory, const Json& file) {
  const fs::path relative = file.string();
  const bool leaves = relative.is_absolute() || std::ranges::find(relative, fs::path("..")) != relative.end();
  if (relative.empty() || leaves) {
    throw_error(ErrorCode::malformed_model, "{}: expected a file inside the directory, got {}", file.where(),
                file.dump());
  }
  return directory / relative.lexically_normal();
}

/// The wanted part of an index: which tensors each needed shard should hold.
using TensorsOfShard = std::map<fs::path, std::vector<std::string>>;

TensorsOfShard read_index(const fs::path& directory, const std::function<bool(std::string_view)>& wanted) {
  const Json weight_map = Json::read(directory / index_name)["weight_map"];
  TensorsOfShard shards;
  for (const auto& [name, file] : weight_map.members()) {
    if (wanted(name)) shards[shard_path(directory, file)].push_back(name);
  }
  std::vector<std::string> missing;
  for (const auto& [path, names] : shards) {
    if (!is_file(path)) missing.push_back(path.lexically_relative(directory).string());
  }
  if (!missing.empty()) {
    throw_error(ErrorCode::file_error, "{}: expected the shards that {} names, missing {}", directory.string(),
                index_name, listed(missing));
  }
  return shards;
}

void check_index(const SafetensorsFile& file, const std::vector<std::string>& names) {
  std::vector<std::string> missing;
  for (const std::string& name : names) {
    if (file.find(name) == nullptr) missing.push_back(name);
  }
  if (!missing.empty()) {
    throw_error(ErrorCode::malformed_model, "{}: expected the tensors that {} places here, missing {}",
                file.path().string(), index_name, listed(missing));
  }
}

}  // namespace

CheckpointFiles::CheckpointFiles() : files_(std::make_shared<std::vector<SafetensorsFile>>()) {}

CheckpointFiles CheckpointFiles::open(const fs::path& directory, const std::function<bool(std::string_view)>& wanted) {
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    throw_error(ErrorCode::file_error, "{}: expected a model directory, found {}", directory.string(),
                fs::exists(directory, error) ? "a file" : "nothing");
  }
  CheckpointFiles checkpoint;
  if (is_file(directory / single_name)) {
    checkpoint.files_->push_back(SafetensorsFile::open(directory / single_name));
  } else if (is_file(directory / index_name)) {
    for (const auto& [path, names] : read_index(directory, wanted)) {
      checkpoint.files_->push_back(SafetensorsFile::open(path));
      check_index(checkpoint.files_->back(), names);
    }
  } else {
    throw_error(ErrorCode::file_error, "{}: expected {} or {}, found neither{}", directory.string(), single_name,
                index_name, other_weights(directory));
  }
  // Entries point at the files: only now do those keep their places.
  for (const SafetensorsFile& file : *checkpoint.files_) checkpoint.add_wanted_tensors_of(file, wanted);
  return checkpoint;
}

void CheckpointFiles::add_wanted_tensors_of(const SafetensorsFile& file,
                                            const std::function<bool(std::string_view)>& wanted) {
  for (const TensorInfo& tensor : file.tensors()) {
    if (!wanted(tensor.name)) continue;
    const auto [entry, is_new] = tensors_.try_emplace(tensor.name, Entry{&file, &tensor});
    if (!is_new) {
      throw_error(ErrorCode::malformed_model, "{}: expected a tensor in one shard only, got {} here and in {}",
                  file.path().string(), tensor.name, entry->second.file->path().string());
    }
  }
}

}  // namespace oriel
