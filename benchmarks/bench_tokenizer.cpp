// bench_tokenizer: documents to ids and back, on one thread.
#include <fstream>
#include <iterator>

#include "bench.hpp"

namespace {

struct Arguments {
  std::string model;
  std::string text;
  std::string dump;
  size_t document = 1 << 14;
  int repeats = 5;
  int loads = 1;
  bool serve = false;
};

/// The text in documents of at least `size` bytes, each up to a line's end.
std::vector<std::string> documents_of(const std::string& text, size_t size) {
  std::vector<std::string> documents;
  for (size_t begin = 0; begin < text.size();) {
    const size_t line = size < text.size() - begin ? text.find('\n', begin + size) : std::string::npos;
    const size_t end = line == std::string::npos ? text.size() : line + 1;
    documents.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return documents;
}

void bench_tokenizer(const Arguments& arguments) {
  std::ifstream file(arguments.text, std::ios::binary);
  if (!file) throw std::runtime_error(arguments.text + ": the file can't be opened");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const auto load = [&] { return oriel::Tokenizer::load(arguments.model); };
  const auto [tokenizer, first_load] = bench::timed(load);
  std::vector<double> load_ms{first_load};
  while (std::ssize(load_ms) < arguments.loads) load_ms.push_back(bench::timed(load).second);
  const std::vector<std::string> documents = documents_of(text, arguments.document);
  const auto encode = [&, &vocabulary = tokenizer] {
    std::vector<std::vector<int64_t>> rows;
    for (const std::string& document : documents) rows.push_back(vocabulary.encode(document, {.add_bos = false}));
    return rows;
  };
  const auto decode = [&, &vocabulary = tokenizer](const std::vector<std::vector<int64_t>>& rows) {
    std::vector<std::string> texts;
    for (const std::vector<int64_t>& row : rows) texts.push_back(vocabulary.decode(row));
    return texts;
  };
  const std::vector<std::vector<int64_t>> rows = encode();
  std::vector<int64_t> ids;
  for (const std::vector<int64_t>& row : rows) ids.insert(ids.end(), row.begin(), row.end());
  if (!arguments.dump.empty()) {
    std::ofstream out(arguments.dump, std::ios::binary);
    out.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(8 * ids.size()));
    if (!out.flush()) throw std::runtime_error(arguments.dump + ": the file can't be written");
  }
  bench::JsonLine()
      .add("bytes", static_cast<int64_t>(text.size()))
      .add("ids", static_cast<int64_t>(ids.size()))
      .add("load_ms", load_ms)
      .print();
  bench::answer_rounds(arguments.serve, arguments.repeats, [&](int repeats) {
    std::vector<double> ms;
    std::vector<double> decode_ms;
    for (int i = 0; i < repeats; ++i) {
      ms.push_back(bench::timed(encode).second);
      decode_ms.push_back(bench::timed([&] { return decode(rows); }).second);
    }
    bench::JsonLine().add("ms", ms).add("decode_ms", decode_ms).print();
  });
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Times a text's way to ids and back.", "bench_tokenizer"};
  Arguments arguments;
  app.add_option("--model", arguments.model, "directory with a tokenizer.json")->required();
  app.add_option("--text", arguments.text, "UTF-8 file")->required();
  app.add_option("--document", arguments.document,
                 "cut the text behind so many bytes, at a line's end (default: 16384)");
  app.add_option("--dump", arguments.dump, "write the ids to this file first, eight bytes each");
  app.add_option("--repeats", arguments.repeats, "timed runs (default: 5)")->check(CLI::Range(1, 1'000'000));
  app.add_option("--loads", arguments.loads, "timed loads (default: 1)")->check(CLI::Range(1, 1'000'000));
  app.add_flag("--serve", arguments.serve, "read counts of runs from stdin instead");
  return run_program(app, argc, argv, [&] { bench_tokenizer(arguments); });
}
