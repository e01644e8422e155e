#include "arch/model_files.hpp"

#include <charconv>
#include <system_error>
#include <utility>

#include "core/error.hpp"

namespace oriel::arch {
namespace {

Json read_if_there(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored) ? Json::read(path) : Json::parse("{}", path.string())["(no such file)"];
}

/// The first that has a value, else the last (absent).
Json first_of(const Json& a, const Json& b) { return a.has_value() ? a : b; }

void refuse_quantised(const Json& config) {
  const Json quantisation = config["quantization_config"];
  if (!quantisation.has_value()) return;
  const Json method = quantisation["quant_method"];
  throw_error(ErrorCode::unsupported_model,
              "{}: quantised checkpoints are not supported (quant_method {}); use the float checkpoint",
              quantisation.where(), method.has_value() ? method.dump() : "unknown");
}

using TokenIds = std::map<std::string, int64_t, std::less<>>;

void add_from_tokenizer(const Json& tokenizer, TokenIds& ids) {
  const Json tokens = tokenizer["added_tokens"];
  if (!tokens.has_value()) return;
  for (const Json& token : tokens.elements()) ids.emplace(token["content"].string(), token["id"].integer());
}

void add_from_decoder(const Json& tokenizer_config, TokenIds& ids) {
  const Json decoder = tokenizer_config["added_tokens_decoder"];
  if (!decoder.has_value()) return;
  for (const auto& [key, token] : decoder.members()) {
    int64_t id = 0;
    const auto [end, status] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (status != std::errc() || end != key.data() + key.size())
      throw_error(ErrorCode::malformed_model, "{}: expected a token id as key, got \"{}\"", decoder.where(), key);
    ids.emplace(token["content"].string(), id);
  }
}

}  // namespace

ModelFiles ModelFiles::read(const std::filesystem::path& directory) {
  std::error_code ignored;
  if (!std::filesystem::is_directory(directory, ignored))
    throw_error(ErrorCode::file_error, "{}: expected a checkpoint directory, found {}", directory.string(),
                std::filesystem::exists(directory, ignored) ? "a file" : "nothing");
  const Json config = Json::read(directory / "config.json");
  refuse_quantised(config);
  const Json processor = read_if_there(directory / "processor_config.json");
  const Json preprocessor = read_if_there(directory / "preprocessor_config.json");
  const Json video = read_if_there(directory / "video_preprocessor_config.json");
  return {directory, config, processor, first_of(processor["image_processor"], preprocessor),
          first_of(processor["video_processor"], first_of(video, preprocessor))};
}

std::string ModelFiles::model_type() const {
  const Json type = config["model_type"];
  if (!type.has_value())
    throw_error(ErrorCode::malformed_model, "{}: expected the name of an architecture, found nothing", type.where());
  return type.string();
}

TokenIds ModelFiles::added_tokens() const {
  TokenIds ids;
  add_from_tokenizer(read_if_there(directory / "tokenizer.json"), ids);
  add_from_decoder(read_if_there(directory / "tokenizer_config.json"), ids);
  return ids;
}

}  // namespace oriel::arch
