#pragma once
// tests/data/tokenizers: what tests/goldens/make_tokenizer_goldens.py wrote.
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "tokenizer/pipeline.hpp"

namespace oriel::tokenizer {

inline const std::vector<std::string>& golden_kinds() {
  static const std::vector<std::string> kinds = {"qwen",          "tekken",           "llama3",          "gpt2",
                                                 "gemma",         "llama2_prepend",   "mixed_previous",  "mixed_next",
                                                 "mixed_removed", "llama2_metaspace", "mixed_contiguous"};
  return kinds;
}

inline std::filesystem::path golden_directory(const std::string& kind) {
  return std::filesystem::path(ORIEL_TEST_DATA) / "tokenizers" / kind;
}

struct GoldenText {
  std::string text;
  std::vector<int64_t> ids;
  std::vector<int64_t> plain;
  std::vector<Span> offsets;
  std::string decoded;
  std::string skipped;
};

struct Goldens {
  std::vector<int64_t> prefix;
  std::vector<int64_t> suffix;
  std::vector<GoldenText> texts;
};

inline Goldens read_goldens(const std::string& kind) {
  const Json json = Json::read(golden_directory(kind) / "goldens.json");
  const std::vector<Json> texts = Json::read(golden_directory("texts.json"))["texts"].elements();
  Goldens goldens{json["prefix"].integers(), json["suffix"].integers(), {}};
  for (const Json& row : json["texts"].elements()) {
    GoldenText golden;
    golden.text = texts.at(goldens.texts.size()).string();
    golden.ids = row["ids"].integers();
    golden.plain = row["plain"].is_null() ? golden.ids : row["plain"].integers();
    for (const Json& offset : row["offsets"].elements()) {
      const uint32_t last = golden.offsets.empty() ? 0 : golden.offsets.back().end;
      if (offset.is_number()) {
        golden.offsets.push_back({last, last + static_cast<uint32_t>(offset.integer())});
      } else {
        const std::vector<int64_t> both = offset.integers();
        golden.offsets.push_back({static_cast<uint32_t>(both.at(0)), static_cast<uint32_t>(both.at(1))});
      }
    }
    golden.decoded = row["decoded"].is_null() ? golden.text : row["decoded"].string();
    golden.skipped = row["skipped"].is_null() ? golden.decoded : row["skipped"].string();
    goldens.texts.push_back(std::move(golden));
  }
  return goldens;
}

inline Pipeline load_pipeline(const std::string& kind) {
  Pipeline pipeline = Pipeline::read(Json::read(golden_directory(kind) / "tokenizer.json"));
  pipeline.finish();
  return pipeline;
}

}  // namespace oriel::tokenizer
