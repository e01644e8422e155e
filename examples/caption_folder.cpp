// caption_folder: one caption for every picture of a folder, as JSON lines, several pictures at a time. A run that was
// ended goes on where it stopped, and tries again what could not be read.
#include <fstream>
#include <map>

#include "chat_program.hpp"
#include "picture_files.hpp"

namespace {

namespace fs = std::filesystem;

struct Arguments {
  ChatArguments chat;
  std::string folder, out;
  int64_t jobs = 4;
};

std::string json_string(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (static_cast<unsigned char>(c) >= 0x20) {
      quoted += c;
    } else {
      char escape[7];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      quoted += escape;
    }
  }
  return quoted + '"';
}

/// What the line of a picture begins with.
std::string line_begin(const fs::path& picture) { return "{\"file\": " + json_string(picture.string()) + ", "; }

/// Pictures of the folder and of those in it, sorted, by their path in it.
std::vector<fs::path> find_pictures(const std::string& folder) {
  std::vector<fs::path> pictures;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && is_picture(entry.path())) pictures.push_back(fs::relative(entry.path(), folder));
  std::sort(pictures.begin(), pictures.end());
  return pictures;
}

/// Whether a line tells an error. In the path every quotation mark has a backslash in front of it.
bool is_error(const std::string& line) { return line.find("\", \"error\": \"") != std::string::npos; }

/// The captions that an earlier run wrote. Errors are taken out of the file, since their pictures are tried again, and
/// so is a line that it did not finish.
std::vector<std::string> read_captions(const std::string& out) {
  std::ifstream file(out, std::ios::binary);
  std::vector<std::string> lines;
  uintmax_t kept = 0;
  for (std::string line; std::getline(file, line) && !file.eof();) {
    if (is_error(line)) continue;
    kept += line.size() + 1;
    lines.push_back(std::move(line));
  }
  file.close();
  if (!fs::exists(out) || fs::file_size(out) == kept) return lines;
  const std::string shorter = out + ".new";
  std::ofstream copy(shorter, std::ios::binary);
  for (const std::string& line : lines) copy << line << '\n';
  copy.close();
  if (!copy) throw std::runtime_error("--out: can't write " + shorter);
  fs::rename(shorter, out);
  return lines;
}

std::vector<fs::path> without_done(std::vector<fs::path> pictures, const std::vector<std::string>& lines) {
  std::erase_if(pictures, [&](const fs::path& picture) {
    const std::string begin = line_begin(picture);
    return std::any_of(lines.begin(), lines.end(), [&](const std::string& line) { return line.starts_with(begin); });
  });
  return pictures;
}

/// Writes lines as they come and shows how far the folder is.
class Captions {
 public:
  Captions(const std::string& path, size_t done, size_t total)
      : out_(path, std::ios::binary | std::ios::app), done_(done), total_(total) {
    if (!out_) throw std::runtime_error("--out: can't write " + path);
  }
  ~Captions() {
    if (visible_) std::fprintf(stderr, "\n");
  }

  void add(const fs::path& picture, const std::string& caption) {
    write(line_begin(picture) + "\"caption\": " + json_string(caption) + "}");
  }
  void add_error(const fs::path& picture, const std::string& error) {
    std::fprintf(stderr, "%s%s: %s\n", visible_ ? "\r\033[K" : "", picture.c_str(), error.c_str());
    write(line_begin(picture) + "\"error\": " + json_string(error) + "}");
    ++errors_;
  }
  [[nodiscard]] size_t errors() const { return errors_; }

 private:
  void write(const std::string& line) {
    if (!(out_ << line << '\n' << std::flush)) throw std::runtime_error("--out: can't write any more");
    ++done_;
    if (!visible_) return;
    constexpr size_t width = 40;
    const std::string bar(width * done_ / total_, '#');
    std::fprintf(stderr, "\r[%-*s] %zu of %zu", static_cast<int>(width), bar.c_str(), done_, total_);
  }

  std::ofstream out_;
  size_t done_, total_;
  size_t errors_ = 0;
  bool visible_ = isatty(STDERR_FILENO) == 1;
};

/// Keeps as many pictures in the generator as it runs at once.
void caption(const Arguments& arguments, const std::vector<fs::path>& pictures, Captions& captions) {
  const oriel::VisionTower tower = arguments.chat.compute.load_tower(arguments.chat.model);
  const Chat chat(arguments.chat);
  GrowingGenerator generator(chat, arguments.jobs);
  std::map<int64_t, fs::path> running;
  const auto collect = [&](int64_t job) {
    const oriel::JobResult result = generator.get().take_result(job);
    const auto picture = running.extract(job).mapped();
    if (result.reason == oriel::StopReason::failed)
      captions.add_error(picture, result.error);
    else
      captions.add(picture, result.text);
  };
  const auto step = [&] {
    for (const oriel::JobEvent& event : generator.get().step())
      if (event.stage == oriel::JobEvent::Stage::finished) collect(event.job);
  };
  const auto enqueue = [&](const fs::path& picture) {
    try {
      const auto image = oriel::Image::open(fs::path(arguments.folder) / picture);
      const std::vector embeddings{tower.get_image_embeddings(image)};
      const Prompt prompt = chat.render(std::vector{Chat::question(embeddings, *arguments.chat.question)});
      if (!generator.has_room_for(prompt))
        while (generator.remaining_jobs() > 0) step();
      running.emplace(generator.with_room_for(prompt).enqueue(prompt.ids, chat.job_options(prompt)), picture);
    } catch (const oriel::Error& error) {
      captions.add_error(picture, error.what());
    }
  };
  for (auto next = pictures.begin(); next != pictures.end() || generator.remaining_jobs() > 0;) {
    while (next != pictures.end() && generator.remaining_jobs() < arguments.jobs) enqueue(*next++);
    if (generator.remaining_jobs() > 0) step();
  }
}

void run(const Arguments& arguments) {
  arguments.chat.compute.apply();
  const std::vector<fs::path> all = find_pictures(arguments.folder);
  const std::vector<fs::path> pictures = without_done(all, read_captions(arguments.out));
  Captions captions(arguments.out, all.size() - pictures.size(), all.size());
  if (!pictures.empty()) caption(arguments, pictures, captions);
  std::printf("%zu pictures, %zu of them new, %zu without a caption: %s\n", all.size(), pictures.size(),
              captions.errors(), arguments.out.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{
      "Writes a caption for every picture of a folder. A caption that --out holds already is not made again; a picture "
      "with an error there is tried again.",
      "caption_folder"};
  Arguments arguments;
  arguments.chat.question = "Describe this picture in one sentence.";
  arguments.chat.max_new_tokens = 128;
  arguments.chat.add_answer_options(app);
  app.add_option("--question", arguments.chat.question, "what to ask about each picture")->capture_default_str();
  app.add_option("--jobs", arguments.jobs, "pictures at once (default: 4)")->type_name("N")->check(CLI::Range(1, 64));
  app.add_option("--out", arguments.out, "JSON lines {\"file\", \"caption\"} or {\"file\", \"error\"}")
      ->required()
      ->type_name("FILE.jsonl");
  app.add_option("folder", arguments.folder, "JPEG, PNG, WebP, BMP and GIF files, also in folders of it")
      ->required()
      ->check(CLI::ExistingDirectory)
      ->type_name("FOLDER");
  return run_program(app, argc, argv, [&] { run(arguments); });
}
