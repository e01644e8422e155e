// Chat templates: whatever the source, it is refused or written, soon, and keeps its promises about origins.
#include "core/json.hpp"
#include "fuzz/fuzz.hpp"
#include "jinja/template.hpp"

namespace {

using namespace oriel::jinja;
using oriel::fuzz::require;
using oriel::fuzz::succeeds;

// Letters that no template of the corpus writes: in the output they can only be foreign.
constexpr const char* foreign = "\u0436\u0449";

Template::Variables variables(Run& run) {
  const auto own = [&](const char* text) { return make_text(run, text); };
  const Value text = make_dict(run, {{"type", own("text")}, {"text", make_text(run, foreign, /*foreign=*/true)}});
  const Value image = make_dict(run, {{"type", own("image")}});
  const auto message = [&](const char* role, std::vector<Value> content) {
    return make_dict(run, {{"role", own(role)}, {"content", make_list(run, std::move(content))}});
  };
  return {{"messages", make_list(run, {message("system", {text}), message("user", {image, text})})},
          {"tools", Value(None{})},
          {"add_generation_prompt", Value(true)},
          {"bos_token", own("<s>")},
          {"eos_token", own("</s>")}};
}

void check(const Text& written, bool source_is_ascii) {
  require(oriel::is_utf8(written.bytes()), "what is written is UTF-8");
  std::string joined;
  for (const Text::Run& run : written.runs()) {
    joined += run.bytes;
    require(!run.bytes.empty() && oriel::is_utf8(run.bytes), "runs are whole characters");
    require(run.foreign || !source_is_ascii || run.bytes.find("\u0436") == std::string_view::npos,
            "foreign text stays foreign");
  }
  require(joined == written.bytes(), "runs are the text");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view source = oriel::fuzz::as_text({data, size});
  // \u0436 can be written as an escape, or letter by letter in a text of the template's own.
  const bool plain =
      std::ranges::all_of(source, [](char c) { return static_cast<unsigned char>(c) < 0x80 && c != '\\'; });
  succeeds([&] { check(Template::parse(source, "chat_template").render(variables), plain); });
  return 0;
}
