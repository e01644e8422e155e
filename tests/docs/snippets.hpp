#pragma once
// What stands around the blocks of a document when they run (extract_snippets.py writes the rest).
#include <functional>
#include <string_view>

namespace docs {

/// One section of a document, known to main() from the start of the process.
class Program {
 public:
  Program(std::string_view document, std::string_view title, void (*run)());
};

/// Prints a mark, so that what follows can be told from what earlier blocks printed.
void begin_block(int line);

/// Runs `body` and prints the message of the oriel::Error that it throws, if that has the code.
void expect_error(std::string_view code, const std::function<void()>& body);

/// False, but the compiler does not know it.
bool never();

}  // namespace docs
