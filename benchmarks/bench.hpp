#pragma once
// What the benchmark programs share. Each sets itself up, prints one JSON line about that, then answers every number n
// that it reads from stdin with one JSON line of n timed runs, so that run.py can alternate between programs that are
// all warm. Without --serve it answers one such question, --repeats, and ends.
#include <sys/resource.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "command_line.hpp"

namespace bench {

/// A JSON object on one line, printed at once. Texts must need no escaping.
class JsonLine {
 public:
  JsonLine& add(std::string_view key, std::string_view text) {
    return add_raw(key, std::string("\"").append(text) + '"');
  }
  JsonLine& add(std::string_view key, int64_t number) { return add_raw(key, std::to_string(number)); }
  JsonLine& add(std::string_view key, std::span<const double> numbers) {
    std::string list;
    for (const double number : numbers) {
      char text[32];
      std::snprintf(text, sizeof text, "%.4f", number);
      list += (list.empty() ? "" : ", ") + std::string(text);
    }
    return add_raw(key, "[" + list + "]");
  }
  JsonLine& add(std::string_view key, std::span<const std::string> texts) {
    std::string list;
    for (const std::string& text : texts) list += (list.empty() ? "\"" : ", \"") + text + '"';
    return add_raw(key, "[" + list + "]");
  }
  void print() const {
    std::printf("{%s}\n", fields_.c_str());
    std::fflush(stdout);
  }

 private:
  JsonLine& add_raw(std::string_view key, const std::string& value) {
    fields_ += (fields_.empty() ? "\"" : ", \"") + std::string(key) + "\": " + value;
    return *this;
  }
  std::string fields_;
};

/// The result of `work`, and how many milliseconds it took. The result is destroyed outside the measured time, as a
/// caller who keeps it would have it.
template <typename Work>
auto timed(const Work& work) {
  const auto begin = std::chrono::steady_clock::now();
  auto result = work();
  const std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - begin;
  return std::pair{std::move(result), elapsed.count()};
}

/// Answers every number on stdin, or `repeats` alone. `answer(n)` prints the line of n runs.
template <typename Answer>
void answer_rounds(bool serve, int repeats, const Answer& answer) {
  if (!serve) return answer(repeats);
  for (int count = 0; std::cin >> count;) answer(count);
}

/// The widest instructions that oriel's pixel code knows and this processor has: what it picks by itself.
inline std::string_view pixel_instructions() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vbmi") &&
      __builtin_cpu_supports("avx512vnni"))
    return "avx512";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "avx2";
#endif
  return "plain";
}

/// Runs `work` until it touches no more new pages: malloc's heap finds room for a large aligned block again only after
/// it has grown a few times. At most `most` runs.
template <typename Work>
void settle_memory(const Work& work, int most = 30) {
  const auto faults = [] {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt;
  };
  for (int run = 0, quiet = 0; run < most && quiet < 2; ++run) {
    const long before = faults();
    work();
    quiet = faults() - before < 200 ? quiet + 1 : 0;  // below one MB
  }
}

/// A field of /proc/self/status in KiB, such as VmHWM, the largest resident size so far; 0 where there is none.
inline int64_t status_kib(std::string_view field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with(field) && line.size() > field.size() && line[field.size()] == ':')
      return std::stoll(line.substr(field.size() + 1));
  return 0;
}

}  // namespace bench
