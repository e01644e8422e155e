// Runs a fuzz target over folders of inputs, in builds without libFuzzer.
// usage: replay_<target> FOLDER... ; fails if a folder is missing or holds no file.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "fuzz/fuzz.hpp"

namespace {

std::string current_input;

void name_input(int) {
  std::fprintf(stderr, "input: %s\n", current_input.c_str());
  std::_Exit(1);
}

std::vector<std::filesystem::path> files_of(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

bool run(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file.good() && !file.eof()) {
    std::fprintf(stderr, "%s: can't be read\n", path.c_str());
    return false;
  }
  current_input = path.string();
  const auto bytes = std::make_unique<uint8_t[]>(content.size());
  std::copy(content.begin(), content.end(), bytes.get());
  return LLVMFuzzerTestOneInput(bytes.get(), content.size()) == 0;
}

}  // namespace

/// Mutators are linked, but nothing mutates here.
size_t LLVMFuzzerMutate(uint8_t*, size_t size, size_t) { return size; }

int main(int count, char** arguments) {
  std::signal(SIGABRT, name_input);
  std::signal(SIGSEGV, name_input);
  if (count < 2) {
    std::fprintf(stderr, "usage: %s FOLDER...\n", arguments[0]);
    return 2;
  }
  for (int i = 1; i < count; ++i) {
    const auto files = files_of(arguments[i]);
    if (files.empty()) {
      std::fprintf(stderr, "%s: expected a folder with at least one input\n", arguments[i]);
      return 1;
    }
    for (const auto& file : files)
      if (!run(file)) return 1;
    std::printf("%s: %zu inputs\n", arguments[i], files.size());
  }
  return 0;
}
