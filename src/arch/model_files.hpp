#pragma once
// The JSON files of a checkpoint directory, in the order of precedence of spec/resize.md 10.
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "core/json.hpp"

namespace oriel::arch {

struct ModelFiles {
  std::filesystem::path directory;
  Json config;           ///< config.json
  Json processor;        ///< processor_config.json; absent if there is none
  Json image_processor;  ///< its "image_processor", else preprocessor_config.json, else absent
  Json video_processor;  ///< its "video_processor", else video_preprocessor_config.json, else preprocessor_config.json

  /// Throws file_error if there is no config.json, malformed_model for damaged files, and unsupported_model for
  /// quantised checkpoints.
  [[nodiscard]] static ModelFiles read(const std::filesystem::path& directory);

  /// config.json's model_type.
  [[nodiscard]] std::string model_type() const;

  /// Ids of the added tokens by content: of tokenizer.json's added_tokens, and of tokenizer_config.json's
  /// added_tokens_decoder where the former lacks one. Reads the files anew at each call.
  [[nodiscard]] std::map<std::string, int64_t, std::less<>> added_tokens() const;
};

}  // namespace oriel::arch
