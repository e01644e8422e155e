// Prompts against the input_ids of transformers' processors.
#include <algorithm>

#include "tower/chat_cases.hpp"

namespace oriel {
namespace {

/// Ids of a prompt, those of rows as the processor writes them.
std::vector<int64_t> processor_ids(const Tokenizer& tokenizer, const std::vector<PromptSegment>& segments) {
  std::vector<int64_t> ids = tokenizer.encode(segments);
  for (const PromptSegment& segment : segments) {
    const auto* embedding = std::get_if<MMEmbedding>(&segment);
    if (embedding == nullptr) continue;
    for (int64_t& id : ids)
      if (id >= embedding->first_id() && id < embedding->first_id() + embedding->length())
        id = embedding->info().placeholder_id;
  }
  return ids;
}

class ChatIdsOf : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Families, ChatIdsOf, testing::ValuesIn(chat_families),
                         [](const auto& family) { return family.param; });

TEST_P(ChatIdsOf, ConversationsAreTransformersInputIds) {
  const ChatCases cases(GetParam());
  const Tokenizer tokenizer = Tokenizer::load(cases.directory());
  for (const Json& conversation : cases.conversations()) {
    SCOPED_TRACE(conversation.dump());
    if (conversation["input_ids"].is_null()) continue;
    EXPECT_EQ(processor_ids(tokenizer, cases.render(conversation)), conversation["input_ids"].integers());
  }
}

TEST_P(ChatIdsOf, TextsAreTransformersInputIds) {
  const ChatCases cases(GetParam());
  const Tokenizer tokenizer = Tokenizer::load(cases.directory());
  for (const Json& text : cases.texts()) {
    SCOPED_TRACE(text.dump());
    // A bos in the text is doubled by transformers and not by the tokenizer: the one difference that is meant.
    if (text["input_ids"].is_null()) continue;
    std::vector<int64_t> expected = text["input_ids"].integers();
    const auto bos = tokenizer.bos_id();
    if (bos && expected.size() > 1 && expected[0] == *bos && expected[1] == *bos) expected.erase(expected.begin());
    EXPECT_EQ(processor_ids(tokenizer, cases.place(text)), expected);
  }
}

}  // namespace
}  // namespace oriel
