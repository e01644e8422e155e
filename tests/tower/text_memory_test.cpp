// Memory that runs out while text is read, encoded, decoded or rendered.
#include <gtest/gtest.h>

#include <oriel/oriel.hpp>
#include <string>
#include <vector>

#include "core/expect_error.hpp"
#include "tower/memory_counter.hpp"

namespace oriel {
namespace {

constexpr size_t large = 1 << 20;
constexpr size_t small = 1 << 13;  // less than the files

template <typename Call>
void expect_out_of_memory(const std::string& text, size_t bytes, Call&& call) {
  const LargeBlocksFail fail(bytes);
  expect_error(ErrorCode::out_of_memory, text, call);
}

class TextMemory : public testing::Test {
 protected:
  void SetUp() override {
    if (!counts_memory()) GTEST_SKIP() << "allocations cannot be made to fail in this build";
  }
  const std::string directory_ = std::string(ORIEL_TEST_DATA) + "/tokenizers/tekken";
  const Tokenizer tokenizer_ = Tokenizer::load(directory_);
  const std::string text_ = std::string(2 * large, 'a');
};

TEST_F(TextMemory, Tokenizers) {
  expect_out_of_memory(directory_ + ": memory ran out while the tokenizer was read", small,
                       [&] { (void)Tokenizer::load(directory_); });
  expect_out_of_memory("text: memory ran out while it was encoded", large, [&] { (void)tokenizer_.encode(text_); });
  expect_out_of_memory("text: memory ran out while it was encoded", large,
                       [&] { (void)tokenizer_.encode_with_offsets(text_); });
  const std::vector<PromptSegment> segments = {TextSegment{.text = text_}};
  expect_out_of_memory("segments: memory ran out while they were encoded", large,
                       [&] { (void)tokenizer_.encode(segments); });
  const std::vector<std::string> texts = {text_};
  expect_out_of_memory("texts: memory ran out while they were encoded", large,
                       [&] { (void)tokenizer_.encode_batch(texts); });
  const std::vector<int64_t> ids(2 * large, tokenizer_.encode("a").back());
  expect_out_of_memory("ids: memory ran out while they were decoded", large, [&] { (void)tokenizer_.decode(ids); });
  EXPECT_FALSE(tokenizer_.encode(text_).empty());
}

/// What is held until it is certain, and the stream afterwards.
TEST_F(TextMemory, TextStreams) {
  const std::string directory = std::string(ORIEL_TEST_DATA) + "/tokenizers/gemma";
  const Tokenizer tokenizer = Tokenizer::load(directory);
  const std::vector<int64_t> bytes = tokenizer.encode("\xee\x80\x80", {.add_bos = false});
  ASSERT_EQ(bytes.size(), 3U) << "byte tokens of a character that the vocabulary lacks";
  const int64_t letter = tokenizer.encode("a", {.add_bos = false}).at(0);
  constexpr size_t held = 4000;
  const auto fill = [&](TextStream& stream) {
    for (size_t i = 0; i < held; ++i)
      for (const int64_t id : bytes) EXPECT_EQ(stream.push(id), "");
  };
  TextStream stream(tokenizer);
  fill(stream);
  expect_out_of_memory("id: memory ran out while it was decoded", 3 * held, [&] { (void)stream.push(letter); });
  TextStream other(tokenizer);
  fill(other);
  expect_out_of_memory("stream: memory ran out while it was finished", 3 * held, [&] { (void)other.finish(); });
  expect_out_of_memory("stream: memory ran out while it was made", 200, [&] { (void)TextStream(tokenizer); });
  TextStream last(tokenizer);
  EXPECT_EQ(last.push(letter), "a");
}

TEST_F(TextMemory, ChatFormats) {
  const std::string directory = std::string(ORIEL_ASSETS) + "/tiny/gemma3";
  const ChatFormat format = ChatFormat::load(directory);
  const std::vector<ChatMessage> messages = {ChatMessage{.role = "user", .content = {text_}}};
  expect_out_of_memory("messages: memory ran out while they were rendered", large,
                       [&] { (void)format.render(messages); });
  expect_out_of_memory("text: memory ran out while pictures were placed in it", large,
                       [&] { (void)format.place(text_, {}); });
  EXPECT_FALSE(format.render(messages).empty());
}

}  // namespace
}  // namespace oriel
