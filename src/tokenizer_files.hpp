#pragma once
// A directory's tokenizer files, put together as transformers puts them together.
#include <cstdint>
#include <filesystem>
#include <optional>

#include "tokenizer/pipeline.hpp"

namespace oriel {

struct TokenizerFiles {
  tokenizer::Pipeline pipeline = {};
  std::optional<int64_t> bos = {};
  std::optional<int64_t> eos = {};
  std::optional<int64_t> pad = {};
  std::optional<int64_t> unknown = {};
};

/// Throws file_error without a tokenizer.json, and what reading it throws.
[[nodiscard]] TokenizerFiles read_tokenizer_files(const std::filesystem::path& directory);

}  // namespace oriel
