#pragma once
// Which files of a folder are pictures.
#include <algorithm>
#include <array>
#include <filesystem>
#include <string>

/// By the name: hidden files are none, and what else lies about in folders.
inline bool is_picture(const std::filesystem::path& path) {
  static constexpr std::array<const char*, 6> endings{".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"};
  std::string ending = path.extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  return !path.filename().string().starts_with(".") &&
         std::find(endings.begin(), endings.end(), ending) != endings.end();
}
