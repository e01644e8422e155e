// tokenizer.json and a text, behind a zero byte: whatever loads turns every text into ids of its own and back into
// text.
#include <vector>

#include "fuzz/fuzz.hpp"
#include "fuzz/json_mutator.hpp"
#include "tokenizer/pipeline.hpp"

namespace {

using namespace oriel;
using fuzz::require;
using fuzz::succeeds;

constexpr size_t longest_text = 512;

std::string decode(const tokenizer::Pipeline& pipeline, const std::vector<int64_t>& ids) {
  tokenizer::DecoderStream stream(pipeline.decoder());
  std::string given;
  for (const int64_t id : ids)
    if (const auto token = pipeline.decoded_token(id, false)) given += stream.push(*token);
  require(is_utf8(given), "a stream gives whole characters");
  return given + stream.finish();
}

void check_text(const tokenizer::Pipeline& pipeline, std::string_view text) {
  std::vector<int64_t> ids;
  pipeline.encode(text, {}, true, {.ids = ids});
  std::vector<int64_t> again;
  std::vector<tokenizer::Span> spans;
  pipeline.encode(text, {}, true, {.ids = again, .spans = &spans});
  require(ids == again && ids.size() == spans.size(), "offsets change no ids");
  for (const int64_t id : ids) require(pipeline.token(id).has_value(), "an id has a token");
  for (const tokenizer::Span span : spans)
    require(span.begin <= span.end && span.end <= text.size(), "offsets lie in the text");
  require(is_utf8(decode(pipeline, ids)), "decoded text is UTF-8");

  std::vector<int64_t> plain;
  const tokenizer::Span everything{0, ~uint32_t{0}};
  pipeline.encode(text, {&everything, 1}, true, {.ids = plain});
  for (const int64_t id : plain)
    require(!pipeline.is_special(id) || pipeline.unknown() == id, "plain text becomes no special token");
}

}  // namespace

size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  const std::string_view input = fuzz::as_text({data, size});
  const size_t json = std::min(input.find('\0'), size);
  if (json == 0 || seed % 4 == 0) return LLVMFuzzerMutate(data, size, max_size);
  // The text stays behind the JSON text, whatever that becomes.
  const std::string rest(input.substr(json));
  if (rest.size() >= max_size) return LLVMFuzzerMutate(data, size, max_size);
  const size_t changed = fuzz::mutate_json(data, json, max_size - rest.size(), seed / 4);
  std::copy(rest.begin(), rest.end(), data + changed);
  return changed + rest.size();
}

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input = fuzz::as_text({data, size});
  const size_t json = std::min(input.find('\0'), size);
  const std::string text(input.substr(std::min(json + 1, size)).substr(0, longest_text));
  succeeds([&] {
    tokenizer::Pipeline pipeline = tokenizer::Pipeline::read(Json::parse(input.substr(0, json), "tokenizer.json"));
    pipeline.finish();
    if (is_utf8(text)) check_text(pipeline, text);
  });
  return 0;
}
