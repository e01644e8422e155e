// MMEmbedding as a safetensors file: tensor "embeddings" [length, hidden], tensor "placeholder_tokens" int64 if there
// are any, and the rest of MMEmbeddingInfo as JSON under the metadata key "oriel".
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>
#include <oriel/mm_embedding.hpp>

#include "core/error.hpp"
#include "core/json.hpp"
#include "core/safetensors.hpp"
#include "safetensors_file.hpp"

namespace oriel {
namespace {

constexpr int64_t format_version = 1;
constexpr const char* metadata_key = "oriel";

std::span<const std::byte> host_bytes(const Tensor& host) {
  return {static_cast<const std::byte*>(host.data()), host.size_in_bytes()};
}

ContentHash parse_hash(const Json& value) {
  const std::string text = value.string();
  ContentHash hash;
  const auto read = [&](size_t begin, uint64_t& half) {
    const char* first = text.data() + begin;
    const auto [end, status] = std::from_chars(first, first + 16, half, 16);
    return status == std::errc() && end == first + 16;
  };
  if (text.size() != 32 || !read(0, hash.high) || !read(16, hash.low))
    throw_error(ErrorCode::malformed_model, "{}: expected 32 hexadecimal digits, got {}", value.where(), value.dump());
  return hash;
}

Size parse_size(const Json& value) {
  constexpr int64_t longest = int64_t{1} << 32;
  return {value["width"].integer_in(0, longest), value["height"].integer_in(0, longest)};
}

MMEmbeddingInfo parse_info(const Json& json) {
  constexpr int64_t most = int64_t{1} << 40;
  if (const int64_t version = json["version"].integer(); version != format_version)
    throw_error(ErrorCode::malformed_model, "{}: expected {}, got {}", json["version"].where(), format_version,
                version);
  MMEmbeddingInfo info;
  info.text_alias = json["text_alias"].string_or("");
  const Json grid = json["grid"];
  info.grid = {grid["t"].integer_in(0, most), grid["h"].integer_in(0, most), grid["w"].integer_in(0, most)};
  info.merge_size = json["merge_size"].integer_in(1, most);
  info.original_size = parse_size(json["original_size"]);
  info.preprocessed_size = parse_size(json["preprocessed_size"]);
  info.pre_tokens = json["pre_tokens"].integer_in(0, most);
  info.post_tokens = json["post_tokens"].integer_in(0, most);
  info.placeholder_id = json["placeholder_id"].integer();
  info.tokens_unavailable = json["tokens_unavailable"].string_or("");
  info.seconds_per_slot = json["seconds_per_slot"].number();
  info.content_hash = parse_hash(json["content_hash"]);
  info.model_fingerprint = parse_hash(json["model_fingerprint"]);
  info.model_family = json["model_family"].string_or("");  // files of earlier versions have none
  return info;
}

Tensor read_rows(const SafetensorsFile& file) {
  const TensorInfo* tensor = file.find("embeddings");
  if (tensor == nullptr)
    throw_error(ErrorCode::malformed_model, "{}: expected a tensor \"embeddings\", found none", file.path().string());
  constexpr std::array dtypes{DType::float32, DType::bfloat16, DType::float16};
  const auto dtype = std::ranges::find(dtypes, tensor->dtype, file_dtype);
  if (dtype == dtypes.end())
    throw_error(ErrorCode::malformed_model, "{}: embeddings: expected dtype F32, BF16 or F16, got {}",
                file.path().string(), tensor->dtype);
  if (tensor->shape.size() != 2 || tensor->shape[0] < 1 || tensor->shape[1] < 1)
    throw_error(ErrorCode::malformed_model, "{}: embeddings: expected a shape [length, hidden], got {}",
                file.path().string(), shape_to_string(tensor->shape));
  return Tensor::copy_of(file.bytes(*tensor), *dtype, tensor->shape);
}

std::vector<int64_t> read_tokens(const SafetensorsFile& file) {
  const TensorInfo* tensor = file.find("placeholder_tokens");
  if (tensor == nullptr) return {};
  if (tensor->dtype != "I64" || tensor->shape.size() != 1)
    throw_error(ErrorCode::malformed_model, "{}: placeholder_tokens: expected I64 of one dimension, got {} {}",
                file.path().string(), tensor->dtype, shape_to_string(tensor->shape));
  const auto bytes = file.bytes(*tensor);
  std::vector<int64_t> tokens(bytes.size() / sizeof(int64_t));
  std::copy(bytes.begin(), bytes.end(), std::as_writable_bytes(std::span(tokens)).begin());
  return tokens;
}

}  // namespace

void MMEmbedding::save(const std::filesystem::path& path) const {
  const MMEmbeddingInfo& info = this->info();
  const bool automatic = info.text_alias == fmt::format("<$EMB_{}$>", first_id());
  const nlohmann::json json{
      {"version", format_version},
      {"text_alias", automatic ? "" : info.text_alias},
      {"grid", {{"t", info.grid.t}, {"h", info.grid.h}, {"w", info.grid.w}}},
      {"merge_size", info.merge_size},
      {"original_size", {{"width", info.original_size.width}, {"height", info.original_size.height}}},
      {"preprocessed_size", {{"width", info.preprocessed_size.width}, {"height", info.preprocessed_size.height}}},
      {"pre_tokens", info.pre_tokens},
      {"post_tokens", info.post_tokens},
      {"placeholder_id", info.placeholder_id},
      {"tokens_unavailable", info.tokens_unavailable},
      {"seconds_per_slot", info.seconds_per_slot},
      {"content_hash", info.content_hash.to_string()},
      {"model_fingerprint", info.model_fingerprint.to_string()},
      {"model_family", info.model_family},
  };
  const Tensor host = embeddings().to(Device::cpu());
  std::vector<TensorToWrite> tensors{{"embeddings", file_dtype(host.dtype()), host.shape(), host_bytes(host)}};
  if (!info.placeholder_tokens.empty())
    tensors.push_back({"placeholder_tokens",
                       "I64",
                       {static_cast<int64_t>(info.placeholder_tokens.size())},
                       std::as_bytes(std::span(info.placeholder_tokens))});
  // tokens_unavailable may name a path; bytes that are not UTF-8 are replaced rather than refused.
  write_safetensors(path, tensors,
                    {{metadata_key, json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)}});
}

MMEmbedding MMEmbedding::load(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  const auto metadata = file.metadata().find(metadata_key);
  if (metadata == file.metadata().end())
    throw_error(ErrorCode::malformed_model, "{}: expected an embedding saved by oriel, found no metadata \"{}\"",
                path.string(), metadata_key);
  MMEmbeddingInfo info = parse_info(Json::parse(metadata->second, path.string()));
  info.placeholder_tokens = read_tokens(file);
  try {
    return from_rows(read_rows(file), std::move(info));
  } catch (const Error& error) {
    if (error.code() != ErrorCode::invalid_argument) throw;
    throw_error(ErrorCode::malformed_model, "{}: {}", path.string(), error.what());
  }
}

}  // namespace oriel
