// The JSON reader: whatever it accepts can be walked, written and read again.
#include "core/json.hpp"

#include "fuzz/fuzz.hpp"

namespace {

using oriel::Json;
using oriel::fuzz::require;
using oriel::fuzz::succeeds;

/// Asks a value for everything that it may not be, and for what it is.
void ask_everything(const Json& value) {
  succeeds([&] { (void)value.integer(); });
  succeeds([&] { (void)value.number(); });
  succeeds([&] { (void)value.boolean_or(false); });
  succeeds([&] { (void)value.string_or(""); });
  succeeds([&] { (void)value.integers(); });
  succeeds([&] { (void)value.numbers(); });
  succeeds([&] { (void)value.integer_in(-3, 1000); });
  succeeds([&] { (void)value.integer_in_or(0, 5, 1); });
  succeeds([&] { (void)value["patch_size"]["x"].elements(); });
}

void walk(const Json& value, int& questions) {
  require(!value.is_absent(), "what is in a document is not absent");
  const int kinds =
      value.is_null() + value.is_object() + value.is_array() + value.is_string() + value.is_number() + value.is_bool();
  require(kinds == 1, "a value is of one kind");
  if (questions-- > 0) ask_everything(value);
  if (value.is_array()) {
    for (const Json& element : value.elements()) walk(element, questions);
  } else if (value.is_object()) {
    for (const auto& [key, member] : value.members()) {
      require(value[key].dump() == member.dump(), "a key finds its member");
      walk(member, questions);
    }
  } else if (value.is_number()) {
    (void)value.number();
  } else if (value.is_string()) {
    require(oriel::is_utf8(value.string()), "strings are UTF-8");
  }
}

/// Text becomes the same text again through quotes, and bytes that are not UTF-8 never get in.
void check_quotes(std::string_view text) {
  const std::string document = "{\"k\":" + oriel::quote_json(text) + "}";
  std::string back;
  const bool accepted = succeeds([&] { back = Json::parse(document, "quoted")["k"].string(); });
  require(accepted == oriel::is_utf8(text), "the reader and is_utf8 agree");
  require(!accepted || back == text, "quoted text comes back");
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text = oriel::fuzz::as_text({data, size});
  const bool parsed = succeeds([&] {
    const Json json = Json::parse(text, "config.json");
    int questions = 4;
    walk(json, questions);
    const std::string written = json.dump();
    require(Json::parse(written, "again").dump() == written, "a written document reads as itself");
  });
  if (parsed) succeeds([&] { (void)Json::parse(text, "config.json", Json::DuplicateKeys::refuse); });
  if (size < 64) check_quotes(text);
  return 0;
}
