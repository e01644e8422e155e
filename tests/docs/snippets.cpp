// Runs one section of a document: docs_snippets DOCUMENT TITLE
#include "docs/snippets.hpp"

#include <cstdio>
#include <exception>
#include <oriel/error.hpp>
#include <string>
#include <vector>

namespace docs {
namespace {

struct Entry {
  std::string_view document;
  std::string_view title;
  void (*run)();
};

std::vector<Entry>& entries() {
  static std::vector<Entry> all;
  return all;
}

}  // namespace

Program::Program(std::string_view document, std::string_view title, void (*run)()) {
  entries().push_back({document, title, run});
}

void begin_block(int line) { std::printf("\x1e%d\n", line); }

void expect_error(std::string_view code, const std::function<void()>& body) {
  try {
    body();
    std::printf("no error was thrown\n");
  } catch (const oriel::Error& error) {
    const std::string got(to_string(error.code()));
    std::printf("%s%s\n", got == code ? "" : ("of code " + got + ": ").c_str(), error.what());
  }
}

bool never() {
  volatile bool value = false;
  return value;
}

}  // namespace docs

int main(int argc, char** argv) try {
  // Both streams end up in one pipe: without buffers they keep their order.
  std::setvbuf(stdout, nullptr, _IONBF, 0);
  for (const docs::Entry& entry : docs::entries()) {
    if (argc != 3 || entry.document != argv[1] || entry.title != argv[2]) continue;
    entry.run();
    return 0;
  }
  std::printf("usage: docs_snippets DOCUMENT TITLE, where TITLE is a section with C++ in it\n");
  return 2;
} catch (const std::exception& error) {
  std::printf("the section ended with an exception: %s\n", error.what());
  return 1;
}
